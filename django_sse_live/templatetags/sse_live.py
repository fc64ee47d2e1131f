"""Template tags: `{% sse_live %}` draws the `<sse-live>` element, `{% sse_live_job %}` a job, `live_id` an id.

What a page needs to open a stream is known here. How streams are served is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from django import template
from django.conf import settings
from django.db.models import Model
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template.context import Context
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve, reverse
from django.utils.crypto import salted_hmac
from django.utils.html import conditional_escape, escape
from django.utils.safestring import SafeString, mark_safe

from ..broadcasting import stream_position
from ..events import validate_name
from ..http.handoff import handoff_of
from ..http.tokens import sign_channels, sign_page
from ..http.views import EventStreamView
from ..identity import scope_name, user_pk
from ..jobs.job import Job
from ..model_broadcasts import live_model
from ..namespaces import current_namespace

TRANSPORTS: Final = ("sse", "websocket", "auto")
QUEUES: Final = ("none", "memory", "storage")
STORES: Final = ("local", "session")
SHARED_GROUP: Final = f"{__name__} group"

register: template.Library = template.Library()


@register.inclusion_tag("django_sse_live/sse_live.html", takes_context=True)
def sse_live(
    context: Context,
    *channels: str | Sequence[str],
    since: str | None = None,
    src: str | None = None,
    share: bool = False,
    persist: Literal["local", "session"] | None = None,
    stats_url: str | None = None,
    reset: Literal["reload"] | None = None,
    with_credentials: bool = False,
    log_events: bool = False,
    send: bool = False,
    transport: Literal["sse", "websocket", "auto"] | None = None,
    queue: Literal["none", "memory", "storage"] | None = None,
) -> dict[str, Any]:
    """Draw the `<sse-live>` element for `channels`. The page's first element also draws the script.

    Draws nothing if there is no channel to hear: none is named, the visitor is not logged in, and the stream has no
    channels of its own. In DEBUG a comment in the page says so.

    Args:
        channels: the channels of the page, or lists of them. Every visitor to whom the view shows the page may hear
            them. Without any, the stream's own rules decide: channels fixed by the url, and the user's own channel.
        since: a `stream_position()` taken before the page's queries. The default is the position at the start of the
            request with `live_application`, and the current one without it.
        src: the url of the stream. The default is that of `django_sse_live.urls`.
        share: let all tabs of this user share one connection.
        persist: keep the position in the browser's "local" or "session" storage. The next page then gets the events
            since the last one.
        stats_url: the url to which the browser posts statistics of its connection when the visitor leaves the page.
        reset: "reload" loads the whole page again, instead of its regions, after lost events that the server no longer
            has. It does so once for each loss, and not while that would discard typed text, or send a form again.
        with_credentials: send cookies to a stream of another origin too.
        send: let the page send messages. Draws the CSRF token that they need.
        transport: "websocket" opens the stream on a WebSocket if possible; "auto" does so at the first message. Both
            need `live_application`. Tabs that share a connection use no WebSocket.
        queue: where messages wait that cannot be sent now: in "memory" until the visitor leaves the page, in "storage"
            also for the tab's next page.
        log_events: log each event in the browser's console. Without it, events have the level "debug".
    """
    request: HttpRequest | None = context.get("request")
    url = src or _stream_url()
    names = tuple(chain.from_iterable(each if isinstance(each, (list, tuple)) else (each,) for each in channels))
    for channel in names:
        _check_channel(channel)
    if not names and _is_anonymous(request) and not _has_channels(url):
        return {"is_drawn": False, "is_explained": settings.DEBUG}
    if reset not in (None, "reload"):
        raise ValueError(f'{{% sse_live reset={reset!r} %}}: it can be "reload", or is left out.')
    choices_of = (("transport", transport, TRANSPORTS), ("queue", queue, QUEUES), ("persist", persist or None, STORES))
    for name, value, choices in choices_of:
        if value is not None and value not in choices:
            raise ValueError(f"{{% sse_live {name}={value!r} %}}: it can be one of {', '.join(choices)}.")
    if not since:  # a variable that the view does not set is ""
        since = _position(request)
    is_first = _is_first_of_page(context)
    group = _group_of(request) if share else None
    page: dict[Any, Any] = context.render_context.dicts[0]
    page[SHARED_GROUP] = group  # read by {% sse_live_job %}
    return {
        "is_drawn": True,
        "src": url,
        "token": _token(names, request, src),
        "since": since,
        # They tell the element from that of another page or fragment, whose url is the same and whose token is not
        # compared. No name of a channel has a line break in it.
        "channels": "\n".join(names),
        "group": group,
        "persist": persist,
        "stats_url": stats_url,
        # The answer to a POST is not loaded again, since that would send the form again. Its regions are fetched.
        "reset": reset if request is None or request.method in ("GET", "HEAD") else None,
        "with_credentials": with_credentials,
        "log_events": log_events,
        # Not for every page: it sets a cookie, and shared caches do not store such a page.
        "send_token": get_token(request) if send and request is not None else None,
        "transport": transport,
        "queue": queue,
        "draws_script": is_first,
        # Set by Django's context processor, or by django-csp on the request.
        "nonce": context.get("csp_nonce", getattr(request, "csp_nonce", None)),
    }


@register.inclusion_tag("django_sse_live/sse_live_job.html", takes_context=True)
def sse_live_job(
    context: Context, job: Job | None, *, stop: bool | None = None, src: str | None = None
) -> dict[str, Any]:
    """Draw `<sse-live-job>`: a job's text, its progress, its state in words, and a stop button. Every visitor to whom
    the view shows the page may watch the job. Draws nothing for None.

    Args:
        job: the result of start_job() or find_job(), with the state that it had then.
        stop: whether this page may stop the job. By default the owner's page may. True lets every visitor stop it.
        src: the url of the stream. The default is that of `django_sse_live.urls`.
    """
    if not job:  # None, or "" for an undefined variable
        return {"job_id": None}
    if not isinstance(job, Job):
        raise TypeError(f"{{% sse_live_job %}} draws what start_job() or find_job() gives, not {job!r}.")
    request: HttpRequest | None = context.get("request")
    user = getattr(request, "user", None)
    is_owner = job.owner is not None and user is not None and user.is_authenticated and user_pk(user) == job.owner
    may_stop = is_owner if stop is None else stop
    state, value = job.state, job.fraction
    # A job that has ended sends nothing more, and needs no channel. A cancelled one may still send its last text.
    is_heard = state in ("running", "lost", "cancelled")
    return {
        "job_id": job.id,
        "state": state,
        "may_stop": may_stop,
        # Escaped, since an HTML parser turns a carriage return into a line feed.
        "text": mark_safe(escape(job.text).replace("\r", "&#13;")),
        "value": None if value is None else f"{value:.4g}",  # never localized
        "shows_progress": state == "running" or (value is not None and state != "finished"),
        "label": job.label,
        "error": job.error,
        "is_drawn": is_heard,  # the <sse-live> element inside
        "src": src or _stream_url(),
        "token": job.token if is_owner and may_stop else job.sign(may_stop=may_stop),
        # The same position as for the page's other elements: they may share one stream, which must not go back.
        "since": _position(request),
        "channels": job.channel,
        "group": context.render_context.dicts[0].get(SHARED_GROUP),
        "send_token": get_token(request) if may_stop and request is not None else None,
        "draws_script": is_heard and _is_first_of_page(context),
        "nonce": context.get("csp_nonce", getattr(request, "csp_nonce", None)),
    }


@register.filter
def live_id(instance: Any, element_id: str | None = None) -> SafeString:
    """The id of the element that shows an instance, such as `comment-7`. Patches of `@live_model` use the same id.

    It consists of the name and the key of the registered model, also for instances of its proxies and children. The
    parts of a composite key are joined by `-`. An argument replaces the name: `{{ comment|live_id:"side" }}` is
    `side-7`, for `@live_model(…, element_id="side")`.
    TypeError for anything but an instance of a model.
    """
    if not isinstance(instance, Model):
        raise TypeError(f"live_id is for an instance of a model, not for {instance!r}. Is the variable's name right?")
    return conditional_escape(live_model.id_of(instance, element_id))


def _stream_url() -> str:
    try:
        return reverse("sse_live:events")
    except NoReverseMatch as error:
        raise NoReverseMatch(
            'The urls of the streams are not found. Write path("events/", include("django_sse_live.urls")) into the '
            f'urlpatterns, or give the tag the url of a stream: src="…". ({error})'
        ) from error


def _check_channel(channel: object) -> None:
    if isinstance(channel, str) and channel:
        validate_name("channel", channel)
        return
    # Without the value: the repr() of a queryset would ask the database.
    kind, what = (ValueError, "empty") if channel == "" else (TypeError, f"of the type {type(channel).__name__}")
    raise kind(
        f"A channel of {{% sse_live %}} is {what}. A name without quotes is a variable: write "
        '{% sse_live "comments" %}, or look whether the view sets the variable. Each channel is one text; the tag '
        "takes lists of them too."
    )


def _is_anonymous(request: HttpRequest | None) -> bool:
    return request is not None and not getattr(getattr(request, "user", None), "is_authenticated", False)


def _has_channels(url: str) -> bool:
    """Whether the stream of this url may have channels of its own: fixed by the url, or by its view. True if the view
    is unknown here, as for another site."""
    parts = urlsplit(url)
    prefix = get_script_prefix()
    try:
        match = resolve("/" + parts.path.removeprefix(prefix))
    except Resolver404:
        return True
    view = getattr(match.func, "view_class", None)
    if parts.netloc or not (isinstance(view, type) and issubclass(view, EventStreamView)):
        return True
    has_own = view.get_channels is not EventStreamView.get_channels or view.get_user is not EventStreamView.get_user
    return has_own or bool(match.kwargs.get("channels"))


def _position(request: HttpRequest | None) -> str:
    """Where a page's stream begins: the position that live_application took when the request began, else the current
    one."""
    handoff = None if request is None else handoff_of(request)
    return (handoff and handoff.position) or stream_position()


def _token(channels: tuple[str, ...], request: HttpRequest | None, src: str | None) -> str | None:
    """The element's token. Without channels it only names the page's user, and is not drawn for another site."""
    if request is None:
        return sign_channels(channels) if channels else None
    if not channels and (not hasattr(request, "user") or (src is not None and urlsplit(src).netloc)):
        return None
    return sign_page(channels, request=request)


def _group_of(request: HttpRequest | None) -> str:
    """The name under which tabs share a connection. Users have different ones, so a login leaves the group of the user
    before."""
    user = getattr(request, "user", None)
    name = user_pk(user) if user is not None and user.is_authenticated else ""
    name = scope_name(current_namespace(request), name)
    return salted_hmac("django_sse_live.share", name, algorithm="sha256").hexdigest()[:16]


def _is_first_of_page(context: Context) -> bool:
    """Whether no element was drawn on this page before. Included templates share the render context's outermost
    dict."""
    page: dict[Any, Any] = context.render_context.dicts[0]
    is_first = __name__ not in page
    page[__name__] = True
    return is_first
