"""What sender and listener have in common: how they call the layer, and how long they wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

GROUP: Final = "sse_live"
DELTAS_GROUP: Final = "sse_live_jobs"
MESSAGE_TYPE: Final = "sse.live"  # Channels asks every message for a type
LAYER_SECONDS: Final = 5.0  # how long the layer may take for anything but receiving
RETRY_SECONDS: Final = (0.1, 2.0)  # the first wait after an error, and the longest

MakeLayer = Callable[[], Any]  # a layer object for one loop: layers do not let two loops share one


def are_threads_green() -> bool:
    """Whether a thread of one's own is a greenlet, on the stack and with the running loop of somebody else's thread."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )
