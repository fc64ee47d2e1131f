"""`{% sse_live %}`: the `<sse-live>` element, with the right to hear its channels.

Knows what a page must say to open a stream; never how a stream is served.
"""

from __future__ import annotations

from typing import Any, Literal

from django import template
from django.http import HttpRequest
from django.template.context import Context
from django.urls import reverse
from django.utils.crypto import salted_hmac

from ..broadcasting import stream_position
from ..http.subscription import page_position
from ..http.tokens import sign_channels
from ..identity import user_pk

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
) -> dict[str, Any]:
    """Draw the `<sse-live>` element for `channels`, and the script that it needs, once per page.

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
    """
    request: HttpRequest | None = context.get("request")
    user = getattr(request, "user", None)
    if user is not None and not user.is_authenticated:
        user = None
    if since is None:
        since = stream_position() if request is None else page_position(request)
    return {
        "src": src or reverse("sse_live:events"),
        "token": sign_channels(channels, user=user) if channels else None,
        "since": since,
        # No name of a channel has a line break in it.
        "channels": "\n".join(channels) if share or persist else None,
        "group": _group_of(user) if share else None,
        "persist": persist,
        "stats_url": stats_url,
        "draws_script": _is_first_of_page(context),
        # Django's own context processor, or django-csp's attribute of the request.
        "nonce": context.get("csp_nonce", getattr(request, "csp_nonce", None)),
    }


def _group_of(user: Any) -> str:
    """Tabs of one user share; those of another never do, also after somebody else has logged in."""
    name = "" if user is None else user_pk(user)
    return salted_hmac("django_sse_live.share", name, algorithm="sha256").hexdigest()[:16]


def _is_first_of_page(context: Context) -> bool:
    """Whether this render draws its first element. Included templates share the render context's outermost dict."""
    page: dict[Any, Any] = context.render_context.dicts[0]
    is_first = __name__ not in page
    page[__name__] = True
    return is_first
