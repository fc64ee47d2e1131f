"""The live project with the admin, a url to scrape, and a strict Content-Security-Policy."""

import os

from tests.live.project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.operating.site.urls"
SESSION_ENGINE = "django.contrib.sessions.backends.db"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
MIDDLEWARE = ["tests.operating.site.middleware.content_security_policy", *MIDDLEWARE]  # noqa: F405
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        "CONFIG": {"hosts": [os.environ.get("LIVE_REDIS", "redis://127.0.0.1:6379")]},
    },
}
