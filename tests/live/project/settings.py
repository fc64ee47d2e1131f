"""The project that the live tests serve: all of Django's default middleware, and the app.

Environment variables change it for one server, so that a test can choose without files of its own:

LIVE_SSE         JSON, laid over SSE_LIVE below
LIVE_MIDDLEWARE  JSON, a list that takes the place of MIDDLEWARE
LIVE_DATABASE    a path for SQLite; by default the database is in memory
"""

import json
import os

from tests import settings as defaults
from tests.settings import ALLOWED_HOSTS, SECRET_KEY, TEMPLATES, USE_TZ  # noqa: F401

DEBUG = False

INSTALLED_APPS = [app for app in defaults.INSTALLED_APPS if app.startswith(("daphne", "django"))]
MIDDLEWARE = json.loads(os.environ.get("LIVE_MIDDLEWARE", "null")) or [
    "tests.live.project.middleware.spoil",
    *defaults.MIDDLEWARE,
]
ROOT_URLCONF = "tests.live.project.urls"
ASGI_APPLICATION = "tests.live.project.asgi.application"
SESSION_ENGINE = os.environ.get("LIVE_SESSIONS", "django.contrib.sessions.backends.signed_cookies")

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ.get("LIVE_DATABASE", ":memory:")},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"
USE_I18N = True
LANGUAGES = [("en", "English"), ("de", "Deutsch")]

SSE_LIVE = {
    "PUBLIC_CHANNELS": ["*"],
    "AUTHORIZE": "tests.live.project.views.authorize",
    "LOG_LINES_PER_SECOND": None,  # tests count the lines
    **json.loads(os.environ.get("LIVE_SSE", "{}")),
}

# Everything that Python logs, whoever does, at INFO and above, in one form: harness.servers.noise() reads it.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
