"""A project of two tenants, told apart by host: what its NAMESPACE is, and its urls."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import include, path

from django_sse_live import broadcast
from django_sse_live.http.views import EventStreamView

thread: ContextVar[str | None] = ContextVar("tenant", default=None)  # as tenant libraries keep it


def namespace(request: HttpRequest | None) -> str:
    if request is not None:
        return request.get_host().partition(".")[0]
    tenant = thread.get()
    if tenant is None:
        raise LookupError("no tenant is known here")
    return tenant


class User:
    """Of a tenant's own user table: each has one with the primary key 1."""

    is_authenticated = True
    pk = 1

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant

    def get_session_auth_hash(self) -> str:
        return f"of {self.tenant}"

    def get_session_auth_fallback_hash(self) -> list[str]:
        return []


class Stream(EventStreamView):
    asked: list[Any] = []

    def get_user(self, request: HttpRequest) -> Any:
        return None if "anonymous" in request.GET else User(namespace(request))

    def get_channels(self, request: HttpRequest) -> Any:
        return ["fixed"]

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        self.asked.append(channel)
        return channel.startswith("room.")

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Any:
        if "snapshot" not in request.GET:
            return []
        broadcast("news", "seen_by", {})  # in the request's own namespace
        return [("snapshot", list(channels))]


urlpatterns = [
    path("admin/", admin.site.urls),
    path("events/", Stream.as_view()),
    path("ours/", include("django_sse_live.urls")),
]
