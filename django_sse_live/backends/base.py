"""Backend: what a bus between workers must do, and a table of what each one guarantees.

A backend carries events to the hubs of every worker. It knows hubs; it knows nothing of clients.

=============================  ===========  =============  ==============
guarantee                      memory       channel layer  redis streams
=============================  ===========  =============  ==============
reaches other processes        no           yes            yes
order for every client         yes          per publisher  yes
an event may be lost on a bus  no           yes, told      no
resume on another worker       no           no             yes
resume after a restart         no           no             yes
events wait for a bus away     —            up to 1,000    BUFFER_EVENTS
=============================  ===========  =============  ==============

"told": clients get a ``reset`` where a message of the layer is missing, never a silent gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

from ..events import Event

if TYPE_CHECKING:
    from ..hub.hub import Hub


class Backend:
    """One object per process, made from ``SSE_LIVE["BACKEND"]`` with ``SSE_LIVE["OPTIONS"]``. A fork makes its own."""

    reaches_other_processes: ClassVar[bool] = False
    resumes_on_other_workers: ClassVar[bool] = False
    resumes_after_restart: ClassVar[bool] = False
    option_names: ClassVar[frozenset[str]] = frozenset()  # the keys that OPTIONS may have

    def __init__(self, options: Mapping[str, Any]) -> None:
        """ImproperlyConfigured for an option that is unknown or bad. Opens no connection."""
        unknown = sorted(str(name) for name in options.keys() - self.option_names)
        if unknown:
            known = ", ".join(sorted(self.option_names)) or "none"
            raise ImproperlyConfigured(
                f'SSE_LIVE["OPTIONS"] has {", ".join(map(repr, unknown))}, which {type(self).__name__} does not know. '
                f"Its options: {known}."
            )

    def publish(self, event: Event) -> None:
        """Give the event its place and carry it to every hub. From any thread, with or without a running loop.

        Must not raise because the bus is down: the save that led here has happened.
        """
        raise NotImplementedError

    async def apublish(self, event: Event) -> None:
        """The same from a coroutine, without blocking its loop."""
        self.publish(event)

    def attach(self, hub: Hub) -> None:
        """Fill the log of a new hub and feed its inbox from now on. Called once per hub, on its loop."""
        raise NotImplementedError

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        """The events of these channels after a position that is older than the hub's log, up to where the log begins.

        None if they cannot be had.
        """
        return None

    def position(self) -> str:
        """The id of the newest event: what stream_position() gives. From any thread."""
        raise NotImplementedError

    def known_position(self) -> str | None:
        """position(), if it costs nothing to know; else None."""
        return None

    # How the bus is, for whoever operates it. From any thread.

    @property
    def is_available(self) -> bool:
        """Whether this process can reach the bus."""
        return True

    @property
    def outages(self) -> int:
        """How often it could not, so far."""
        return 0

    @property
    def buffered(self) -> int:
        """Events that wait for the bus to be back."""
        return 0

    @property
    def dropped(self) -> int:
        """Events given up so far, because too many waited."""
        return 0

    def close(self) -> None:
        """Let go of connections and threads. Called when the setting changes under a test."""
