"""Backend: what a bus between workers must do, and a table of what each one guarantees.

A backend carries events to the hubs of every worker. It knows hubs; it knows nothing of clients.

=============================  ===========  =============  ==============  =================
guarantee                      memory       channel layer  redis streams   database
=============================  ===========  =============  ==============  =================
reaches other processes        no           yes            yes             yes
order for every client         yes          per publisher  yes             yes
an event may be lost on a bus  no           yes, told      no              no
part of the transaction        no           no             no              yes
resume on another worker       no           no             yes             yes
resume after a restart         no           no             yes             yes
keeps what was revoked         yes          no             yes             yes
events wait for a bus away     —            up to 1,000    BUFFER_EVENTS   as the save does
=============================  ===========  =============  ==============  =================

"told": clients get a ``reset`` where a message of the layer is missing, never a silent gap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from ..events import Event
from .outage import Outage

if TYPE_CHECKING:
    from ..hub.hub import Hub


class HistoryUnavailable(Exception):
    """The bus does not answer: whether what a client missed can be had is not known now."""


class Backend:
    """One object per process, made from ``SSE_LIVE["BACKEND"]`` with ``SSE_LIVE["OPTIONS"]``. A fork makes its own."""

    reaches_other_processes: ClassVar[bool] = False
    resumes_on_other_workers: ClassVar[bool] = False
    serves_several_loops: ClassVar[bool] = True  # of one process
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

    def check_process(self) -> None:
        """ImproperlyConfigured if this process cannot use the bus. Called as it starts."""

    @classmethod
    def options_in_tests(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """OPTIONS for this process alone, which runs tests: no other and no running site hears it. For own_bus()."""
        return options

    def publish(self, event: Event) -> None:
        """Give the event its place and carry it to every hub. From any thread, with or without a running loop.

        Must not raise because the bus is down: the save that led here has happened.
        """
        raise NotImplementedError

    async def apublish(self, event: Event) -> None:
        """The same from a coroutine, without blocking its loop."""
        self.publish(event)

    # Of jobs: what is worth nothing in ten seconds, and may be lost, since it is found in the cache too.

    @property
    def carries_reports(self) -> bool:
        """Whether what workers report, and who is present, reaches other processes."""
        return self.reaches_other_processes

    @property
    def carries_deltas(self) -> bool:
        """Whether publish_deltas() reaches every hub that the bus reaches; else they look into the cache."""
        return True

    def publish_deltas(self, event: Event) -> None:
        """Carry a control event to every hub, apart from the others, which neither wait for it nor make room for it.
        From one thread at a time. Must not raise because the bus is down."""
        self.publish(event)

    def hear_deltas(self, hub: Hub) -> None:
        """Somebody watches jobs on this hub: from soon on, it is to hear of them. Called on its loop, again and again.
        By default every hub hears them from the start."""

    def enlist(self, event: Event, using: str) -> Callable[[], None] | None:
        """Inside the open transaction of database ``using``: make the event part of it, and give what is to be called
        after its commit. That calls ``event.complete()``, gives the event its place, and carries it to every hub; an
        event of which complete() says False is taken back.

        None: this bus has no part in that transaction, and is given the complete event after the commit by publish().
        What is raised leaves the save or call that led here.
        """
        return None

    def attach(self, hub: Hub) -> None:
        """Fill the log of a new hub and feed its inbox from now on. Called once per hub, on its loop. A backend that
        keeps what was revoked gives that with the log, and sets the hub's clock.

        One that does not ``keeps_history`` needs no log, and may be gone, with its loop, within a second.
        """
        raise NotImplementedError

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        """The events of these channels after a position that is older than the hub's log, up to where the log begins;
        and the first of those in it, since it loses them while the others are sent.

        None if they cannot be had. HistoryUnavailable if that is not known now: the client is asked to come back.
        """
        return None

    async def has_reached(self, hub: Hub, position: int) -> bool:
        """Whether the bus has got as far as a position that lies ahead of the hub's log, and so is to be waited for."""
        return True

    def position(self) -> str:
        """The id of the newest event: what stream_position() gives. From any thread."""
        raise NotImplementedError

    def known_position(self) -> str | None:
        """position(), if it costs nothing to know; else None."""
        return None

    # The state of the bus, for operators. From any thread.

    @property
    def outage(self) -> Outage | None:
        """What this process knows of the times without its bus; None for a bus that is always there."""
        return None

    @property
    def is_available(self) -> bool:
        """Whether this process can reach the bus."""
        return self.outage is None or not self.outage.is_on

    @property
    def outages(self) -> int:
        """How often it could not, so far."""
        return 0 if self.outage is None else self.outage.count

    @property
    def buffered(self) -> int:
        """Events that wait for the bus to be back."""
        return 0

    @property
    def dropped(self) -> int:
        """Events given up so far, because too many waited."""
        return 0

    @property
    def unreadable(self) -> int:
        """What other processes sent so far that could not be read, and was passed over."""
        return 0

    def check(self, databases: Collection[str]) -> list[CheckMessage]:
        """What ``manage.py check`` says of this bus. ``databases``: the aliases that may be connected to."""
        return []

    def close(self) -> None:
        """Let go of connections and threads. Called when the setting changes under a test."""
