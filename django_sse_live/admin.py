"""Live connections, in Django's admin: every worker's streams, as the workers report them over the bus.

For another admin site: ``site.register(LiveConnection, LiveConnectionAdmin)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import random
from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin, messages
from django.contrib.auth import get_permission_codename, get_user_model
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, path, reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from .backends import running_hub
from .broadcasting import broadcast, disconnect_clients
from .conf import live_settings
from .events import RESERVED_PREFIX
from .http.views import EventStreamView
from .hub.clients import Client
from .hub.hub import Hub
from .jobs import find_job
from .models import LiveConnection
from .namespaces import current_namespace, use_namespace
from .workers import FILTER_MAX_LENGTH, WATCH_CHANNEL, worker_of

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[LiveConnection]
else:
    ModelAdmin = admin.ModelAdmin

NAMES_MAX: Final = 500  # of users, in one answer
TEST_EVENT: Final = "test"
ASKED_AGAIN_SECONDS: Final = 60.0  # the page's stream goes on for as long without being asked for the permission


class WatchView(EventStreamView):
    """The page's own stream. Each time it opens, which is once a minute, its user needs the permission."""

    model_admin: Any = None
    _hears_workers = True

    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        if not self.model_admin.admin_site.has_permission(request) or not self.model_admin.has_view_permission(request):
            raise PermissionDenied("You may not see live connections.")
        text = clean_filter(request.GET.get("filter", "").replace(",", " "))  # a channel's name has no ", " in it
        return [f"{WATCH_CHANNEL}:{text}" if text else WATCH_CHANNEL]

    async def _make_client(self, hub: Hub, request: ASGIRequest) -> Client:
        client = await super()._make_client(hub, request)
        # No user's auth_marks(): so this stream is ended whenever its user is saved, which may be without is_staff,
        # and a client that comes back is asked for the permission again.
        client.info = replace(client.info, auth=WATCH_CHANNEL)
        # A permission or a group that is taken away sends no signal of the user's.
        seconds = min(ASKED_AGAIN_SECONDS, live_settings().max_age_seconds or ASKED_AGAIN_SECONDS)
        client.ends_at = hub.loop.time() + seconds * (0.9 + 0.1 * random())
        return client

    async def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        worker_of(running_hub()).watch()
        return ()


def clean_filter(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:FILTER_MAX_LENGTH]


@admin.register(LiveConnection)
class LiveConnectionAdmin(ModelAdmin):
    """One page in the place of the list; nothing can be added, opened or deleted."""

    page_template: ClassVar[str] = "admin/django_sse_live/connections.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_"
        view = self.admin_site.admin_view
        return [
            path("", view(self.changelist_view), name=f"{name}changelist"),
            path("stream/", WatchView.as_view(model_admin=self), name=f"{name}stream"),
            path("names/", view(self.names_view), name=f"{name}names"),
            path("disconnect/", view(self.disconnect_view), name=f"{name}disconnect"),
            path("test/", view(self.test_view), name=f"{name}test"),
        ]

    def _url(self, name: str) -> str:
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{name}", current_app=self.admin_site.name)

    @method_decorator(require_safe)
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        text = clean_filter(request.GET.get("q", ""))
        user = _user_called(text) if _may_see_users(request) else None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Live connections"),
            "opts": self.opts,
            "text": text,
            "namespace": current_namespace(request),
            "user_found": user,
            "filter": text if user is None else f"user:{user.pk}",
            "may_act": self.has_change_permission(request),
            **{f"{name}_url": self._url(name) for name in ("stream", "names", "disconnect", "test", "changelist")},
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, self.page_template, context)

    @method_decorator(require_safe)
    def names_view(self, request: HttpRequest) -> HttpResponse:
        """?user=1&user=2: their names and the urls of their pages; nothing for a user who may not see users."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        if not _may_see_users(request):
            return JsonResponse({})
        users = get_user_model()
        found = {}
        for pk in request.GET.getlist("user")[:NAMES_MAX]:
            try:
                value = users._meta.pk.to_python(pk)
                users._meta.pk.run_validators(value)  # a number may be larger than the database takes
                found[pk] = value
            except Exception:  # whatever a field says of text that is no key of it
                continue
        by_pk = users._default_manager.in_bulk(list(found.values()))
        names = {}
        for pk, value in found.items():
            if value in by_pk:
                names[pk] = {"name": str(by_pk[value]), "url": self._user_url(value)}
        return JsonResponse(names)

    def _user_url(self, pk: Any) -> str | None:
        opts = get_user_model()._meta
        try:
            name = f"admin:{opts.app_label}_{opts.model_name}_change"
            return reverse(name, args=[pk], current_app=self.admin_site.name)
        except NoReverseMatch:
            return None

    @method_decorator(require_POST)
    def disconnect_view(self, request: HttpRequest) -> HttpResponseBase:
        """``client`` or ``user``: end that stream, or all streams of that user, on every worker. ``job``: stop it."""
        self._check_may_act(request)
        with use_namespace(current_namespace(request)):
            if client := request.POST.get("client"):
                disconnect_clients(client_id=client[:200])
                self._log(request, client, "Disconnected the stream.")
                return self._answer(request, _("The stream is told to end."))
            if user := request.POST.get("user"):
                disconnect_clients(user=user[:200])
                self._log(request, f"user:{user}", "Disconnected the user.")
                return self._answer(request, _("All streams of this user are told to end."))
            if id := request.POST.get("job"):
                job = find_job(id[:32])
                if job is None:
                    return self._answer(request, _("This job is not known any more."), 400)
                job.cancel()
                self._log(request, job.channel, "Stopped the job.")
                return self._answer(request, _("The job is told to stop."))
        return self._answer(request, _("Nothing was chosen."), 400)

    @method_decorator(require_POST)
    def test_view(self, request: HttpRequest) -> HttpResponseBase:
        """Broadcast an event of type ``test`` with a text."""
        self._check_may_act(request)
        channel = request.POST.get("channel", "")
        if channel.startswith(RESERVED_PREFIX):
            return self._answer(request, _("This channel is not for events."), 400)
        try:
            with use_namespace(current_namespace(request)):
                broadcast(channel, TEST_EVENT, {"text": request.POST.get("text", "")[:1000]})
        except ValueError as error:
            return self._answer(request, str(error), 400)
        self._log(request, channel, "Sent a test event.")
        return self._answer(request, _("The test event was sent to “%(channel)s”.") % {"channel": channel})

    def _check_may_act(self, request: HttpRequest) -> None:
        if not self.has_change_permission(request):
            raise PermissionDenied

    def _log(self, request: HttpRequest, what: str, message: str) -> None:
        self.log_change(request, LiveConnection(pk=what[:200]), message)

    def _answer(self, request: HttpRequest, message: str, status: int = 200) -> HttpResponseBase:
        """To the page's script in JSON; to a form sent without it by a message on the page."""
        if "application/json" in request.META.get("HTTP_ACCEPT", ""):
            return JsonResponse({"message": message}, status=status)
        messages.add_message(request, messages.SUCCESS if status == 200 else messages.ERROR, message)
        return HttpResponseRedirect(self._url("changelist"))


def _may_see_users(request: HttpRequest) -> bool:
    opts = get_user_model()._meta
    codenames = [get_permission_codename(action, opts) for action in ("view", "change")]
    return any(request.user.has_perm(f"{opts.app_label}.{codename}") for codename in codenames)


def _user_called(text: str) -> Any:
    """The user whose name this is, if the filter is one."""
    users = get_user_model()
    try:
        return users._default_manager.filter(**{users.USERNAME_FIELD: text}).first() if text else None
    except (TypeError, ValueError, ValidationError):  # it may be a number, or a UUID
        return None
