"""Subscription: what a request asks for, and whether it may have it.

Requests, tokens and settings are known here; of hubs, only the ids that clients bring.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal

from django.core.exceptions import ImproperlyConfigured, PermissionDenied, TooManyFieldsSent
from django.http import HttpRequest, QueryDict
from django.views.decorators.debug import sensitive_variables

from ..callables import call
from ..conf import live_settings
from ..events import CONTROL_CHANNEL, RESERVED_PREFIX, parse_id, validate_name
from ..identity import USER_PREFIX, auth_marks, user_channel, user_pk
from ..jobs.job import read_job
from ..jobs.records import CHANNEL_PREFIX
from ..wire import FINAL_ID_SUFFIX, Form
from .handoff import handoff_of
from .refusals import Refused
from .tokens import TOKEN_SEPARATOR, grant, is_signed

QUERY_MAX_BYTES: Final = 32 * 1024  # room for MAX_CHANNELS long names, and a token for each
VISITORS_CHANNELS: Final = (
    "A part of the url must not name the channels, since anybody who types it would be let in: override get_channels()."
)

LastId = tuple[str, int] | Literal["none", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """The checked stream of a request."""

    namespace: str
    channels: tuple[str, ...]  # as the request names them, without namespace
    own: tuple[str, ...]  # those that need neither a name nor a token: fixed by the url, or the user's own
    form: Form
    last_id: LastId
    heartbeat_seconds: float
    tokens: tuple[str, ...]  # fresh ones, if the request brought any: see grant()
    user_pk: str | None
    auth: str  # auth_marks() of the user; "" without one
    claims: str  # digest of what the tokens grant; "" without any
    is_authorized: bool  # authorize() alone has granted some channel


@sensitive_variables()
async def parse_subscription(
    request: HttpRequest,
    user: Any,
    fixed_channels: Iterable[str],
    authorize: Callable[[HttpRequest, str], Any],
    *,
    namespace: str,
) -> Subscription:
    """The stream that a request asks for, if it may hear every channel. Asked in this order: fixed by the url, granted
    by a token, the user's own, public, authorized. ``user``: authenticated, or None. Raises Refused."""
    query = request.GET
    fixed = tuple(fixed_channels)
    granted_by = grant(_brought_tokens(request, user), user, namespace)
    signed = granted_by.channels
    wanted = [*fixed, *query.getlist("channel"), *signed]
    own = None if user is None or granted_by.is_drawn_for_nobody else user_channel(user)
    if own is not None:
        wanted.append(own)
    if not wanted:
        raise Refused(
            400,
            "no_channel",
            'Name a channel: ?channel=comments, or a token from {% sse_live "comments" %} or sign_channels(), '
            'or fix channels in the url: path("events/", include("django_sse_live.urls"), {"channels": ["comments"]}).',
        )
    channels = tuple(dict.fromkeys(wanted))
    limit, count = live_settings().max_channels, len(channels) - (own is not None)
    if count > limit:
        raise Refused(
            400,
            "too_many_channels",
            f"{count} channels were asked for; a stream may have {limit}. Broadcast on broader channels, "
            'or raise SSE_LIVE["MAX_CHANNELS"].',
        )
    granted = {*fixed, *signed, own}
    asked = [channel for channel in channels if channel not in granted]
    for channel in asked:  # check all names before any code of the project runs
        try:
            validate_name("channel", channel)
        except ValueError as error:
            raise Refused(400, "malformed_channel", str(error)) from None
    form, heartbeat_seconds = _form(request), asked_heartbeat(query)
    is_authorized = False
    for channel in asked:
        is_authorized = await _check_access(request, channel, authorize, user, namespace) or is_authorized
    return Subscription(
        namespace=namespace,
        channels=channels,
        own=fixed if own is None else (*fixed, own),
        form=form,
        last_id=read_last_id(brought_id(request)),
        heartbeat_seconds=heartbeat_seconds,
        tokens=granted_by.tokens,
        user_pk=None if user is None else user_pk(user),
        auth="" if user is None else auth_marks(user),
        claims=granted_by.claims,
        is_authorized=is_authorized,
    )


@sensitive_variables()
async def check_sender(
    request: HttpRequest,
    user: Any,
    fixed_channels: Iterable[str],
    authorize: Callable[[HttpRequest, str], Any],
    channel: str | None,
    *,
    namespace: str,
) -> None:
    """Whether this request may send to a channel, as it may if it can hear it. Tokens are checked even if it names
    none. Raises Refused."""
    granted_by = grant(_brought_tokens(request, user), user, namespace)
    if channel is None or channel in fixed_channels or channel in granted_by.channels:
        return
    if user is not None and not granted_by.is_drawn_for_nobody and channel == user_channel(user):
        return
    await _check_access(request, channel, authorize, user, namespace)


@sensitive_variables()
async def may_stop(request: HttpRequest, user: Any, channel: str, *, namespace: str) -> bool:
    """Whether this request may stop a channel's job: its owner may, and a token may say so."""
    granted_by = grant(_brought_tokens(request, user), user, namespace)
    return channel in granted_by.stoppable or (user is not None and await _owns(user, channel, namespace))


async def _owns(user: Any, channel: str, namespace: str) -> bool:
    found = await read_job(channel.removeprefix(CHANNEL_PREFIX))
    return found is not None and (found.record.owner, found.record.namespace) == (user_pk(user), namespace)


def check_query(request: HttpRequest) -> None:
    """Refuse a query string that no stream can have, before anything is read from it. Raises Refused."""
    if len(request.META.get("QUERY_STRING", "")) > QUERY_MAX_BYTES:
        raise Refused(
            414,
            "query_too_long",
            f"The query string is longer than {QUERY_MAX_BYTES} bytes. Name fewer channels, or fix them in the url.",
        )
    try:
        request.GET  # noqa: B018  # parsed when first looked at
    except TooManyFieldsSent:
        raise Refused(
            400, "too_many_parameters", "The query has more parameters than DATA_UPLOAD_MAX_NUMBER_FIELDS allows."
        ) from None


def hide_tokens(request: HttpRequest) -> None:
    """Before an error is reported with its request, to ADMINS or on the debug page: remove what opens a stream."""
    try:
        query = QueryDict(request.META.get("QUERY_STRING", ""), mutable=True)
    except TooManyFieldsSent:  # such a request is refused, and its query is of no use to anybody
        request.META["QUERY_STRING"] = ""
        return
    if secrets := [name for name in ("token", "ticket") if name in query]:
        for name in secrets:
            query.setlist(name, ["hidden"])
        request.META["QUERY_STRING"] = query.urlencode()
        request.GET = query  # type: ignore[assignment]


def _brought_tokens(request: HttpRequest, user: Any) -> list[str]:
    """The tokens of ?token= and of an Authorization: Bearer header, if it looks like this package's. If other code has
    authenticated the request, the header counts as theirs unless its token is certainly this package's."""
    tokens = request.GET.getlist("token")
    scheme, _, bearer = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    bearer = bearer.strip()
    if scheme.lower() == "bearer" and TOKEN_SEPARATOR in bearer and (user is None or is_signed(bearer)):
        tokens = [*tokens, bearer]
    return tokens


async def _check_access(
    request: HttpRequest, channel: str, authorize: Callable[[HttpRequest, str], Any], user: Any, namespace: str
) -> bool:
    """Check access to a channel. True if authorize() was asked, which may answer differently later. Raises Refused."""
    if channel.startswith(USER_PREFIX):
        raise Refused(
            403,
            "forbidden",
            f"The channel {channel!r} belongs to one user, who hears it without asking once logged in. "
            "To let somebody else in, sign a token for it: sign_channels().",
        )
    if channel == CONTROL_CHANNEL:
        raise Refused(403, "forbidden", f"The channel {channel!r} is what workers tell each other; nobody may listen.")
    if channel.startswith(CHANNEL_PREFIX):
        if user is not None and await _owns(user, channel, namespace):
            return True
        raise Refused(
            403,
            "forbidden",
            "This job is not yours, or is not known any more. Its owner may watch it, and who has a token for it: "
            "{% sse_live_job job %} draws one, and job.sign() makes one.",
        )
    if channel.startswith(RESERVED_PREFIX):
        raise Refused(
            403,
            "forbidden",
            f'The channel {channel!r} is private: names that begin with "{RESERVED_PREFIX}" belong to django-sse-live.',
        )
    if any(fnmatchcase(channel, pattern) for pattern in live_settings().public_channels):
        return False
    try:
        allowed = _yes_or_no(await call(authorize, request, channel), "authorize()")
    except PermissionDenied:
        allowed = False
    if not allowed:
        raise Refused(
            403,
            "forbidden",
            f"You may not listen to {channel!r}. To allow it: draw the stream with {{% sse_live {channel!r} %}}, "
            'which signs a token, or name the channel in SSE_LIVE["PUBLIC_CHANNELS"], or let SSE_LIVE["AUTHORIZE"] '
            "return True for it.",
        )
    return True


async def authorize_by_setting(request: HttpRequest, channel: str) -> bool:
    """The default of EventStreamView.authorize(): asks SSE_LIVE["AUTHORIZE"]; without it the answer is no."""
    authorize = live_settings().authorize
    return authorize is not None and _yes_or_no(await call(authorize, request, channel), 'SSE_LIVE["AUTHORIZE"]')


def _yes_or_no(answer: Any, who: str) -> bool:
    # Strict, since a coroutine that was never awaited, a queryset and a refusing response are all true.
    if answer is None or isinstance(answer, bool):
        return answer is True
    raise TypeError(f"{who} must return True or False, not {type(answer).__name__}. Nobody was let in.")


def _form(request: HttpRequest) -> Form:
    handoff = handoff_of(request)
    if handoff is not None and handoff.socket is not None:
        return "lines"
    given = _first(request.GET, "format")
    if given is None or given == "named":
        return "named"
    if given == "envelope":
        return "envelope"
    raise Refused(400, "malformed_format", 'format is "named" (the default) or "envelope".')


def asked_heartbeat(query: QueryDict) -> float:
    """The interval that a client asks for, kept between HEARTBEAT_MIN_SECONDS and HEARTBEAT_MAX_SECONDS."""
    settings, given = live_settings(), _first(query, "heartbeat")
    if given is None:
        return settings.heartbeat_seconds
    try:
        seconds = float(given)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise Refused(400, "malformed_heartbeat", "heartbeat is a number of seconds, such as heartbeat=15.")
    low = min(settings.heartbeat_min_seconds, settings.heartbeat_seconds)
    high = max(settings.heartbeat_max_seconds, settings.heartbeat_seconds)
    held = max(low, min(seconds, high))
    return int(held) if held == int(held) else held


def brought_id(request: HttpRequest) -> str | None:
    """The last event id that the client saw; the header wins over the parameter. None if it is empty."""
    # META, since request.headers would copy every header first.
    return request.META.get("HTTP_LAST_EVENT_ID") or _first(request.GET, "last_event_id") or None


def _first(query: QueryDict, name: str) -> str | None:
    # Not get(), which raises and catches an exception for each missing name.
    return query[name] if name in query else None  # type: ignore[return-value]


def is_final_id(last_id: str | None) -> bool:
    """Whether the client got a final goodbye, and reconnects as every EventSource does."""
    return last_id is not None and last_id.endswith(FINAL_ID_SUFFIX)


def read_last_id(brought: str | None) -> LastId:
    return "none" if brought is None else parse_id(brought) or "unknown"


def check_fixed_channels(channels: Any, *, may_be_reserved: bool = False) -> tuple[str, ...]:
    """Check the channels that the project fixes. They need no permission, so they must not come from the visitor."""
    if isinstance(channels, str):
        raise ImproperlyConfigured(
            f'channels is the str {channels!r}; fixed channels are a list: {{"channels": ["comments"]}}. '
            + VISITORS_CHANNELS
        )
    try:
        names = tuple(validate_name("channel", channel) for channel in channels)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"The channels fixed for this stream are wrong: {error}") from error
    if not may_be_reserved and any(name.startswith(RESERVED_PREFIX) for name in names):
        raise ImproperlyConfigured(
            f'The channels fixed for this stream are {names!r}: names that begin with "{RESERVED_PREFIX}" belong to '
            "django-sse-live. Put a prefix of your own before names that users choose."
        )
    return names
