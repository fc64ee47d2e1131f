"""A site whose pages show jobs, under the strict policy of the other pages. WORK_REDIS: the url of a Redis that is its
bus and its cache, so that a producer in another process is heard and the server may be restarted."""

import os
from pathlib import Path

from tests.live.browser.strict_site import strict_site
from tests.settings import *  # noqa: F403

vars().update(strict_site("tests.live.browser.work", Path(__file__).parent))

REDIS = os.environ.get("WORK_REDIS", "")
X_FRAME_OPTIONS = "SAMEORIGIN"  # a tab may be an iframe here
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS}
    if REDIS
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

SSE_LIVE = {
    "PUBLIC_CHANNELS": ["news"],
    "HEARTBEAT_SECONDS": 1,
    "HEARTBEAT_MIN_SECONDS": 0.5,
    "RETRY_MS": 300,
    **(
        {"BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend", "OPTIONS": {"URL": REDIS}}
        if REDIS
        else {}
    ),
}
