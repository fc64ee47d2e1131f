"""The example's settings, with quick heartbeats: a test need not wait a minute to see one missed."""

from config.settings import *  # noqa: F403
from config.settings import SSE_LIVE

SSE_LIVE = {**SSE_LIVE, "HEARTBEAT_SECONDS": 1}
