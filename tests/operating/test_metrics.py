"""Prometheus metrics: what they are called, what they say, and that it is what was done."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.test import AsyncRequestFactory
from prometheus_client import REGISTRY, generate_latest

from django_sse_live import abroadcast, disconnect_clients
from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.hub.counts import Latency
from django_sse_live.hub.hub import Hub
from django_sse_live.metrics import COUNTERS, GAUGES, LATENCY
from django_sse_live.workers import worker_of
from tests.hub.conftest import until
from tests.live.harness.servers import ROOT
from tests.operating.conftest import Connect
from tests.operating.load import Samples, differences, one_process, parse, two_processes
from tests.visitors import Visitor

SHORT = {"clients": 100, "events": 50, "breaks": 30}


def scraped() -> Samples:
    return parse(generate_latest(REGISTRY).decode())


class Growth:
    """How much each counter has grown since."""

    def __init__(self) -> None:
        self._before = scraped()

    def __getitem__(self, name: str) -> float:
        return scraped().get(name, 0) - self._before.get(name, 0)


async def test_a_short_load_is_counted_to_the_unit() -> None:
    assert differences(*await one_process(**SHORT)) == []


@pytest.mark.needs("redis")
async def test_two_workers_are_counted_to_the_unit_in_multiprocess_mode() -> None:
    assert differences(*await two_processes(**SHORT)) == []


def test_everything_is_there_before_anything_has_happened() -> None:
    code = "import django, prometheus_client as p; django.setup(); print(p.generate_latest().decode())"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    for name in COUNTERS:
        assert f"# TYPE {name}_total counter" in found
    for name in GAUGES:
        assert f"# TYPE {name} gauge" in found
    assert f"# TYPE {LATENCY} histogram" in found
    assert parse(found)["sse_live_bus_up"] == 1


def test_nothing_of_prometheus_is_imported_where_it_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'prometheus_client' else find(name, *more)\n"
        "import django; django.setup()\n"
        "from django_sse_live import broadcast; broadcast('a', 'b')\n"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)


async def test_streams_are_counted_by_what_ended_them(hub: Hub, connect: Connect) -> None:
    grown = Growth()
    leaves, ended = connect("a"), connect("b")
    await until(lambda: len(hub.clients) == 2)
    assert grown["sse_live_streams"] == 2
    await leaves.leave()
    disconnect_clients(channel="b")
    await ended.done()
    assert grown["sse_live_streams"] == 0 and grown["sse_live_streams_opened_total"] == 2
    assert grown["sse_live_streams_closed_total{client}"] == 1
    assert grown["sse_live_streams_closed_total{disconnected}"] == 1
    assert grown["sse_live_events_published_total"] == 0  # a disconnection is not an event


async def test_a_stream_that_fails_is_counted_as_an_error(settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}
    grown = Growth()
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise ValueError("of the server's own")

    headers = [(b"accept", b"text/event-stream")]
    scope = AsyncRequestFactory()._base_scope(path="/events/", query_string=b"channel=news", headers=headers)
    await asyncio.wait_for(live_application(get_asgi_application())(scope, receive, send), 10)
    assert grown["sse_live_streams_closed_total{error}"] == 1
    assert grown["sse_live_streams_closed_total{client}"] == 0
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


async def test_refusals_are_counted_by_reason(visitor: Visitor) -> None:
    grown = Growth()
    await visitor.ask("channel=secret")
    await visitor.ask("")
    assert grown["sse_live_streams_refused_total{forbidden}"] == 1
    assert grown["sse_live_streams_refused_total{no_channel}"] == 1


async def test_one_event_on_two_channels_is_delivered_once_to_each_stream(hub: Hub, connect: Connect) -> None:
    grown = Growth()
    readers = [connect("a", "b"), connect("a")]
    await until(lambda: len(hub.clients) == 2)
    await abroadcast(["a", "b"], "tick")
    await until(lambda: all(reader.client.events_sent for reader in readers))
    assert grown["sse_live_events_published_total"] == 1
    assert grown["sse_live_events_delivered_total"] == 2
    assert grown["sse_live_events_replayed_total"] == 0


async def test_only_what_is_older_than_the_stream_counts_as_replayed(hub: Hub, connect: Connect) -> None:
    begin = hub.log.epoch, hub.log.head
    for _ in range(3):
        await abroadcast(["a", "b"], "tick")
    await abroadcast("c", "tick")
    await until(lambda: hub.log.count(["a", "b", "c"], begin[1]) == 4)
    grown = Growth()
    reader = connect("a", "b", last_id=begin)
    await abroadcast("a", "tick")
    await until(lambda: reader.client.events_sent == 4)
    assert grown["sse_live_events_replayed_total"] == 3
    assert grown["sse_live_events_delivered_total"] == 4


async def test_latency_is_observed_once_for_a_fan_out(hub: Hub, connect: Connect) -> None:
    grown = Growth()
    readers = [connect("a") for _ in range(20)]
    await until(lambda: len(hub.clients) == 20)
    await abroadcast("a", "tick")
    await until(lambda: all(reader.client.events_sent for reader in readers))
    await until(lambda: grown[f"{LATENCY}_count"] > 0)
    assert grown[f"{LATENCY}_count"] == 1
    assert 0 <= grown[f"{LATENCY}_sum"] < 5
    assert grown[f"{LATENCY}_bucket{{+Inf}}"] == 1


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    latency = Latency()
    for seconds in (0.0, 0.001, 0.0011, 99.0):
        latency.observe(seconds)
    assert latency.counts[:2] == [2, 1] and latency.counts[-1] == 1
    assert sum(latency.sums) == pytest.approx(99.0021)


async def test_the_bus_is_down_while_it_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.is_available", False)
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.buffered", 7)
    assert scraped()["sse_live_bus_up"] == 0 and scraped()["sse_live_bus_buffered_events"] == 7


async def test_entries_of_the_bus_that_cannot_be_read_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.unreadable", 3)
    assert scraped()["sse_live_bus_unreadable_events_total"] == 3
    worker = worker_of(running_hub())
    assert (await worker.report())["bus"]["unreadable"] == 3


async def test_counts_outlive_the_loop_that_counted() -> None:
    import threading

    grown = Growth()

    async def elsewhere() -> None:
        hub = running_hub()
        hub.counts.opened += 5

    thread = threading.Thread(target=asyncio.run, args=[elsewhere()])
    thread.start()
    thread.join()
    assert grown["sse_live_streams_opened_total"] == 5
    await abroadcast("a", "tick")  # finds that the loop is closed, and forgets its hub
    assert grown["sse_live_streams_opened_total"] == 5
