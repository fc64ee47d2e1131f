"""Jobs of this process: the memory bus, and the cache in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches

from django_sse_live.jobs.records import Record
from django_sse_live.jobs.store import job_store
from django_sse_live.jobs.writer import Writer
from django_sse_live.jobs.writers import Writers
from django_sse_live.testing.isolation import own_bus

WITHIN_SECONDS = 20.0


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + WITHIN_SECONDS
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return found


async def stored(id: str, condition: Callable[[Record], bool]) -> None:
    """Until the cache, which answers who joins, has a job like this."""

    def is_stored() -> bool:
        found = job_store().read([id]).get(id)
        return found is not None and condition(found.record)

    await asyncio.to_thread(until, is_stored)


@pytest.fixture(autouse=True)
def _own_jobs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test leaves running is over when it ends: also where it has changed the bus, and so begun anew."""
    homes: set[Writers] = set()
    add = Writers.add

    def remember(self: Writers, writer: Writer) -> None:
        homes.add(self)
        add(self, writer)

    monkeypatch.setattr(Writers, "add", remember)
    with own_bus():
        yield
    for writers in homes:
        writers.abandon()
    for cache in caches.all():
        cache.clear()
