"""Whether threads are greenlets, as under gevent and eventlet."""

from __future__ import annotations

import sys


def are_threads_green() -> bool:
    """Greenlets run on another thread's stack, with its running loop, and what blocks in C holds all of them up."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    return bool(
        (gevent is not None and gevent.is_module_patched("threading"))
        or (eventlet is not None and eventlet.is_monkey_patched("thread"))
    )
