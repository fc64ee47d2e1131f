"""``path("events/", include("django_sse_live.urls"))``; with fixed channels as the third argument of path()."""

from __future__ import annotations

from django.urls import URLPattern, path

from .http.status import HealthView, StatusView
from .http.views import EventStreamView

app_name = "sse_live"
urlpatterns: list[URLPattern] = [
    path("", EventStreamView.as_view(), name="events"),
    path("status/", StatusView.as_view(), name="status"),
    path("health/", HealthView.as_view(), name="health"),
]
