"""What was broadcast, without a server and without a client; and commits where a test's transaction has none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import connections

from ..backends import get_backend, replace_backend
from ..backends.base import Backend
from ..broadcasting import Publication, publication_waits
from ..events import Event
from ..hub.hub import Hub
from ..savepoints import is_in_transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedBroadcast:
    """What every client of these channels would have got."""

    channels: tuple[str, ...]
    type: str
    data: Any  # parsed from the JSON that was encoded; the text of a text event
    namespace: str = ""  # where NAMESPACE is set
    patch: dict[str, str] | None = None  # action, target, and id and html where it has them


class _Capture(Backend):
    """Keeps what is published, and carries it nowhere."""

    def __init__(self, behind: Backend, into: list[CapturedBroadcast]) -> None:
        super().__init__({})
        self._behind = behind
        self._into = into

    def publish(self, event: Event) -> None:
        if not event.is_control:
            patch = None if event.patch is None else json.loads(event.patch)
            self._into.append(
                CapturedBroadcast(
                    channels=event.names, namespace=event.namespace, type=event.type, data=event.data, patch=patch
                )
            )

    @property
    def carries_deltas(self) -> bool:
        return self._behind.carries_deltas

    def publish_deltas(self, event: Event) -> None:
        self._behind.publish_deltas(event)

    def hear_deltas(self, hub: Hub) -> None:
        self._behind.hear_deltas(hub)

    # A stream may open meanwhile. Its hub is one of the bus behind, and stays there.

    def attach(self, hub: Hub) -> None:
        self._behind.attach(hub)

    async def history(self, hub: Hub, channels: tuple[str, ...], after: int) -> list[Event] | None:
        return await self._behind.history(hub, channels, after)

    async def has_reached(self, hub: Hub, position: int) -> bool:
        return await self._behind.has_reached(hub, position)

    def position(self) -> str:
        return self._behind.position()

    def known_position(self) -> str | None:
        return self._behind.known_position()


@contextmanager
def capture_broadcasts() -> Iterator[list[CapturedBroadcast]]:
    """A list that fills with what is broadcast inside the block; nothing of it reaches a client.

    What waits for a commit is added when the block ends, if it has not been rolled back by then: so it works under
    TestCase and in its async tests, where the outermost transaction is never committed. Only broadcasts are taken out
    of that queue; other ``on_commit`` callbacks stay where they are.
    """
    captured: list[CapturedBroadcast] = []
    waiting: list[tuple[Any, Publication]] = []

    def remember(*, connection: Any, publication: Publication, **_: Any) -> None:
        waiting.append((connection, publication))
        if not is_in_transaction(connection):
            publication.complete()  # there is no transaction but the test's own: here it would have been committed

    before = replace_backend(_Capture(get_backend(), captured))
    publication_waits.connect(remember)
    try:
        yield captured
        for connection, publication in waiting:
            _send(connection, publication)
    finally:
        publication_waits.disconnect(remember)
        replace_backend(before)


def send_committed_broadcasts() -> None:
    """Under TestCase: send what waits for a commit that will never come, as far as no other transaction is open."""
    for connection in connections.all(initialized_only=True):
        if not is_in_transaction(connection):
            for _, callback, *_ in connection.run_on_commit:
                if isinstance(callback, Publication):
                    _send(connection, callback)


def _send(connection: Any, publication: Publication) -> None:
    waiting = [entry for entry in connection.run_on_commit if entry[1] is not publication]
    if len(waiting) < len(connection.run_on_commit):  # else it was sent, or rolled back
        connection.run_on_commit = waiting
        publication()
