"""ReplayBudget: how many bytes of past events one address may get in a minute.

A request of a hundred bytes can ask for megabytes again and again. Touched on the hub's loop alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MINUTE_SECONDS: Final = 60.0
ADDRESS_MAX_BYTES: Final = 64 * 1024 * 1024
# A private address is usually a proxy's, and stands for all its visitors.
PRIVATE_ADDRESS_MAX_BYTES: Final = 1024 * 1024 * 1024


class ReplayBudget:
    """Bytes by address. The minutes begin for all addresses together, so old entries need no clean-up."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_at = clock()
        self._spent: dict[str, int] = {}
        self.last_asked: tuple[object, int] = (None, 0)  # the last replay asked for, and its bytes

    def take(self, address: str, size: int, *, is_private: bool) -> bool:
        """Take that many bytes. False if the address has too few left. One replay of any size is let through."""
        now = self._clock()
        if now - self._began_at >= MINUTE_SECONDS:
            self._began_at = now
            self._spent.clear()
        spent = self._spent.get(address, 0)
        if spent and spent + size > (PRIVATE_ADDRESS_MAX_BYTES if is_private else ADDRESS_MAX_BYTES):
            return False
        self._spent[address] = spent + size
        return True
