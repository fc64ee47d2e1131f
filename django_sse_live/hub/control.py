"""The types of the control events that every hub obeys. They travel as any other event does, and keep their place."""

from __future__ import annotations

from typing import Final

from ..events import RESERVED_PREFIX

DISCONNECT: Final = RESERVED_PREFIX + "disconnect"  # behind disconnect_clients(): a final goodbye
REVOKE: Final = RESERVED_PREFIX + "revoke"  # the clients are asked to come back, and are checked anew
ENDS: Final = frozenset({DISCONNECT, REVOKE})
LOST_EVENTS: Final = RESERVED_PREFIX + "lost"  # a publisher had to give up events before this one
