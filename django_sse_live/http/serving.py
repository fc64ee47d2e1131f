"""Serving a stream outside of Django's request, until one of the two sides ends it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, Final

from ..hub.clients import Client
from ..hub.failures import guarded
from .catching_up import open_client
from .servers import UNSENT_MAX_BYTES, breathe, say_it_is_gone, writer_of
from .types import Receive, Send

JOINED_MAX_BYTES: Final = 16 * 1024  # of first frames, snapshot included, that are sent in one write with what follows

logger: logging.Logger = logging.getLogger("django_sse_live")


def serve(client: Client, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
    """Open the stream and send it to its end."""
    return serve_watched(client, client.hub.loop.create_task(_watch_for_disconnect(client, receive)), send)


async def serve_watched(client: Client, watcher: asyncio.Task[None], send: Send) -> None:
    """serve() with a task, ``watcher``, that ends the client when its connection is gone; the task is ended here.
    Raises nothing: the headers are out, and a client that leaves is no error."""
    try:
        client.writer = writer_of(client.hub, send)
        await open_client(client)
        await _send_all(client, send)
    except asyncio.CancelledError:
        pass  # raised by the server: the client left
    except Exception:
        guarded(client.hub.notices.failed, client)
        client.leave("error")
    client.leave()
    watcher.cancel()
    await end(send)


async def _send_all(client: Client, send: Send) -> None:
    # Only an error of send() may mean a broken pipe; any other is a bug of this package.
    sweep = client.hub.heartbeat
    chunk = _take_first(client)
    while True:
        if chunk is not None:
            client.sending_since = sweep.now
            try:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except OSError:
                return
            except RuntimeError:
                say_it_is_gone(send)
                return
            client.sending_since = 0.0
            if len(chunk) > UNSENT_MAX_BYTES:
                await breathe()
        elif client.close_reason is None:
            await client.wait()
        else:
            return
        chunk = client.take()


def _take_first(client: Client) -> bytes | None:
    """``connected`` and the missed events, in one write instead of two."""
    connected = client.take()
    if connected is None or len(connected) > JOINED_MAX_BYTES or client.close_reason is not None:
        return connected
    missed = client.take()
    return connected if missed is None else connected + missed


async def end(send: Send) -> None:
    """Send the final empty body, without which a server takes the response for broken."""
    try:
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except (asyncio.CancelledError, Exception):
        pass  # the client is gone


async def _watch_for_disconnect(client: Client, receive: Receive) -> None:
    """The one pending receive() of this connection."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except Exception as error:
        logger.debug("receive() failed for SSE client %s: %r", client.id, error)
    client.leave()
