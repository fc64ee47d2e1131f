from __future__ import annotations

import asyncio
import logging
import time
from unittest import IsolatedAsyncioTestCase

import pytest

from django_sse_live.backends.base import Backend
from django_sse_live.backends.memory import OVERLAP_MS, MemoryBackend
from django_sse_live.events import format_id, make_position, parse_id
from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.reading import LOST
from django_sse_live.testing.backends import BackendSuite


class MemoryBackendTests(BackendSuite, IsolatedAsyncioTestCase):
    def make_backend(self) -> Backend:
        return MemoryBackend({})


def come_back(hub: Hub, epoch: str, milliseconds_from_now: int) -> None:
    """A page comes with the id of an event of this epoch and time, which this worker does not have."""
    last_id = parse_id(format_id(epoch, make_position(time.time_ns() // 1_000_000 + milliseconds_from_now, 0)))
    assert last_id is not None
    client = Client(hub, ClientInfo(("a",)), last_id=last_id)
    client.cursor = LOST
    client.open()
    client.leave("client")


async def test_a_page_with_events_of_a_process_that_runs_beside_this_one_is_told_in_the_log_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend, hub = MemoryBackend({}), Hub(asyncio.get_running_loop(), EventLog("0"))
    backend.attach(hub)
    with caplog.at_level(logging.WARNING, "django_sse_live"):
        come_back(hub, "e1", -60_000)  # of the process before this one
        come_back(hub, "e1", OVERLAP_MS // 2)  # which may still have been there while this one began
        come_back(hub, hub.log.epoch, 2 * OVERLAP_MS)
        assert not caplog.records
        come_back(hub, "e2", 2 * OVERLAP_MS)
        come_back(hub, "e2", 2 * OVERLAP_MS)
    (record,) = caplog.records
    assert "a page hears those of one process alone" in record.message and "DatabaseBackend" in record.message
