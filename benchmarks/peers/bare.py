"""A bare ASGI app that does nothing but send: what no framework can go below."""

import asyncio
import json
from collections import deque
from urllib.parse import parse_qsl

from payload import start_publishing

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache")]


class Listener:
    __slots__ = ("pending", "waiter")

    def __init__(self):
        self.pending = []
        self.waiter = None

    def hear(self, body):
        self.pending.append(body)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


listeners = set()
recent = deque(maxlen=100)  # for those that come back


def publish(data):
    body = b"data: %s\n\n" % json.dumps(data, separators=(",", ":")).encode()
    recent.append(body)
    for listener in listeners:
        listener.hear(body)


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/publish":
        start_publishing(dict(parse_qsl(scope["query_string"].decode())), publish)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    hello = b": hello\n\n"
    if scope["query_string"]:  # one that comes back brings an id, and hears what it has missed
        has_missed = any(name == b"last-event-id" for name, _ in scope["headers"])
        hello = b"".join([b"id: 0\ndata: hello\n\n", *(recent if has_missed else ())])
    await send({"type": "http.response.body", "body": hello, "more_body": True})
    listener = Listener()
    listeners.add(listener)
    loop = asyncio.get_running_loop()
    try:
        while True:
            if not listener.pending:
                listener.waiter = loop.create_future()
                await listener.waiter
            bodies, listener.pending = listener.pending, []
            body = bodies[0] if len(bodies) == 1 else b"".join(bodies)
            await send({"type": "http.response.body", "body": body, "more_body": True})
    finally:
        listeners.discard(listener)
