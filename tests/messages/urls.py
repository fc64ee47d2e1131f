from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from django.urls import include, path

from django_sse_live import Message
from django_sse_live.http.views import EventStreamView


class Hooked(EventStreamView):
    async def receive(self, request: HttpRequest, message: Message) -> Any:
        if message.type == "mine":
            return ["mine", message.data]
        return ["hooked", await super().receive(request, message)]


class HookedSync(EventStreamView):
    def receive(self, request: HttpRequest, message: Message) -> Any:
        return ["sync", message.data]


class Gone(EventStreamView):
    """A room that was there when its page was opened."""

    def get_channels(self, request: HttpRequest) -> list[str]:
        if request.method == "POST":
            raise Http404("No such room.")
        return ["room.gone"]


urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("hooked/", Hooked.as_view()),
    path("hooked/sync/", HookedSync.as_view()),
    path("gone/", Gone.as_view()),
    path("fixed/", include("django_sse_live.urls"), {"channels": ["private"]}),
]
