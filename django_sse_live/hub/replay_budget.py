"""ReplayBudget: how many bytes of the past one address may have in a minute.

A request of a hundred bytes can ask for megabytes, and again and again. Touched on the hub's loop alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MINUTE_SECONDS: Final = 60.0
ADDRESS_MAX_BYTES: Final = 64 * 1024 * 1024
# A private address is most often a proxy's, and stands for all of its visitors.
PRIVATE_ADDRESS_MAX_BYTES: Final = 1024 * 1024 * 1024


class ReplayBudget:
    """By address, in minutes that begin for all of them together: so it forgets by itself."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_at = clock()
        self._spent: dict[str, int] = {}
        self.last_asked: tuple[object, int] = (None, 0)  # what was missed, and how many bytes that is

    def take(self, address: str, size: int, *, is_private: bool) -> bool:
        """Whether it may have that many bytes, which are then counted. One replay is let through whatever its size."""
        now = self._clock()
        if now - self._began_at >= MINUTE_SECONDS:
            self._began_at = now
            self._spent.clear()
        spent = self._spent.get(address, 0)
        if spent and spent + size > (PRIVATE_ADDRESS_MAX_BYTES if is_private else ADDRESS_MAX_BYTES):
            return False
        self._spent[address] = spent + size
        return True
