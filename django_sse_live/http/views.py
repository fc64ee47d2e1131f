"""EventStreamView: from a request to a client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.views import View
from django.views.decorators.debug import sensitive_variables

from ..backends import replay_history, running_hub
from ..conf import live_settings
from ..events import encode_json, frame, validate_type
from ..hub.clients import Client
from ..hub.hub import Hub
from ..hub.registry import count_refused
from ..identity import session_digest
from .cors import is_foreign_subresource, share_with_origin
from .refusals import Refused
from .responses import EventStreamResponse, refusal_response, release_request_thread, stream_headers
from .servers import stop_gracefully
from .subscription import (
    authorize_by_setting,
    brought_id,
    call,
    check_fixed_channels,
    check_query,
    client_address,
    handoff_of,
    hide_tokens,
    is_final_id,
    parse_subscription,
    put_user,
    request_user,
    was_looked_at,
)

# How long before the view some middleware may have looked the user up, where live_application does not know when the
# request began. Whom it sends back for nothing is who comes that soon after a disconnect_clients().
MIDDLEWARE_SECONDS: Final = 5.0


class EventStreamView(View):
    """GET opens the stream; HEAD asks whether it would; OPTIONS says what is possible.

    Subclass it and override get_user(), get_channels(), authorize() or get_initial_events(), each sync or async.
    PermissionDenied in any of them is a 403; every other exception is a 500, and nobody is let in.
    """

    http_method_names: list[str] = ["get", "head", "options"]

    async def get_user(self, request: HttpRequest) -> Any:
        """Whose stream this is: an authenticated user, or None for nobody. Override it for clients that authenticate
        by something other than Django's session, such as a header; what it gives is ``request.user`` from then on."""
        return await request_user(request)

    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        """Channels that every client of this url hears, without asking. By default those fixed in the url pattern."""
        return self.kwargs.get("channels", ())  # type: ignore[no-any-return]

    async def authorize(self, request: HttpRequest, channel: str) -> bool:
        """Whether this request may hear a channel that is neither fixed, nor signed, nor public. Default: AUTHORIZE."""
        return await authorize_by_setting(request, channel)

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        """(type, data) pairs to be sent right after ``connected``: a snapshot. What is broadcast while it is made
        comes after it. They have no ids."""
        return ()

    async def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:  # type: ignore[override]
        try:
            response = await self._answer(request)
        except Refused as refused:
            count_refused(refused.error)
            response = refusal_response(refused)
            if refused.status >= 500:
                hide_tokens(request)  # from whatever middleware reports such an answer
        except PermissionDenied as error:
            count_refused("forbidden")
            response = refusal_response(Refused(403, "forbidden", str(error) or "You may not open this stream."))
        except Exception:
            hide_tokens(request)
            raise
        share_with_origin(request, response)
        return response

    dispatch.csrf_exempt = True  # type: ignore[attr-defined]  # it changes nothing, and a POST is told 405, not CSRF's 403
    # LoginRequiredMiddleware leaves it alone: tokens, public channels and preflights come without a login, and a
    # redirect to a page is no answer to an EventSource.
    dispatch.login_required = False  # type: ignore[attr-defined]

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        check_query(request)
        if not isinstance(request, ASGIRequest):
            raise Refused(
                501,
                "asgi_required",
                "Event streams need an ASGI server (Daphne, Uvicorn, Hypercorn, Granian): a WSGI worker would be "
                "blocked by each of them. Serve your project's asgi.py; see "
                "https://docs.djangoproject.com/en/stable/howto/deployment/asgi/.",
            )
        handler = getattr(self, str(request.method).lower(), None)
        if handler is None or request.method not in ("GET", "HEAD", "OPTIONS"):
            raise Refused(405, "method_not_allowed", "Open the stream with GET.", {"Allow": "GET, HEAD, OPTIONS"})
        return await handler(request)  # type: ignore[no-any-return]

    async def get(self, request: ASGIRequest) -> HttpResponseBase:
        if is_final_id(brought_id(request)):
            return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
        accept = _check_headers(request)
        hub = running_hub()
        stop_gracefully(hub)
        await hub.filled()
        client = await self._make_client(hub, request)
        refusal = hub.refusal(client)
        if refusal is None:
            if client.needs_history:
                await replay_history(client)
            if not self._is_default("get_initial_events"):
                initial = await call(self.get_initial_events, request, client.channels)
                client.initial = _encode_initial(initial, client)
        elif "text/event-stream" not in accept:
            raise _full(refusal, hub)
        return EventStreamResponse(client, request)

    async def head(self, request: ASGIRequest) -> HttpResponseBase:
        """The checks and the headers, without a stream."""
        if is_final_id(brought_id(request)):
            return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
        _check_headers(request)
        hub = running_hub()
        await hub.filled()
        refusal = hub.refusal(await self._make_client(hub, request))
        if refusal is not None:
            raise _full(refusal, hub)
        return HttpResponse(headers=stream_headers(request))

    async def options(self, request: ASGIRequest) -> HttpResponseBase:  # type: ignore[override]
        return HttpResponse(status=204, headers={"Allow": "GET, HEAD, OPTIONS"})

    def _is_default(self, method: str) -> bool:
        # What is written here blocks nothing, and need not be called in a thread.
        return getattr(type(self), method) is getattr(EventStreamView, method)

    @sensitive_variables()
    async def _make_client(self, hub: Hub, request: ASGIRequest) -> Client:
        checked_at = await _begin_checks(hub, request)
        if self._is_default("get_user"):
            user = await request_user(request)
        else:
            user = put_user(request, await call(self.get_user, request))
        if self._is_default("get_channels"):
            fixed = self.get_channels(request)
        else:
            fixed = await call(self.get_channels, request)
        subscription = await parse_subscription(request, user, check_fixed_channels(fixed), self.authorize)
        session_key = request.session.session_key if hasattr(request, "session") else None
        return Client(
            hub,
            subscription.channels,
            subscription.form,
            last_id=subscription.last_id,
            heartbeat_seconds=subscription.heartbeat_seconds,
            tokens=subscription.tokens,
            own=subscription.own,
            user_pk=subscription.user_pk,
            auth=subscription.auth,
            session=session_digest(session_key) if session_key else None,
            address=client_address(getattr(request, "scope", {})),
            user_agent=request.META.get("HTTP_USER_AGENT", "")[:200],
            checked_at=checked_at,
        )


async def _begin_checks(hub: Hub, request: ASGIRequest) -> float:
    """Loop time before which nobody looked whose request this is."""
    handoff = handoff_of(request)
    if handoff is not None:
        if handoff.leave_line is None:
            release_request_thread()  # who waits needs none
            await handoff.enter_line()
        return handoff.began_at  # type: ignore[no-any-return]
    return hub.loop.time() - (MIDDLEWARE_SECONDS if was_looked_at(request) else 0.0)


def _check_headers(request: ASGIRequest) -> str:
    """The Accept header. Raises Refused."""
    accept: str = request.META.get("HTTP_ACCEPT", "*/*")
    if is_foreign_subresource(request):
        raise Refused(403, "cross_site", "Another site's page may not open this stream without reading it.")
    if accept not in ("text/event-stream", "*/*") and not request.accepts("text/event-stream"):
        raise Refused(406, "not_acceptable", "This is an event stream: send Accept: text/event-stream, or no Accept.")
    return accept


def _full(refusal: str, hub: Hub) -> Refused:
    """For those who are not an EventSource, and can be told by a status when to come back."""
    retry_after = {"Retry-After": str(1 + hub.retry_ms() // 1000)}
    if refusal == "shutdown":
        return Refused(503, refusal, "This worker is shutting down. Try again.", retry_after)
    if refusal == "not_ready":
        return Refused(503, refusal, "This worker cannot reach its bus. Try again later.", retry_after)
    if refusal == "revoked":
        return Refused(503, refusal, "Your access changed while the stream was being opened. Try again.", retry_after)
    if hub.clients.is_full:
        return Refused(503, refusal, "This worker has as many streams as it may have. Try again later.", retry_after)
    return Refused(429, refusal, "Too many streams are open. Close one, or try again later.", retry_after)


def _encode_initial(events: Iterable[tuple[str, Any]], client: Client) -> list[bytes]:
    encoder = live_settings().json_encoder
    frames = []
    for type, data in events:
        validate_type(type)
        if client.form == "named":
            frames.append(frame(encode_json(data, encoder), event=type))
        else:
            value = {"type": type, "channels": list(client.channels), "data": data}
            frames.append(frame(encode_json(value, encoder)))
    return frames
