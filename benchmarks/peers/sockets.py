"""A bare ASGI app over WebSockets: it sends what is published, answers what comes, and does nothing else."""

import asyncio
import json
from urllib.parse import parse_qsl

from bare import Listener
from payload import start_publishing

listeners = set()


def publish(data):
    text = json.dumps(data, separators=(",", ":"))
    for listener in listeners:
        listener.hear(text)


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        return await talk(receive, send)
    if scope["type"] == "http":
        start_publishing(dict(parse_qsl(scope["query_string"].decode())), publish)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def talk(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    listener = Listener()
    listeners.add(listener)
    sending = asyncio.ensure_future(send_all(listener, send))
    try:
        while (message := await receive())["type"] == "websocket.receive":
            said = json.loads(message["text"])
            answer = json.dumps({"type": "answer", "to": said["id"], "data": said["data"]})
            await send({"type": "websocket.send", "text": answer})
    finally:
        listeners.discard(listener)
        sending.cancel()


async def send_all(listener, send):
    loop = asyncio.get_running_loop()
    while True:
        if not listener.pending:
            listener.waiter = loop.create_future()
            await listener.waiter
        texts, listener.pending = listener.pending, []
        await send({"type": "websocket.send", "text": texts[0] if len(texts) == 1 else "\n".join(texts)})
