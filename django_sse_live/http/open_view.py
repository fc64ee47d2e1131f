"""OpenView: a view that asks for no login, no CSRF token and no transaction around it, and says so to Django."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpResponseBase
from django.views import View


class OpenView(View):
    """What middleware and handlers read from a view function is set here, and not on dispatch(), which a subclass may
    override."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        view: Any = super().as_view(**initkwargs)
        # A stream's own POST looks at the token itself; to every other view a POST is told 405, not CSRF's 403.
        view.csrf_exempt = True
        # LoginRequiredMiddleware leaves it alone: tokens, public channels, preflights and monitors come without a
        # login, and a redirect to a page is no answer to an EventSource.
        view.login_required = False
        # ATOMIC_REQUESTS and async views exclude each other.
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view  # type: ignore[no-any-return]
