"""A site for the browser suite: the app, quick heartbeats, a strict policy, and views that the suite plays with."""

import os
from pathlib import Path

from tests.settings import *  # noqa: F403
from tests.settings import MIDDLEWARE, TEMPLATES

HERE = Path(__file__).parent
DEBUG = True  # runserver serves the static files
ROOT_URLCONF = "tests.live.browser.site.urls"
ASGI_APPLICATION = "tests.live.browser.site.asgi.application"
NODE_MODULES = HERE.parents[2] / "js/node_modules"
VENDOR = {
    "htmx.org": "htmx.org/dist",
    "htmx-ext-sse": "htmx-ext-sse/dist",
    "alpine": "@alpinejs/csp/dist",
    "turbo": "@hotwired/turbo/dist",
}
STATICFILES_DIRS = [
    HERE / "static",
    *((f"vendor/{name}", NODE_MODULES / folder) for name, folder in VENDOR.items() if (NODE_MODULES / folder).is_dir()),
]
TEMPLATES = [{**TEMPLATES[0], "DIRS": [HERE / "templates"]}]
MIDDLEWARE = ["tests.live.browser.site.middleware.strict_policy", *MIDDLEWARE]
X_FRAME_OPTIONS = "SAMEORIGIN"  # a tab may be an iframe here
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("SITE_DATABASE", ":memory:")}}

SSE_LIVE = {
    "PUBLIC_CHANNELS": ["*"],
    "HEARTBEAT_SECONDS": 1,
    "HEARTBEAT_MIN_SECONDS": 0.5,
    "RETRY_MS": 500,
    "MAX_AGE_SECONDS": float(os.environ.get("SITE_MAX_AGE", 3600)),
}
