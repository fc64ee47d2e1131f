"""The opening of a stream: the bus is asked for missed events that the worker no longer has, then the stream opens.

This holds no thread and no place in the line of openings, since the bus may be slow. How many bytes of past events one
address may get in a minute is bounded: a request of a hundred bytes can ask for megabytes again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from ..backends import replay_history
from ..hub.clients import Client
from ..identity import address_group
from .addresses import is_private

HISTORY_SECONDS: Final = 5.0  # a stream waits this long for the bus
BUS_READ_BYTES: Final = 1024 * 1024  # charged to the address for such a read, even if it finds less
MINUTE_SECONDS: Final = 60.0
ADDRESS_MAX_BYTES: Final = 64 * 1024 * 1024
# A private address is usually a proxy's, and stands for all its visitors.
PRIVATE_ADDRESS_MAX_BYTES: Final = 1024 * 1024 * 1024


class ReplayBudget:
    """Bytes by address, of one hub. The minutes begin for all addresses together, so old entries need no clean-up."""

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


async def open_client(client: Client) -> None:
    """Enter the registry, with the missed events that the bus still has. The client is told to come back, and keeps its
    id, if the bus does not answer within HISTORY_SECONDS, or its address has had enough past events for this minute."""
    parts = client.hub.parts
    budget: ReplayBudget = parts.get(ReplayBudget) or parts.setdefault(ReplayBudget, ReplayBudget(client.hub.loop.time))
    missed = _missed_bytes(client, budget)
    _charge(client, budget, missed)
    if client.close_reason is not None or not client.needs_history:
        client.open()
        return
    # In a task: no other step of this client comes between the end of the history and the start of the log.
    opening = client.hub.loop.create_task(_read_and_open(client, budget, missed))
    try:
        done, _ = await asyncio.wait([opening], timeout=HISTORY_SECONDS)
    finally:
        opening.cancel()
    if done:
        opening.result()
    elif client.close_reason is None:
        client.hub.notices.unread(client, HISTORY_SECONDS)
        client.refuse("not_ready")


def _missed_bytes(client: Client, budget: ReplayBudget) -> int:
    """The bytes of the events before its opening that it will get."""
    log, position, held = client.hub.log, client.cursor, client.held
    same = (client.channels, position, log.epoch, log.head, held[-1].position if held else 0)
    if budget.last_asked[0] == same:  # clients that come back together have missed the same
        return budget.last_asked[1]
    size = sum(event.size for event in held) + (BUS_READ_BYTES if client.needs_history else 0)
    while position < log.head and (events := log.read(client.channels, position)):
        size += sum(event.size for event in events)
        position = events[-1].position
    budget.last_asked = same, size
    return size


def _charge(client: Client, budget: ReplayBudget, size: int) -> None:
    address = client.address
    if size > 0 and client.close_reason is None:
        if not budget.take(address_group(address), size, is_private=is_private(address)):
            client.refuse("replay_limit")


async def _read_and_open(client: Client, budget: ReplayBudget, charged: int) -> None:
    await replay_history(client)
    _charge(client, budget, _missed_bytes(client, budget) - charged)
    client.open()
