from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.mixins import LoginRequiredMixin, UserPassesTestMixin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.urls import include, path

from django_sse_live.http.views import EventStreamView


class AsksForStaff(EventStreamView):
    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "staff" and request.user.is_staff


class AsksForStaffAsync(EventStreamView):
    async def authorize(self, request: HttpRequest, channel: str) -> bool:
        user = await request.auser()
        return channel == "staff" and user.is_staff


class Refuses(EventStreamView):
    def authorize(self, request: HttpRequest, channel: str) -> bool:
        raise PermissionDenied


class NobodyToday(EventStreamView):
    def get_user(self, request: HttpRequest) -> Any:
        raise PermissionDenied("Closed on Sundays.")


class ByHeader(EventStreamView):
    """One's own authentication, async."""

    async def get_user(self, request: HttpRequest) -> Any:
        from django.contrib.auth.models import User

        return await User.objects.filter(username=request.headers.get("X-User", "")).afirst()

    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == f"of.{request.user}"


class FailsToSetUp(EventStreamView):
    def setup(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().setup(request, *args, **kwargs)
        raise ZeroDivisionError


class FailsItsTest(UserPassesTestMixin, EventStreamView):
    def test_func(self) -> bool:
        raise ZeroDivisionError


class Members(LoginRequiredMixin, EventStreamView):
    """Its dispatch() is sync."""


urlpatterns = [
    path("admin/", admin.site.urls),
    path("events/", include("django_sse_live.urls")),
    path("staff/", AsksForStaff.as_view()),
    path("staff-async/", AsksForStaffAsync.as_view()),
    path("refuses/", Refuses.as_view()),
    path("nobody/", NobodyToday.as_view()),
    path("fails-to-set-up/", FailsToSetUp.as_view()),
    path("fails-its-test/", FailsItsTest.as_view()),
    path("members/", Members.as_view()),
    path("by-header/", ByHeader.as_view()),
]
