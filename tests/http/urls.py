from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.http import HttpRequest
from django.urls import include, path, register_converter

from django_sse_live import abroadcast
from django_sse_live.http.views import EventStreamView


class Fixed(EventStreamView):
    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        return [f"room.{self.kwargs['room']}"]


class FixedAsync(EventStreamView):
    async def get_channels(self, request: HttpRequest) -> Iterable[str]:
        return ["from.async"]


class Snapshot(EventStreamView):
    async def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        await abroadcast("news", "meanwhile", 2)
        return [("snapshot", {"channels": channels})]


class SnapshotSync(EventStreamView):
    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        return [("snapshot", 1), ("snapshot", "zwei\nzeilen")]


class ReservedSnapshot(EventStreamView):
    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        return [("goodbye", {})]


class WrongSnapshot(EventStreamView):
    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Any:
        return ["snapshot"]


class NoSnapshot(EventStreamView):
    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Any:
        return None


class NamedUser(EventStreamView):
    def get_user(self, request: HttpRequest) -> Any:
        return "otter"


class Names:
    regex = "[^/]+"

    def to_python(self, value: str) -> list[str]:
        return value.split("+")

    def to_url(self, value: list[str]) -> str:
        return "+".join(value)


register_converter(Names, "names")

urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("news/", include(("django_sse_live.urls", "news")), {"channels": ["news"]}),
    path("wrong/", include(("django_sse_live.urls", "wrong")), {"channels": "news"}),
    path("reserved/", include(("django_sse_live.urls", "reserved")), {"channels": ["news", "sse.live"]}),
    path("typed/<str:channels>/", include(("django_sse_live.urls", "typed"))),
    path("listed/<names:channels>/", include(("django_sse_live.urls", "listed"))),
    path("rooms/<int:room>/", Fixed.as_view()),
    path("async/", FixedAsync.as_view()),
    path("snapshot/", Snapshot.as_view(), {"channels": ["news"]}),
    path("snapshot-sync/", SnapshotSync.as_view(), {"channels": ["news"]}),
    path("snapshot-none/", NoSnapshot.as_view(), {"channels": ["news"]}),
    path("snapshot-wrong/", WrongSnapshot.as_view(), {"channels": ["news"]}),
    path("named-user/", NamedUser.as_view()),
    path("snapshot-reserved/", ReservedSnapshot.as_view(), {"channels": ["news"]}),
]
