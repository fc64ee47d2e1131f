"""The ASGI types that this package uses: https://asgi.readthedocs.io/en/latest/specs/www.html."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Called with a Scope, a Receive and a Send. Not said here: the stubs of Django, of Channels and of servers name these
# three by types of their own, and no application of one would be an application of another.
ASGIApplication = Callable[..., Awaitable[None]]
