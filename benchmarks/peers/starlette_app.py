"""sse-starlette, with the broadcaster of its examples: a queue for each client."""

import asyncio
import json

from payload import start_publishing
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

queues = set()


async def stream():
    queue = asyncio.Queue()
    queues.add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        queues.discard(queue)


def send(data):
    event = ServerSentEvent(data=json.dumps(data, separators=(",", ":")), event="message")
    for queue in queues:
        queue.put_nowait(event)


async def events(request):
    return EventSourceResponse(stream())


async def publish(request):
    start_publishing(request.query_params, send)
    return Response(status_code=204)


application = Starlette(routes=[Route("/events/", events), Route("/publish", publish)])
