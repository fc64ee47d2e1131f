"""What sender and listener share: how they call the layer, and how long they wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

GROUP: Final = "sse_live"
DELTAS_GROUP: Final = "sse_live_jobs"
MESSAGE_TYPE: Final = "sse.live"  # Channels requires a type in each message
LAYER_SECONDS: Final = 5.0  # time limit for all calls but receive()
REJOIN_SECONDS: Final = 30.0  # between two joins of a group: layers forget members, and lose their data
RETRY_SECONDS: Final = (0.1, 2.0)  # first and longest pause after an error

MakeLayer = Callable[[], Any]  # a layer object for one loop, since two loops cannot share one


def are_threads_green() -> bool:
    """Whether threads are greenlets, which run on another thread's stack, with its running loop."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )
