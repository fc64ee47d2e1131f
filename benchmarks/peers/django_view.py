"""What tutorials show: a StreamingHttpResponse over an async generator, and a queue for each client."""

import asyncio
import json

import django
from django.conf import settings

settings.configure(SECRET_KEY="benchmarks", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, LOGGING_CONFIG=None)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from payload import start_publishing  # noqa: E402

queues = set()


async def stream():
    queue = asyncio.Queue()
    queues.add(queue)
    try:
        yield ": hello\n\n"
        while True:
            try:
                data = await asyncio.wait_for(queue.get(), 15)
            except asyncio.TimeoutError:
                yield ": still here\n\n"
            else:
                yield f"data: {json.dumps(data, separators=(',', ':'))}\n\n"
    finally:
        queues.discard(queue)


async def events(request):
    return StreamingHttpResponse(stream(), content_type="text/event-stream", headers={"Cache-Control": "no-cache"})


def send(data):
    for queue in queues:
        queue.put_nowait(data)


async def publish(request):
    start_publishing(request.GET, send)
    return HttpResponse(status=204)


urlpatterns = [path("events/", events), path("publish", publish)]
application = get_asgi_application()
