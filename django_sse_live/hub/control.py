"""The types of the control events that every hub obeys. They travel in order with all other events."""

from __future__ import annotations

from typing import Final

from ..events import RESERVED_PREFIX

DISCONNECT: Final = RESERVED_PREFIX + "disconnect"  # disconnect_clients(): a final goodbye
REVOKE: Final = RESERVED_PREFIX + "revoke"  # clients are to come back and be checked anew
ENDS: Final = frozenset({DISCONNECT, REVOKE})
LOST_EVENTS: Final = RESERVED_PREFIX + "lost"  # a publisher has dropped events before this one
