"""For the tests of those who use the app.

What was broadcast, without a server and without a client::

    with capture_broadcasts() as broadcasts:
        Comment.objects.create(text="hello")
    assert [(b.type, b.data) for b in broadcasts] == [("new_comment", {"id": 1})]

What a browser would get, without a server::

    async with StreamClient().stream("/events/", {"channel": "comments"}) as stream:
        await Comment.objects.acreate(text="hello")
        event = await stream.next()
    assert (event.type, event.data) == ("new_comment", {"id": 1})

The same over a WebSocket, and what a browser sends::

    async with StreamClient(transport="websocket").stream("/events/", {"channel": "room.1"}) as stream:
        assert await stream.send("typing", channel="room.1") == {"ok": True}

What a handler of messages answers::

    assert await StreamClient().send("typing", channel="room.1") == {"ok": True}

And for real browsers, a server: LiveServerTestCase, or the pytest fixture ``live_asgi_server``.
"""

from .broadcasts import CapturedBroadcast, capture_broadcasts
from .clients import StreamClient
from .parsers import ReceivedEvent
from .servers import LiveServerTestCase
from .streams import MessageRefused, Stream, StreamEnded, StreamRefused

__all__ = [
    "CapturedBroadcast",
    "LiveServerTestCase",
    "MessageRefused",
    "ReceivedEvent",
    "Stream",
    "StreamClient",
    "StreamEnded",
    "StreamRefused",
    "capture_broadcasts",
]
