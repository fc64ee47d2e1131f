"""What sender and listener share: how they call the layer, and how long they wait for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

GROUP: Final = "sse_live"
DELTAS_GROUP: Final = "sse_live_jobs"
MESSAGE_TYPE: Final = "sse.live"  # Channels requires a type in each message
LAYER_SECONDS: Final = 5.0  # time limit for all calls but receive()
REJOIN_SECONDS: Final = 30.0  # between two joins of a group: layers forget members, and lose their data
RETRY_SECONDS: Final = (0.1, 2.0)  # first and longest pause after an error

MakeLayer = Callable[[], Any]  # a layer object for one loop, since two loops cannot share one
