"""Backend: what a bus between workers must do, and a table of what each one guarantees.

A backend carries events to the hubs of every worker. Clients are unknown to it.

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

"told": clients get a ``reset`` after a lost message of the layer, never a silent gap.
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
    """The bus does not answer: whether it still has the missed events is unknown now."""


class Backend:
    """One object for each process, made from ``SSE_LIVE["BACKEND"]`` with ``SSE_LIVE["OPTIONS"]``. A fork makes its
    own."""

    reaches_other_processes: ClassVar[bool] = False
    resumes_on_other_workers: ClassVar[bool] = False
    serves_several_loops: ClassVar[bool] = True  # in one process
    option_names: ClassVar[frozenset[str]] = frozenset()  # the allowed keys of OPTIONS

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Opens no connection. Raises ImproperlyConfigured for an unknown or bad option."""
        unknown = sorted(str(name) for name in options.keys() - self.option_names)
        if unknown:
            known = ", ".join(sorted(self.option_names)) or "none"
            raise ImproperlyConfigured(
                f'SSE_LIVE["OPTIONS"] has {", ".join(map(repr, unknown))}, which {type(self).__name__} does not know. '
                f"Its options: {known}."
            )

    def check_process(self) -> None:
        """Raises ImproperlyConfigured if this process cannot use the bus. Called as the process starts."""

    @classmethod
    def options_in_tests(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """OPTIONS of a bus for this test process alone, which no running site hears. For own_bus()."""
        return options

    def publish(self, event: Event) -> None:
        """Give the event its position and carry it to every hub. From any thread, with or without a running loop.

        Must not raise because the bus is down: the save that caused the event has happened.
        """
        raise NotImplementedError

    async def apublish(self, event: Event) -> None:
        """publish() from a coroutine, without blocking its loop."""
        self.publish(event)

    # Deltas of jobs: worthless after ten seconds, and expendable, since the cache has the text too.

    @property
    def carries_reports(self) -> bool:
        """Whether presence and worker reports reach other processes."""
        return self.reaches_other_processes

    @property
    def carries_deltas(self) -> bool:
        """Whether publish_deltas() reaches every hub of the bus. If not, hubs look into the cache."""
        return True

    def publish_deltas(self, event: Event) -> None:
        """Carry a control event to every hub, apart from other events, which never wait for it and lose no room to it.
        From one thread at a time. Must not raise because the bus is down."""
        self.publish(event)

    def hear_deltas(self, hub: Hub) -> None:
        """Begin to carry deltas to this hub, where somebody watches jobs. Called on its loop, repeatedly. By default
        every hub gets them from the start."""

    def enlist(self, event: Event, using: str) -> Callable[[], None] | None:
        """Make the event part of the open transaction of database ``using``. Returns what to call after the commit: it
        calls ``event.complete()``, gives the event its position and carries it to every hub, or takes it back if
        complete() returns False.

        Returns None if this bus has no part in that transaction: publish() gets the complete event after the commit. An
        exception reaches the caller, who saved or broadcast.
        """
        return None

    def attach(self, hub: Hub) -> None:
        """Fill the log of a new hub, and feed its inbox from now on. Called once for each hub, on its loop. A backend
        that keeps revocations hands them over with the log, and sets the hub's clock.

        A hub without ``keeps_history`` needs no log, and may be gone, with its loop, within a second.
        """
        raise NotImplementedError

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        """The events of these channels after a position that the hub's log no longer reaches, up to where the log
        begins; and the first of those in the log, since it may evict them while the others are sent.

        Returns None if they are gone. Raises HistoryUnavailable if the bus does not answer: the client is asked to come
        back.
        """
        return None

    async def has_reached(self, hub: Hub, position: int) -> bool:
        """Whether the bus has reached a position ahead of the hub's log, so that the hub will reach it too. Raises
        HistoryUnavailable as history() does."""
        return True

    def position(self) -> str:
        """The id of the newest event, as stream_position() returns it. From any thread."""
        raise NotImplementedError

    def known_position(self) -> str | None:
        """position(), if it is known without asking the bus; else None."""
        return None

    # The state of the bus, for operators. From any thread.

    @property
    def outage(self) -> Outage | None:
        """What this process knows of the outages of its bus; None for a bus that cannot be away."""
        return None

    @property
    def is_available(self) -> bool:
        """Whether this process can reach the bus."""
        return self.outage is None or not self.outage.is_on

    @property
    def outages(self) -> int:
        """How often the bus has been out of reach."""
        return 0 if self.outage is None else self.outage.count

    @property
    def buffered(self) -> int:
        """Events that the bus has not taken yet: many wait only while it is away."""
        return 0

    @property
    def dropped(self) -> int:
        """Events dropped so far because too many waited."""
        return 0

    @property
    def unreadable(self) -> int:
        """Unreadable entries of other processes that were skipped so far."""
        return 0

    def check(self, databases: Collection[str]) -> list[CheckMessage]:
        """The messages of ``manage.py check`` about this bus. ``databases``: the aliases that may be connected to."""
        return []

    def close(self) -> None:
        """Close connections and threads. Called when a test changes the setting."""
