"""Deltas of jobs over the channel layer, in a group of their own, so that they fill no channel of events.

They have no numbers: the cache has what the layer loses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from ...events import received_event
from ...hub.hub import Hub
from ..cancellation import within
from ..unreadable import MALFORMED
from .layer import DELTAS_GROUP, LAYER_SECONDS, REJOIN_SECONDS, RETRY_SECONDS, MakeLayer

logger: logging.Logger = logging.getLogger("django_sse_live")


async def hear_deltas(make_layer: MakeLayer, hub: Hub) -> None:
    """Hand deltas to the hub until cancelled."""
    pause, longest = RETRY_SECONDS
    while True:
        try:
            layer = make_layer()
            channel = await within(LAYER_SECONDS, layer.new_channel())
            while True:
                await within(LAYER_SECONDS, layer.group_add(DELTAS_GROUP, channel))
                pause = RETRY_SECONDS[0]
                await _receive(layer, channel, hub)
        except Exception as error:  # layers raise any exception of their server's library
            logger.debug("The channel layer does not bring deltas of jobs: %r", error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, longest)


async def _receive(layer: Any, channel: str, hub: Hub) -> None:
    until = hub.loop.time() + REJOIN_SECONDS
    while (seconds := until - hub.loop.time()) > 0:
        try:
            message = await within(seconds, layer.receive(channel))
        except asyncio.TimeoutError:
            return
        _hand_on(message, hub)


def _hand_on(message: Mapping[str, Any], hub: Hub) -> None:
    try:
        hub.deliver(received_event(message["channels"], message["event"], message["data"]))
    except MALFORMED as error:
        logger.debug("A message on the channel layer cannot be read: %r", error)
