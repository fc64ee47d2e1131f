"""EventStreamView: from a request to a client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial, update_wrapper
from inspect import isawaitable, iscoroutinefunction
from typing import Any, Final, ParamSpec

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
    UnreadablePostError,
)
from django.views import View
from django.views.decorators.debug import sensitive_variables

from ..backends import running_hub
from ..callables import call, call_for_items
from ..conf import live_settings
from ..events import frame_without_id, parse_id, validate_type
from ..hub.client_info import ClientInfo
from ..hub.clients import Client
from ..hub.hub import Hub
from ..hub.registry import count_message_refused, count_refused
from ..identity import scope_name, session_digest
from ..messages import Message, call_handler, on_message
from ..namespaces import request_namespace, use_namespace
from ..wire import encode_json
from .accept import accepts_event_stream, names_event_stream
from .addresses import client_address
from .cors import is_foreign_subresource, share_with_origin
from .csrf import CSRF, check_csrf, give_token
from .handoff import handoff_of, let_go_of_thread
from .messages import MESSAGE_MAX_BYTES, answer_message, parse_message
from .open_view import OpenView
from .refusals import Refused, asgi_required
from .responses import EventStreamResponse, no_error, refusal_response, stream_headers
from .shutdown import stop_gracefully
from .socket_messages import SocketMessages
from .subscription import (
    VISITORS_CHANNELS,
    LastId,
    Subscription,
    authorize_by_setting,
    brought_id,
    check_fixed_channels,
    check_query,
    hide_tokens,
    is_final_id,
    parse_subscription,
)
from .threads import release_waiting_thread, renew_request_thread
from .tickets import Ticket, target_of, ticket_for, write
from .users import put_user, request_user, was_looked_at

# Without live_application the start of the request is unknown: middleware may have looked the user up this long before
# the view. A client that connects within this time after a disconnect_clients() is sent back in vain.
MIDDLEWARE_SECONDS: Final = 5.0

# The hooks that decide who hears what, or what they hear first. A view that overrides one is asked at each connect.
HOOKS: Final = (
    "get_user", "get_channels", "authorize", "get_initial_events", "get_not_before", "identify", "setup", "dispatch",
    "get",
)  # fmt: skip
ALLOW: Final = "GET, HEAD, OPTIONS, POST"
NO_STORE: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}

P = ParamSpec("P")


def hook(method: Callable[P, Any]) -> Callable[P, Any]:
    """A method that a subclass may override, sync or async: without this, type checkers would take one of the two for
    an error. At run time it changes nothing."""
    return method


class EventStreamView(OpenView):
    """GET opens the stream; POST sends a message; HEAD asks whether a stream would open; OPTIONS tells what is
    possible.

    Override get_user(), get_channels(), authorize(), get_initial_events() or receive() in a subclass, each sync or
    async. A hook that returns several things may return a queryset, or be a generator. PermissionDenied in a hook is a
    403; any other exception is a 500, and the client is not let in.
    """

    #: Whether a broken stream resumes by its ticket, without asking this view. None: it does if the view overrides no
    #: hook and has no decorator.
    resumes_by_ticket: bool | None = None

    #: Whether it hears workers' reports, as the admin's page alone does. No other origin may read such a stream.
    _hears_workers = False
    http_method_names: list[str] = ["get", "head", "post", "options"]

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        view = super().as_view(**initkwargs)
        is_async = iscoroutinefunction(cls.dispatch) and cls.setup is EventStreamView.setup
        return view if is_async else _run_in_thread(view, cls)

    @classmethod
    def takes_tickets(cls, function: Any) -> bool:
        """Whether streams of a url resume by ticket. ``function``: what as_view() made, perhaps decorated."""
        if not live_settings().tickets or cls._hears_workers:
            return False
        if cls.resumes_by_ticket is not None:
            return cls.resumes_by_ticket
        is_plain = not (hasattr(function, "__wrapped__") or getattr(function, "view_initkwargs", None))
        # A callable NAMESPACE may read anything of the request.
        is_ours = cls is EventStreamView or all(map(cls._is_default, HOOKS))
        return is_plain and live_settings().namespace is None and is_ours

    @hook
    async def get_user(self, request: HttpRequest) -> Any:
        """The stream's user: authenticated, or None. Override it for clients that authenticate by something other than
        Django's session, such as a header. What it returns becomes ``request.user``."""
        return await request_user(request)

    @hook
    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        """Channels that every client of this url hears without a check. By default those fixed in the url pattern."""
        match: Any = request.resolver_match
        if match is not None and "channels" in match.kwargs and "channels" not in (match.extra_kwargs or ()):
            raise ImproperlyConfigured(VISITORS_CHANNELS)
        return self.kwargs.get("channels", ())  # type: ignore[no-any-return]

    @hook
    async def authorize(self, request: HttpRequest, channel: str) -> bool:
        """Whether this request may hear a channel that is neither fixed, nor signed, nor public. Default: AUTHORIZE."""
        return await authorize_by_setting(request, channel)

    @hook
    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        """(type, data) pairs sent right after ``connected``: a snapshot. Events broadcast while it is made follow it.
        They have no ids."""
        return ()

    @hook
    def get_not_before(self, request: HttpRequest) -> str | None:
        """An event id from stream_position(), or None for no bound, the default. This client gets no older event
        replayed, whatever id it brings: for members who may not hear what was said before they joined."""
        return None

    @hook
    async def receive(self, request: HttpRequest, message: Message) -> Any:
        """The answer to a message whose sender may send it. By default the handler registered by @on_message gives
        it."""
        handler = on_message.find(message.type, message.channel)
        if handler is None:
            raise Refused(404, "no_handler", f"Nothing answers messages of the type {message.type!r}.")
        return await call_handler(handler, message)

    async def identify(self, request: HttpRequest) -> tuple[Any, tuple[str, ...]]:
        """The request's user, or None; and the channels that they hear without a check."""
        if self._is_default("get_user"):
            user = await request_user(request)
        else:
            if iscoroutinefunction(self.get_user):
                await request_user(request)  # so that it may use request.user, which is lazy until then
            user = put_user(request, await call(self.get_user, request))
        if self._is_default("get_channels"):
            fixed = self.get_channels(request)
        else:
            fixed = await call_for_items(self.get_channels, request)
        return user, check_fixed_channels(fixed, may_be_reserved=self._hears_workers)

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        try:
            if request.method == "POST":
                response = await self.post(request)
            else:
                self._namespace = await request_namespace(request)
                with use_namespace(self._namespace):  # for what hooks broadcast and look up
                    response = await self._answer(request)
        except Refused as refused:
            count_refused(refused.error)
            response = refusal_response(refused)
        except PermissionDenied as error:
            response = _forbidden(error)
        except asyncio.CancelledError:
            # The client left. Raised under sync middleware, this would be an error in a thread, which asgiref and
            # asyncio report. A response that nobody reads ends the request silently.
            return refusal_response(Refused(503, "cancelled", "The request was cancelled."))
        except Exception:
            hide_tokens(request)
            raise
        _hide_tokens_of_refused(request, response)
        if not self._hears_workers:
            share_with_origin(request, response)
        return response

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        check_query(request)
        if not isinstance(request, ASGIRequest) and request.method != "OPTIONS":  # which asks before a message, too
            raise asgi_required()
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            raise Refused(405, "method_not_allowed", "Open the stream with GET.", {"Allow": ALLOW})
        if request.method != "OPTIONS" and is_final_id(brought_id(request)):
            return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
        return await getattr(self, request.method.lower())(request)  # type: ignore[no-any-return]

    async def get(self, request: ASGIRequest) -> HttpResponseBase:
        accept = _check_headers(request)
        hub = running_hub()
        stop_gracefully(hub)
        await _until_filled(hub, request)
        client = await self._make_client(hub, request)
        handoff = handoff_of(request)
        if handoff is not None and handoff.socket is not None and not self._hears_workers:
            handoff.socket.answer = SocketMessages(self, request, client)
        refusal = hub.refusal(client)
        if refusal is None:
            if not self._is_default("get_initial_events"):
                initial = await call_for_items(self.get_initial_events, request, client.names)
                client.initial = _encode_initial(initial, client)
        elif names_event_stream(accept):
            client.refuse(refusal)
        else:
            raise _full(refusal, hub)
        return EventStreamResponse(client, request)

    async def head(self, request: ASGIRequest) -> HttpResponseBase:
        """The checks and the headers, without a stream."""
        _check_headers(request)
        hub = running_hub()
        await _until_filled(hub, request)
        refusal = hub.refusal(await self._make_client(hub, request))
        if refusal is not None:
            raise _full(refusal, hub)
        return HttpResponse(headers=stream_headers(request))

    async def post(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a message as over a WebSocket. Works under WSGI too."""
        try:
            if self._hears_workers:
                raise Refused(405, "method_not_allowed", "Open the stream with GET.", {"Allow": "GET, HEAD, OPTIONS"})
            check_query(request)
            if request.content_type != "application/json":
                raise Refused(415, "unsupported_media_type", "A message is sent as Content-Type: application/json.")
            await check_csrf(request)
            data = parse_message(_read_body(request))
        except Refused as refused:
            count_message_refused(refused.error)
            if refused.error != CSRF:
                return refusal_response(refused)
            why = refused  # Python deletes the name after the block
            return await give_token(request, lambda token: refusal_response(why, csrf_token=token))
        answer = await answer_message(self, request, data)
        response = JsonResponse(answer.body, status=answer.status, headers={**NO_STORE, **answer.headers})
        return no_error(response) if answer.status >= 500 else response  # it has been logged

    async def options(self, request: HttpRequest) -> HttpResponseBase:  # type: ignore[override]
        return HttpResponse(status=204, headers={"Allow": ALLOW})

    @classmethod
    def _is_default(cls, method: str) -> bool:
        # The methods of this class never block, so they need no thread.
        return getattr(cls, method) is getattr(EventStreamView, method)

    @sensitive_variables()
    async def _make_client(self, hub: Hub, request: ASGIRequest) -> Client:
        checked_at = await _begin_checks(hub, request)
        user, fixed = await self.identify(request)
        not_before = None if self._is_default("get_not_before") else await call(self.get_not_before, request)
        subscription = await parse_subscription(request, user, fixed, self.authorize, namespace=self._namespace)
        session_key = request.session.session_key if hasattr(request, "session") else None
        info = ClientInfo(
            tuple([scope_name(subscription.namespace, name) for name in subscription.channels]),
            subscription.form,
            namespace=subscription.namespace,
            user_pk=subscription.user_pk,
            auth=subscription.auth,
            session=session_digest(session_key) if session_key else None,
            address=client_address(getattr(request, "scope", {})),
            user_agent=request.META.get("HTTP_USER_AGENT", "")[:200],
            heartbeat_seconds=subscription.heartbeat_seconds,
            replaces=request.GET.get("replaces", "")[:64],
        )
        client = Client(
            hub,
            info,
            last_id=_not_before(not_before, subscription.last_id),
            tokens=subscription.tokens,
            own=subscription.own,
            checked_at=checked_at,
        )
        # A ticket comes back with any id, and knows no bound.
        ticket = self._ticket(hub, request, user, info, subscription, checked_at) if not_before is None else None
        if ticket is not None:
            client.make_ticket = partial(write, ticket)
        return client

    def _ticket(
        self, hub: Hub, request: ASGIRequest, user: Any, info: ClientInfo, subscription: Subscription, checked_at: float
    ) -> Ticket | None:
        handoff, match = handoff_of(request), request.resolver_match
        if (
            info.form != "envelope"
            or handoff is None
            or not handoff.position
            or hub.revocations is None
            or match is None
            or not self.takes_tickets(match.func)
            or (subscription.is_authorized and not self.resumes_by_ticket)
        ):
            return None
        given = match.args, match.kwargs, getattr(match.func, "view_initkwargs", {})
        return ticket_for(
            request,
            user,
            info,
            hub,
            target=target_of(request, type(self), *given),
            position=handoff.position,
            checked_ms=hub.clock_ms() - 1000 * (hub.loop.time() - checked_at),
            own=subscription.own,
            claims=subscription.claims,
        )


async def _until_filled(hub: Hub, request: ASGIRequest) -> None:
    """Wait while the backend fills the log of a new worker, without a thread or a place in line."""
    if not hub.is_ready and not hub.is_closing:
        let_go_of_thread(request)
        await hub.filled()


async def _begin_checks(hub: Hub, request: ASGIRequest) -> float:
    """Loop time before which no code looked the user up."""
    handoff = handoff_of(request)
    if handoff is not None:
        if not handoff.is_in_line:
            release_waiting_thread()
            await handoff.enter_line()
            renew_request_thread()
        return handoff.began_at
    return hub.loop.time() - (MIDDLEWARE_SECONDS if was_looked_at(request) else 0.0)


def _read_body(request: HttpRequest) -> bytes:
    """As much of the body as parse_message() takes, and one byte more. Django has received all of it."""
    try:
        return request.read(MESSAGE_MAX_BYTES + 1)
    except UnreadablePostError:
        raise Refused(400, "malformed_json", "The message did not come to its end.") from None


def _check_headers(request: ASGIRequest) -> str:
    """Check the headers. Returns the Accept header. Raises Refused."""
    accept: str = request.META.get("HTTP_ACCEPT", "")
    if is_foreign_subresource(request):
        raise Refused(403, "cross_site", "Another origin's page may not open this stream without reading it.")
    if not accepts_event_stream(accept):
        raise Refused(406, "not_acceptable", "This is an event stream: send Accept: text/event-stream, or no Accept.")
    return accept


def _not_before(bound: str | None, last_id: LastId) -> LastId:
    """The later of the two. Ids of different epochs are not compared: an older one leads to a reset anyway, and a newer
    one is after the bound."""
    if bound is None:
        return last_id
    parsed = parse_id(bound)
    if parsed is None:
        raise ValueError(f"get_not_before() returned {bound!r}; it must be what stream_position() gives, or None.")
    return max(last_id, parsed) if not isinstance(last_id, str) and last_id[0] == parsed[0] else last_id


def _run_in_thread(view: Callable[..., Any], view_class: type[View]) -> Callable[..., Any]:
    """For a subclass whose dispatch() is sync, such as one with LoginRequiredMixin, which looks the user up; and for
    one with a setup() of its own, which is always sync."""

    async def stream_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            response = await sync_to_async(lambda: view(request, *args, **kwargs))()
            if isawaitable(response):
                return await response  # type: ignore[no-any-return]
            if _is_login_page(response, view_class):
                raise PermissionDenied("Log in to open this stream.")
        except PermissionDenied as error:
            response = _forbidden(error)
        except Exception:
            hide_tokens(request)
            raise
        _hide_tokens_of_refused(request, response)
        share_with_origin(request, response)
        return response  # type: ignore[no-any-return]

    return update_wrapper(stream_view, view)


def _hide_tokens_of_refused(request: HttpRequest, response: HttpResponseBase) -> None:
    """Django logs such a response with its request, whose url logs in JSON write; middleware may report it."""
    if response.status_code >= 400:
        hide_tokens(request)


def _is_login_page(response: HttpResponseBase, view_class: type[View]) -> bool:
    """Whether one of Django's access mixins redirects to a login page, which an EventSource cannot read."""
    is_guarded = any(base.__module__ == "django.contrib.auth.mixins" for base in view_class.__mro__)
    return is_guarded and isinstance(response, HttpResponseRedirect)


def _forbidden(error: PermissionDenied) -> HttpResponseBase:
    count_refused("forbidden")
    return refusal_response(Refused(403, "forbidden", str(error) or "You may not open this stream."))


def _full(refusal: str, hub: Hub) -> Refused:
    """For clients other than EventSource, which a status and Retry-After tell when to come back."""
    retry_after = {"Retry-After": str(1 + hub.retry_ms() // 1000)}
    detail = {
        "shutdown": "This worker is shutting down. Try again.",
        "not_ready": "This worker cannot reach its bus. Try again later.",
        "revoked": "Your access changed while the stream was being opened. Try again.",
    }.get(refusal)
    if detail is None and hub.clients.is_full:
        detail = "This worker has as many streams as it may have. Try again later."
    if detail is not None:
        return Refused(503, refusal, detail, retry_after)
    return Refused(429, refusal, "Too many streams are open. Close one, or try again later.", retry_after)


def _encode_initial(events: Iterable[tuple[str, Any]], client: Client) -> list[bytes]:
    if not isinstance(events, Iterable):
        raise TypeError(f"get_initial_events() returned {events!r}; it must return pairs (type, data), or [].")
    encoder = live_settings().json_encoder
    frames = []
    for event in events:
        if not isinstance(event, (tuple, list)) or len(event) != 2:
            raise TypeError(f"get_initial_events() gave {event!r}; each event is a pair (type, data).")
        type, data = event
        frames.append(frame_without_id(client.form, client.names, validate_type(type), encode_json(data, encoder)))
    return frames
