"""The site of a randomised run: RUN_DATABASES is JSON."""

import json
import os

from tests.database.servers import use_mysql_driver

DATABASES = json.loads(os.environ["RUN_DATABASES"])
if any(database["ENGINE"].endswith("mysql") for database in DATABASES.values()):
    use_mysql_driver()

SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django_sse_live",
    "django_sse_live.database",
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SSE_LIVE = {
    "BACKEND": "django_sse_live.database.DatabaseBackend",
    "OPTIONS": json.loads(os.environ.get("RUN_OPTIONS", "{}")),
    "HISTORY_EVENTS": int(os.environ.get("RUN_HISTORY", "10000")),
    "HISTORY_SECONDS": 86_400,
    "LOG_LINES_PER_SECOND": 1,
}
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
}
