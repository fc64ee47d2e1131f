"""A Django project as `startproject` makes it; what django-sse-live adds is marked with its name."""

import os
from pathlib import Path

from django.core.management.utils import get_random_secret_key

BASE_DIR = Path(__file__).resolve().parent.parent

# EXAMPLE_DEBUG=0, EXAMPLE_ADDRESS and EXAMPLE_HOSTS are for those who show the example to others: then neither its key
# nor its passwords are those that everybody can read here, and there are no debug pages. Where
# several processes serve it, they need one EXAMPLE_SECRET_KEY: else each makes a key of its own.
ALLOWED_HOSTS = os.environ.get("EXAMPLE_HOSTS", "").split()
IS_SHOWN = bool(ALLOWED_HOSTS) or os.environ.get("EXAMPLE_ADDRESS", "127.0.0.1") not in ("127.0.0.1", "localhost")
DEBUG = not IS_SHOWN and os.environ.get("EXAMPLE_DEBUG", "1") != "0"
if DEBUG:
    SECRET_KEY = "known to everyone, good for nothing else"
else:
    SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY") or get_random_secret_key()

INSTALLED_APPS = [
    "daphne",  # django-sse-live: before staticfiles, so that `runserver` speaks ASGI
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_sse_live",  # django-sse-live
    "django_sse_live.database",  # django-sse-live: the database below carries events between processes
    "board",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
ASGI_APPLICATION = "config.asgi.application"  # django-sse-live

# django-sse-live: anyone may hear the board. Every other channel stays closed.
SSE_LIVE = {
    "BACKEND": "django_sse_live.database.DatabaseBackend",  # what `manage.py shell` saves is heard too
    "PUBLIC_CHANNELS": ["comments"],
}

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXAMPLE_DATABASE", BASE_DIR / "db.sqlite3"),
        # Two tabs that save at once wait for each other instead of failing.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "board"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    # django-sse-live: who came, who left, what was sent
    "loggers": {"django_sse_live": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}
