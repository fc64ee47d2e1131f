"""One site in three ways, for latency.py: this app, a Channels consumer over channels_redis, and django-eventstream on
Redis, the last two as their own documentation sets them up.

SITE=ours|channels|eventstream REDIS_PORT=…  uvicorn tests.live.bus.latency_site:application
… python -m tests.live.bus.latency_site COUNT RATE       broadcasts from another process
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import django
from django.conf import settings

SITE = os.environ["SITE"]
PORT = int(os.environ["REDIS_PORT"])
APPS = {
    "ours": ["django_sse_live"],
    "channels": ["channels"],
    "eventstream": ["django_eventstream"],
}

settings.configure(
    SECRET_KEY="only for tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *APPS[SITE]],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SSE_LIVE={
        "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
        "OPTIONS": {"URL": f"redis://127.0.0.1:{PORT}/0"},
    },
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [("127.0.0.1", PORT)]},
        }
    },
    **({"EVENTSTREAM_REDIS": {"host": "127.0.0.1", "port": PORT, "db": 0}} if SITE == "eventstream" else {}),
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.urls import include, path  # noqa: E402

urlpatterns: list[Any] = []
application: Any = get_asgi_application()
Send = Callable[[str], Awaitable[None]]


def number(count: int) -> str:
    return f'{{"n":{count},"t":{time.monotonic():.6f}}}'


if SITE == "ours":
    from django_sse_live import broadcast_text
    from django_sse_live.asgi import live_application

    urlpatterns = [path("events/", include("django_sse_live.urls"), {"channels": ["test"]})]
    application = live_application(application)

    async def send(text: str) -> None:
        broadcast_text("test", "tick", text, on_commit=False)

elif SITE == "eventstream":
    import django_eventstream
    from django_eventstream import send_event

    urlpatterns = [path("events/", include(django_eventstream.urls), {"channels": ["test"]})]

    async def send(text: str) -> None:
        send_event("test", "message", text, json_encode=False)

else:
    from channels.generic.http import AsyncHttpConsumer
    from channels.layers import get_channel_layer
    from channels.routing import ProtocolTypeRouter, URLRouter

    class Stream(AsyncHttpConsumer):
        async def handle(self, body: bytes) -> None:
            await self.send_headers(headers=[(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")])
            await self.send_body(b":\n\n", more_body=True)
            await self.channel_layer.group_add("test", self.channel_name)

        async def http_request(self, message: dict[str, Any]) -> None:
            if not message.get("more_body"):
                await self.handle(b"")

        async def disconnect(self) -> None:
            await self.channel_layer.group_discard("test", self.channel_name)

        async def tick(self, message: dict[str, Any]) -> None:
            await self.send_body(f"data: {message['text']}\n\n".encode(), more_body=True)

    application = ProtocolTypeRouter({"http": URLRouter([path("events/", Stream.as_asgi())])})

    async def send(text: str) -> None:
        await get_channel_layer().group_send("test", {"type": "tick", "text": text})


async def publish(count: int, rate: float) -> None:
    await send(number(0))  # the first makes the connection
    began = time.monotonic()
    for i in range(1, count + 1):
        await asyncio.sleep(max(0.0, began + i / rate - time.monotonic()))
        await send(number(i))


if __name__ == "__main__":
    asyncio.run(publish(int(sys.argv[1]), float(sys.argv[2])))
