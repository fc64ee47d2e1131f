"""A client of a hub, in one line: for tests that need no request."""

from __future__ import annotations

from typing import Any

from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.wire import Form

OF_THE_CLIENT = frozenset({"last_id", "tokens", "own", "checked_at"})  # everything else is known of it: ClientInfo


def make_client(hub: Hub, channels: tuple[str, ...] = ("a",), form: Form = "named", **options: Any) -> Client:
    known = {name: value for name, value in options.items() if name not in OF_THE_CLIENT}
    rest = {name: value for name, value in options.items() if name in OF_THE_CLIENT}
    return Client(hub, ClientInfo(channels, form, **known), **rest)
