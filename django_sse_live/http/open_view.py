"""OpenView: a view without login, CSRF check or transaction around it, as Django's middleware must know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, transaction
from django.http import HttpResponseBase
from django.views import View


class OpenView(View):
    """The attributes that middleware and handlers read are set on the view function, since a subclass may override
    dispatch()."""

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Callable[..., HttpResponseBase]:
        view: Any = super().as_view(**initkwargs)
        # A stream's POST checks the token itself; other views answer a POST with 405, not with CSRF's 403.
        view.csrf_exempt = True
        # For LoginRequiredMiddleware: tokens, public channels, preflights and monitors have no login, and an
        # EventSource cannot follow a redirect to a login page.
        view.login_required = False
        # Django refuses async views under ATOMIC_REQUESTS.
        for alias in connections:
            view = transaction.non_atomic_requests(using=alias)(view)
        return view  # type: ignore[no-any-return]
