"""`{% sse_live %}`: the `<sse-live>` element, with the right to hear its channels; `live_id`: ids for patches.

Knows what a page must say to open a stream; never how a stream is served.
"""

from __future__ import annotations

from typing import Any, Final, Literal
from urllib.parse import urlsplit

from django import template
from django.db.models import Model
from django.http import HttpRequest
from django.middleware.csrf import get_token
from django.template.context import Context
from django.urls import Resolver404, get_script_prefix, resolve, reverse
from django.utils.crypto import salted_hmac
from django.utils.html import conditional_escape, escape
from django.utils.safestring import SafeString, mark_safe

from ..broadcasting import stream_position
from ..http.subscription import page_position
from ..http.tokens import sign_channels, sign_page
from ..http.views import EventStreamView
from ..identity import scope_name, user_pk
from ..jobs.job import Job
from ..model_broadcasts import live_model
from ..namespaces import current_namespace

TRANSPORTS: Final = ("sse", "websocket", "auto")
QUEUES: Final = ("none", "memory", "storage")
SHARED_GROUP: Final = f"{__name__} group"

register: template.Library = template.Library()


@register.inclusion_tag("django_sse_live/sse_live.html", takes_context=True)
def sse_live(
    context: Context,
    *channels: str,
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
    """Draw the `<sse-live>` element for `channels`, and the script that it needs, once per page. Nothing at all for a
    visitor who is not logged in, where no channel is named and the stream has none of its own.

    Args:
        channels: what the page may hear by being drawn. Whoever sees the page may hear them: the view decides who does.
            Without any, the stream's own rules decide (channels fixed by the url, the user's own).
        since: a `stream_position()` taken before the page's queries. By default the position when the request started
            (with `live_application`), or else now.
        src: the url of another stream than the one of `django_sse_live.urls`.
        share: let all tabs of this user hear through one connection.
        persist: keep the position in the browser's "local" or "session" storage, so that a page brings the events that
            were missed since the last one.
        stats_url: where the browser posts its connection's statistics when the page is left.
        reset: "reload" loads the page anew where events were lost that cannot be had again, instead of its regions:
            once for each such loss, and not while something typed would be lost.
        with_credentials: send cookies to a stream of another origin too.
        send: let the page send messages: draws the CSRF token that they need.
        transport: "websocket" has the stream on a WebSocket, if one opens; "auto" from the first message on. It needs
            `live_application`. Tabs that share have none.
        queue: what becomes of messages that cannot be sent now: "memory" keeps them as long as the page is there,
            "storage" for the tab's next page too.
        log_events: show a line for each event in the browser's console; without it they are at the level "debug".
    """
    request: HttpRequest | None = context.get("request")
    url = src or reverse("sse_live:events")
    if not channels and _is_anonymous(request) and not _has_channels(url):
        return {"is_drawn": False}
    if reset not in (None, "reload"):
        raise ValueError(f'{{% sse_live reset={reset!r} %}}: it can be "reload", or is left out.')
    for name, value, choices in (("transport", transport, TRANSPORTS), ("queue", queue, QUEUES)):
        if value is not None and value not in choices:
            raise ValueError(f"{{% sse_live {name}={value!r} %}}: it can be one of {', '.join(choices)}.")
    if since is None:
        since = stream_position() if request is None else page_position(request)
    is_first = _is_first_of_page(context)
    group = _group_of(request) if share else None
    page: dict[Any, Any] = context.render_context.dicts[0]
    page[SHARED_GROUP] = group  # for the jobs of the page
    return {
        "is_drawn": True,
        "src": url,
        "token": _token(channels, request, src),
        "since": since,
        # No name of a channel has a line break in it.
        "channels": "\n".join(channels) if share or persist or send or queue or not is_first else None,
        "group": group,
        "persist": persist,
        "stats_url": stats_url,
        "reset": reset,
        "with_credentials": with_credentials,
        "log_events": log_events,
        # Only where it is needed: it sets a cookie, which keeps the page out of shared caches.
        "send_token": get_token(request) if send and request is not None else None,
        "transport": transport,
        "queue": queue,
        "draws_script": is_first,
        # Django's own context processor, or django-csp's attribute of the request.
        "nonce": context.get("csp_nonce", getattr(request, "csp_nonce", None)),
    }


@register.inclusion_tag("django_sse_live/sse_live_job.html", takes_context=True)
def sse_live_job(
    context: Context, job: Job | None, *, stop: bool | None = None, src: str | None = None
) -> dict[str, Any]:
    """Draw `<sse-live-job>`: a job's text, its progress, its state in words, and a button that stops it. Whoever sees
    the page may watch it: the view decides who does. Nothing for None.

    Args:
        job: what start_job() or find_job() gave. It is drawn as it was then.
        stop: whether the page may stop it: by default where its owner sees the page; True lets everybody who sees it.
        src: the url of another stream than the one of `django_sse_live.urls`.
    """
    if not job:  # None, or a variable that is not there
        return {"job_id": None}
    request: HttpRequest | None = context.get("request")
    user = getattr(request, "user", None)
    is_owner = job.owner is not None and user is not None and user.is_authenticated and user_pk(user) == job.owner
    may_stop = is_owner if stop is None else stop
    state, value = job.state, job.fraction
    # What has ended brings no more: it is shown, and costs no channel. After a Stop the last words may be on their way.
    is_heard = state in ("running", "lost", "cancelled")
    return {
        "job_id": job.id,
        "state": state,
        "may_stop": may_stop,
        # To the letter: a parser makes a line feed of what stands there as a carriage return.
        "text": mark_safe(escape(job.text).replace("\r", "&#13;")),
        "value": None if value is None else f"{value:.4g}",  # never localized
        "shows_progress": state == "running" or (value is not None and state != "finished"),
        "label": job.label,
        "error": job.error,
        # The element that hears it.
        "is_drawn": is_heard,
        "src": src or reverse("sse_live:events"),
        "token": job.token if is_owner and may_stop else job.sign(may_stop=may_stop),
        # As the page's own: elements that share one stream, and begin at several places, would make it go back.
        "since": stream_position() if request is None else page_position(request),
        "channels": job.channel,
        "group": context.render_context.dicts[0].get(SHARED_GROUP),
        "send_token": get_token(request) if may_stop and request is not None else None,
        "draws_script": is_heard and _is_first_of_page(context),
        "nonce": context.get("csp_nonce", getattr(request, "csp_nonce", None)),
    }


@register.filter
def live_id(instance: Any, element_id: str | None = None) -> SafeString:
    """The id of the element that shows an instance, `comment-7`: what patches of `@live_model` call it.

    Of the registered model, also for its proxies and children; a composite key is joined by `-`. An argument stands in
    the place of the name: `{{ comment|live_id:"side" }}` is `side-7`, for `@live_model(…, element_id="side")`.
    TypeError for anything but an instance of a model.
    """
    if not isinstance(instance, Model):
        raise TypeError(f"live_id is for an instance of a model, not for {instance!r}. Is the variable's name right?")
    return conditional_escape(live_model.id_of(instance, element_id))


def _is_anonymous(request: HttpRequest | None) -> bool:
    return request is not None and not getattr(getattr(request, "user", None), "is_authenticated", False)


def _has_channels(url: str) -> bool:
    """Whether the stream of a url may have channels for a visitor who names none: fixed by the url, or by its view. So
    may any whose view is not known here."""
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


def _token(channels: tuple[str, ...], request: HttpRequest | None, src: str | None) -> str | None:
    """Also without channels it says whom the page was drawn for, but not to a stream of another site."""
    if request is None:
        return sign_channels(channels) if channels else None
    if not channels and (not hasattr(request, "user") or (src is not None and urlsplit(src).netloc)):
        return None
    return sign_page(channels, request=request)


def _group_of(request: HttpRequest | None) -> str:
    """Tabs of one user share; those of another never do, also after somebody else has logged in."""
    user = getattr(request, "user", None)
    name = user_pk(user) if user is not None and user.is_authenticated else ""
    name = scope_name(current_namespace(request), name)
    return salted_hmac("django_sse_live.share", name, algorithm="sha256").hexdigest()[:16]


def _is_first_of_page(context: Context) -> bool:
    """Whether this render draws its first element. Included templates share the render context's outermost dict."""
    page: dict[Any, Any] = context.render_context.dicts[0]
    is_first = __name__ not in page
    page[__name__] = True
    return is_first
