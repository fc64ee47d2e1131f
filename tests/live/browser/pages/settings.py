"""A site whose pages are live without a script of their own, under a strict policy that requires trusted types."""

import os
from pathlib import Path

from tests.live.browser.strict_site import strict_site
from tests.settings import *  # noqa: F403

vars().update(strict_site("tests.live.browser.pages", Path(__file__).parent))

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("PAGES_DATABASE", ":memory:"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF"},
    }
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

SSE_LIVE = {"PUBLIC_CHANNELS": ["*"], "HEARTBEAT_SECONDS": 1, "HEARTBEAT_MIN_SECONDS": 0.5, "RETRY_MS": 300}
