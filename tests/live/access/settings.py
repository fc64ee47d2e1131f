"""The live project with users, sessions in the database, and urls to log in and out by."""

from tests.live.project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.live.access.urls"
SESSION_ENGINE = "django.contrib.sessions.backends.db"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
LOGGING = {
    **LOGGING,  # noqa: F405
    "filters": {"hide_tokens": {"()": "django_sse_live.log_filters.HideTokens"}},
    "loggers": {
        "uvicorn.access": {"handlers": ["stderr"], "filters": ["hide_tokens"], "propagate": False},
        "uvicorn.error": {"handlers": ["stderr"], "filters": ["hide_tokens"], "propagate": False},
    },
}
