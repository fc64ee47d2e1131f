"""The first moment of a stream: what it missed and its worker no longer has is read from the bus, then it opens.

This is done without a thread and without a place in the line of openings: the bus may be slow.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..backends import replay_history
from ..hub.clients import Client
from ..identity import address_group
from .addresses import is_private

HISTORY_SECONDS: Final = 5.0  # how long a stream waits for what the bus still has

BUS_READ_BYTES: Final = 1024 * 1024  # what such a read counts for, whatever is found

logger: logging.Logger = logging.getLogger("django_sse_live")


async def open_client(client: Client) -> None:
    """Enter the registry, with what the bus still has of what this client missed. Where the bus does not give it in
    HISTORY_SECONDS, or where its address has had enough of the past for this minute, the client is told to come back,
    rather than to forget where it was."""
    missed = _missed_bytes(client)
    if missed and client.close_reason is None:
        address = client.address
        if not client.hub.replays.take(address_group(address), missed, is_private=is_private(address)):
            client.refuse("replay_limit")
    if client.close_reason is not None or not client.needs_history:
        client.open()
        return
    # A task, so that nothing happens between the last of the history and the first of the log.
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
    """Of the events that it is to be sent from before it opened."""
    log, position, replays = client.hub.log, client.cursor, client.hub.replays
    same = (client.channels, position, log.epoch, log.head)
    if replays.last_asked[0] == same:  # a crowd that comes back has missed the same
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
