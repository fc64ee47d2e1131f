"""The same message, answered by each: an empty Django view, a Channels consumer, and a handler of this project.

Each as its documentation shows it: the view and the consumer are the sync ones. CACHE=redis://… names the store of
answers; without it there is none but the table in the process.
"""

import json
import os

import django
from django.conf import settings
from site_settings import SITE

CACHE = os.environ.get("CACHE")
settings.configure(
    **SITE,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_sse_live"],
    CACHES={
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CACHE}
        if CACHE
        else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    },
    SSE_LIVE={"MESSAGES_CACHE": "default"} if CACHE else {},
)
django.setup()

from channels.generic.websocket import JsonWebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from payload import start_publishing  # noqa: E402

from django_sse_live import abroadcast, on_message  # noqa: E402
from django_sse_live.asgi import live_application  # noqa: E402
from django_sse_live.http import message_line  # noqa: E402

message_line.RATE_PER_SECOND = message_line.RATE_BURST = 1_000_000  # what it costs is asked, not how often it may be


@on_message("echo")
def echo(message):
    return message.data


class Echo(JsonWebsocketConsumer):
    def receive_json(self, content):
        self.send_json({"type": "answer", "to": content["id"], "data": content["data"]})


@csrf_exempt
def view(request):
    return JsonResponse({"data": json.loads(request.body)["data"]})


async def publish(request):
    start_publishing(request.GET, lambda data: abroadcast("bench", "message", data))
    return HttpResponse(status=204)


urlpatterns = [
    path("events/", include("django_sse_live.urls"), {"channels": ["bench"]}),
    path("publish", publish),
    path("view/", view),
]
live = live_application(get_asgi_application())
consumer = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("events/", Echo.as_asgi())])}
)
