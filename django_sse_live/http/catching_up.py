"""The opening of a stream: the bus is asked for missed events that the worker no longer has, then the stream opens.

This holds no thread and no place in the line of openings, since the bus may be slow.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..backends import replay_history
from ..hub.clients import Client
from ..identity import address_group
from .addresses import is_private

HISTORY_SECONDS: Final = 5.0  # a stream waits this long for the bus

BUS_READ_BYTES: Final = 1024 * 1024  # charged to the address for such a read, whatever it finds

logger: logging.Logger = logging.getLogger("django_sse_live")


async def open_client(client: Client) -> None:
    """Enter the registry, with the missed events that the bus still has. The client is told to come back, and keeps its
    id, if the bus does not answer within HISTORY_SECONDS, or its address has had enough past events for this minute."""
    missed = _missed_bytes(client)
    if missed and client.close_reason is None:
        address = client.address
        if not client.hub.replays.take(address_group(address), missed, is_private=is_private(address)):
            client.refuse("replay_limit")
    if client.close_reason is not None or not client.needs_history:
        client.open()
        return
    # In a task: no other step of this client comes between the end of the history and the start of the log.
    opening = client.hub.loop.create_task(_read_and_open(client))
    try:
        done, _ = await asyncio.wait([opening], timeout=HISTORY_SECONDS)
    finally:
        opening.cancel()
    if done:
        opening.result()
    elif client.close_reason is None:
        logger.info("What SSE client %s missed was not read in %g s.", client.id, HISTORY_SECONDS)
        client.refuse("not_ready")


def _missed_bytes(client: Client) -> int:
    """The bytes of the events before its opening that it will get."""
    log, position, replays = client.hub.log, client.cursor, client.hub.replays
    same = (client.channels, position, log.epoch, log.head)
    if replays.last_asked[0] == same:  # clients that come back together have missed the same
        return replays.last_asked[1]
    size = BUS_READ_BYTES if client.needs_history else 0
    while position < log.head and (events := log.read(client.channels, position)):
        size += sum(event.size for event in events)
        position = events[-1].position
    replays.last_asked = same, size
    return size


async def _read_and_open(client: Client) -> None:
    await replay_history(client)
    client.open()
