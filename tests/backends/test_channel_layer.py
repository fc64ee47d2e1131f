from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_sse_live.backends.base import Backend
from django_sse_live.backends.channel_layer import ChannelLayerBackend, listener, sender
from django_sse_live.events import Event
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.registry import forget_hubs
from django_sse_live.testing.backends import BackendSuite
from tests.backends.layers import Layer, Server, on
from tests.backends.redis_process import RedisProcess
from tests.clients import make_client
from tests.live.harness import until


class LayerSuite(BackendSuite):
    layers: dict[str, Any]

    async def asyncSetUp(self) -> None:
        self._settings = override_settings(CHANNEL_LAYERS=self.layers)
        self._settings.enable()
        await super().asyncSetUp()

    async def asyncTearDown(self) -> None:
        await super().asyncTearDown()
        self._settings.disable()

    def make_backend(self) -> Backend:
        return ChannelLayerBackend({"LAYER": "default"})


class OwnLayerTests(LayerSuite, IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        self.server = Server()
        self.layers = on(self.server, capacity=1000)
        await super().asyncSetUp()

    async def take_bus_away(self) -> None:
        self.server.is_away = True

    async def bring_bus_back(self) -> None:
        self.server.is_away = False


class OnRedis(LayerSuite):
    layer_class: str
    options: dict[str, Any] = {}

    @pytest.fixture(autouse=True)
    def _redis(self, redis: RedisProcess) -> None:
        self.redis = redis
        redis.command("FLUSHALL")
        self.layers = {"default": {"BACKEND": self.layer_class, "CONFIG": {"hosts": [redis.url], **self.options}}}

    async def take_bus_away(self) -> None:
        self.redis.pause()

    async def bring_bus_back(self) -> None:
        self.redis.resume()


@pytest.mark.needs("redis")
class RedisLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_redis.core.RedisChannelLayer"
    options = {"capacity": 1000}


@pytest.mark.needs("redis")
class RedisPubSubLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_redis.pubsub.RedisPubSubChannelLayer"


@pytest.mark.needs("redis")
class ValkeyPubSubLayerTests(OnRedis, IsolatedAsyncioTestCase):
    layer_class = "channels_valkey.pubsub.ValkeyPubSubChannelLayer"


# What is refused


def test_an_alias_that_does_not_exist_is_refused(settings: Any) -> None:
    settings.CHANNEL_LAYERS = on(Server())
    with pytest.raises(ImproperlyConfigured, match="default"):
        ChannelLayerBackend({"LAYER": "other"})


def test_a_layer_in_memory_is_refused_with_the_name_of_the_memory_backend(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
    with pytest.raises(ImproperlyConfigured, match=r"django_sse_live\.backends\.memory\.MemoryBackend"):
        ChannelLayerBackend({})


# What is missed, and told


class Worker:
    """A process that serves streams, with one client that says what it has heard: numbers, and ``reset``."""

    def __init__(self) -> None:
        self.backend = ChannelLayerBackend({})
        self.hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        self.heard: list[Any] = []
        self.client: Client

    async def begin(self) -> Worker:
        self.backend.attach(self.hub)
        await self.hub.filled()
        self.client = make_client(self.hub, ("c",))
        self.client.open()
        return self

    def read(self) -> list[Any]:
        while (body := self.client.take()) is not None:
            for frame in body.decode().split("\n\n"):
                if "event: reset" in frame:
                    self.heard.append("reset")
                elif "event: t\n" in frame:
                    self.heard.append(int(frame.partition("data: ")[2]))
        return self.heard

    async def hears(self, *expected: Any) -> None:
        await until(lambda: self.read() == list(expected), say=lambda: str(self.heard))


def event(number: int) -> Event:
    return Event(("c",), "t", str(number))


@pytest.fixture
def server(settings: Any) -> Iterator[Server]:
    server = Server()
    settings.CHANNEL_LAYERS = on(server)
    yield server
    forget_hubs()


@asynccontextmanager
async def processes(*, listening: int = 1, publishing: int = 0) -> AsyncIterator[list[Any]]:
    """Workers, then backends of processes that only publish."""
    forget_hubs()
    workers = [await Worker().begin() for _ in range(listening)]
    publishers = [ChannelLayerBackend({}) for _ in range(publishing)]
    try:
        yield [*workers, *publishers]
    finally:
        for backend in [*(worker.backend for worker in workers), *publishers]:
            await asyncio.to_thread(backend.close)
        forget_hubs()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds in life takes less here."""
    monkeypatch.setattr(listener, "REJOIN_SECONDS", 0.1)
    monkeypatch.setattr(listener, "PROBE_SECONDS", 0.2)
    _shorten_marks(monkeypatch)


@pytest.fixture
def quick_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, without probes: one that waits while a test holds the loop would be taken for a lost one."""
    monkeypatch.setattr(listener, "REJOIN_SECONDS", 60)
    monkeypatch.setattr(listener, "PROBE_SECONDS", 60)
    _shorten_marks(monkeypatch)


def _shorten_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "SETTLE_SECONDS", 0.5)
    monkeypatch.setattr(sender, "MARK_SECONDS", (0.1, 0.3, 0.6))
    monkeypatch.setattr(sender, "LAST_MARKS_PAUSES", (0.01, 0.01))


async def test_a_read_that_found_nothing_is_no_outage_and_no_reset(server: Server, quick: None, caplog: Any) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        server.errors += [TimeoutError("Timeout reading from localhost:6379") for _ in range(4)]
        await until(lambda: not server.errors)
        await publisher.apublish(event(2))
        await worker.hears(1, 2)
        assert worker.backend.is_available and worker.backend.outages == 0
    assert [record for record in caplog.records if record.name == "django_sse_live" and record.levelno > 20] == []


async def test_an_id_that_was_never_given_is_not_waited_for(server: Server) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        head = worker.hub.log.head
        assert await worker.backend.has_reached(worker.hub, head)
        assert not await worker.backend.has_reached(worker.hub, head + 1)


async def test_what_was_lost_in_an_outage_is_told_by_the_numbers(server: Server, quick: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        server.group.clear()
        await publisher.apublish(event(2))  # to nobody
        server.errors.append(ConnectionError("closed by server"))
        await worker.hears(1, "reset")
        await publisher.apublish(event(3))
        await worker.hears(1, "reset", 3)


async def test_an_outage_that_lost_nothing_is_no_reset(server: Server, quick: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        server.is_away = True
        await until(lambda: not worker.backend.is_available)
        server.is_away = False
        await publisher.apublish(event(2))
        await worker.hears(1, 2)
        await until(lambda: worker.backend.is_available)
        assert worker.backend.outages == 1


async def test_an_error_that_repeats_for_ever_is_not_waited_out(server: Server, quick: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        objects = server.objects
        server.is_stuck = True
        server.errors.append(RuntimeError("Two event loops are trying to receive() on one channel layer at once!"))
        await until(lambda: server.objects > objects)
        server.is_stuck = False
        await until(lambda: worker.backend.is_available)
        await worker.hears("reset")
        await publisher.apublish(event(1))
        await worker.hears("reset", 1)


async def test_a_message_that_the_layer_never_takes_is_given_up_and_told(
    server: Server, quick: None, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """Its server ends the connection over it each time, and takes all others."""
    group_send = Layer.group_send

    async def refuse_long_ones(self: Layer, group: str, message: dict[str, Any]) -> None:
        if len(message.get("data", "")) > sender.LARGE_BYTES:
            raise ConnectionError("closed by server")
        await group_send(self, group, message)

    monkeypatch.setattr(Layer, "group_send", refuse_long_ones)
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        await publisher.apublish(Event(("c",), "t", f'"{"x" * sender.LARGE_BYTES}"'))
        await publisher.apublish(event(2))
        await until(lambda: "reset" in worker.read())
        await publisher.apublish(event(3))
        await until(lambda: worker.read()[-1:] == [3])
        assert worker.heard.count("reset") == 1 and publisher.dropped == 1
    assert "never takes" in caplog.text


async def test_a_group_that_has_forgotten_its_member_is_joined_again(server: Server, quick: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        joins = server.joins
        server.lose()
        await until(lambda: server.joins > joins)
        await publisher.apublish(event(1))
        await until(lambda: worker.read()[-1:] == [1])


async def test_what_a_process_said_to_a_group_without_members_is_told_though_it_has_ended(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REJOIN_SECONDS", 0.3)
    monkeypatch.setattr(listener, "PROBE_SECONDS", 0.2)
    async with processes(publishing=1) as (worker, publisher):
        server.lose()
        await publisher.apublish(event(1))
        await asyncio.to_thread(publisher.close)
        await worker.hears("reset")


async def publish_with_the_last_unheard(publisher: Any, worker: Any, server: Server) -> None:
    await publisher.apublish(event(1))
    await worker.hears(1)
    member = server.group.pop()
    await publisher.apublish(event(2))
    server.group.add(member)


async def test_a_last_event_that_was_lost_is_told_by_the_mark_behind_it(
    server: Server, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "REJOIN_SECONDS", 60)
    async with processes(publishing=1) as (worker, publisher):
        await publish_with_the_last_unheard(publisher, worker, server)
        await worker.hears(1, "reset")


async def test_a_process_that_ends_says_its_last_number(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MARK_SECONDS", (60, 60, 60))
    async with processes(publishing=1) as (worker, publisher):
        await publish_with_the_last_unheard(publisher, worker, server)
        await asyncio.to_thread(publisher._sender._exit.end)
        await worker.hears(1, "reset")


async def test_an_event_whose_answer_was_lost_is_heard_once(server: Server) -> None:
    async with processes(publishing=1) as (worker, publisher):
        server.lost_answers = 1
        await publisher.apublish(event(1))
        await publisher.apublish(event(2))
        await worker.hears(1, 2)
        assert server.lost_answers == 0


async def test_a_mark_is_said_until_the_layer_takes_it(server: Server, quick: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(1))
        await worker.hears(1)
        member = server.group.pop()
        await publisher.apublish(event(2))
        server.is_away = True
        await until(lambda: not publisher.is_available)
        server.group.add(member)
        server.is_away = False
        await worker.hears(1, "reset")


async def test_a_burst_of_a_process_that_has_ended_is_told_though_the_channel_took_no_mark(
    server: Server, quick_marks: None
) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await until(lambda: not worker.backend._listener._probe)
        for number in range(150):
            publisher.publish(event(number))  # on the loop itself, which hears nothing meanwhile
        publisher.close()
        await worker.hears(*range(100), "reset")


async def test_a_burst_that_lost_nothing_is_no_reset(server: Server, quick_marks: None) -> None:
    async with processes(publishing=1) as (worker, publisher):
        await until(lambda: not worker.backend._listener._probe)
        for number in range(80):
            publisher.publish(event(number))
        await worker.hears(*range(80))
        await until(lambda: not worker.backend._listener._unsettled)
        await publisher.apublish(event(80))
        await worker.hears(*range(81))


async def test_resets_are_at_most_one_a_second(server: Server) -> None:
    async with processes(publishing=1) as (worker, publisher):
        begun = time.monotonic()
        for number in range(12):
            before = worker.heard.count("reset")
            await publisher.apublish(event(number))
            # On a slow machine a reset that is due may come in its place.
            await until(lambda n=number, b=before: n in worker.read() or worker.heard.count("reset") > b)
            member = server.group.pop()
            await publisher.apublish(event(-1))
            server.group.add(member)
            await asyncio.sleep(0.1)
        await until(lambda: worker.read()[-1] == "reset")
        assert 1 <= worker.heard.count("reset") <= 2 + (time.monotonic() - begun)


async def test_the_first_client_of_a_worker_is_not_reset_while_others_publish(server: Server) -> None:
    async with processes(listening=0, publishing=1) as (publisher,):
        for number in range(20):
            await publisher.apublish(event(number))
        async with processes(publishing=0) as (worker,):
            for number in range(20, 40):
                publisher.publish(event(number))  # on the loop itself, which hears nothing meanwhile
            time.sleep(0.2)  # noqa: ASYNC251  # what was sent is heard later
            await worker.hears(*range(20, 40))
            assert worker.backend._listener._losing is None  # nor is a reset due


async def test_events_that_were_dropped_are_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "WAITING_EVENTS_MAX", 3)
    async with processes(publishing=1) as (worker, publisher):
        await publisher.apublish(event(0))
        server.is_away = True
        for number in range(1, 9):
            await publisher.apublish(event(number))
        assert publisher.buffered == 3 and publisher.dropped == 5
        server.is_away = False
        await until(lambda: worker.read()[-1:] == ["reset"] or "reset" in worker.heard)
        await publisher.apublish(event(9))
        await until(lambda: 9 in worker.read() and {1, 2, 3} <= set(worker.heard))


async def test_a_message_without_what_later_versions_added_is_heard(server: Server) -> None:
    """While workers are restarted one after the other, those of the version before send too."""
    async with processes() as (worker,):
        (member,) = server.group
        old = {"from": "x", "seq": 1, "since": 0, "channels": ["c"], "event": "t", "data": "1", "text": False}
        server.channels.setdefault(member, type(server.errors)()).append({"type": "sse.live", **old})
        await worker.hears(1)
        assert worker.backend.unreadable == 0


async def test_a_message_that_cannot_be_read_is_passed_over_and_logged_once(server: Server, caplog: Any) -> None:
    async with processes(publishing=1) as (worker, publisher):
        (member,) = server.group
        good = {"from": "x", "seq": 1, "since": 0, "channels": ["c"], "event": "t", "data": "1", "patch": None}
        good["text"] = False
        malformed = [
            {},
            {"from": "x"},
            {"from": "x", "seq": "y", "since": 0},
            {"from": "x", "seq": 1, "since": 0},
            {**good, "channels": "c"},
            {**good, "channels": [{}]},
            {**good, "channels": [7]},
            {**good, "event": "t\n\ndata: x"},
            {**good, "data": 7},
            {**good, "patch": {"action": "remove"}},
            {**good, "event": "sse.disconnect", "data": "[]"},
        ]
        for nonsense in malformed:
            server.channels.setdefault(member, type(server.errors)()).append({"type": "sse.live", **nonsense})
        await publisher.apublish(event(1))
        await worker.hears(1)
        assert worker.backend.is_available
        assert worker.backend.unreadable == len(malformed)
    assert sum("cannot be read" in record.message for record in caplog.records) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# Loops


def in_thread(function: Callable[[], Any]) -> Any:
    """What it gives or raises."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return results[0]


async def test_a_second_loop_that_serves_streams_is_refused_in_clear_words(server: Server) -> None:
    async with processes() as (worker,):

        async def attach() -> None:
            worker.backend.attach(Hub(asyncio.get_running_loop(), EventLog("0")))

        refused = await asyncio.to_thread(in_thread, lambda: asyncio.run(attach()))
        assert isinstance(refused, ImproperlyConfigured) and "one event loop of a process" in str(refused)
        await worker.backend.apublish(event(1))
        await worker.hears(1)


def test_where_a_loop_has_ended_the_next_one_begins_with_a_layer_of_its_own(server: Server) -> None:
    forget_hubs()
    backend = ChannelLayerBackend({})

    async def serve(number: int) -> None:
        worker = Worker()
        worker.backend = backend
        await worker.begin()
        await backend.apublish(event(number))
        await worker.hears(number)

    asyncio.run(serve(1))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve(2))
    loop.close()  # no task hears of it
    gc.collect()  # asyncio logs that they are gone: here, and not in another test
    asyncio.run(serve(3))
    assert server.objects == 4  # the sender's, and one for each listener
    backend.close()
    forget_hubs()
    gc.collect()  # what was left of the loop that no task hears of


def test_closing_while_idle_is_silent(server: Server, capfd: Any, caplog: Any) -> None:
    backend = ChannelLayerBackend({})
    backend.publish(event(1))
    loop, thread = backend._sender._loop, backend._sender._thread
    backend.close()
    assert loop is not None and loop.is_closed()
    assert thread is not None and not thread.is_alive()
    backend.publish(event(2))  # of somebody who still had it
    assert capfd.readouterr().err == "" and caplog.records == []


def test_closing_while_the_senders_thread_starts_in_another_thread(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start
    starts, may_start = threading.Event(), threading.Event()

    def start_late(thread: threading.Thread) -> None:
        if thread.name == "sse-live-layer":
            starts.set()
            assert may_start.wait(60)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    backend = ChannelLayerBackend({})
    publishing = threading.Thread(target=backend.publish, args=(event(1),))
    publishing.start()
    assert starts.wait(60)
    backend.close()
    may_start.set()
    publishing.join()
    assert backend._sender._thread is not None
    backend._sender._thread.join()


def test_a_broadcast_of_a_finalizer_in_the_senders_own_thread_does_not_wait_for_itself(server: Server) -> None:
    backend = ChannelLayerBackend({})
    sender = backend._sender
    sender.enqueue(event(1)).result(60)
    assert sender._loop is not None and not sender.is_slow
    has_waited: Future[bool] = Future()

    def finalize() -> None:
        backend.publish(event(2))
        has_waited.set_result(sender.is_slow)

    sender._loop.call_soon_threadsafe(finalize)
    assert not has_waited.result(60)
    backend.close()


def test_where_gevent_came_after_the_start_saves_go_on_and_the_loss_is_logged_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(sender, "are_threads_green", lambda: True)
    backend = ChannelLayerBackend({})
    for number in range(3):
        backend.publish(event(number))
    assert backend.dropped == 3 and backend._sender._thread is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "cannot be used under gevent" in caplog.text
    backend.close()


async def test_where_no_thread_can_be_started_for_now_what_waits_is_sent_later(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    def fails(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with processes(publishing=1) as (worker, publisher):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            for number in range(3):
                publisher.publish(event(number))
            publisher.publish_deltas(event(0))
        assert publisher.buffered == 3 and not publisher.is_available
        assert sum("can't start new thread" in record.getMessage() for record in caplog.records) == 1
        publisher.publish(event(3))
        await worker.hears(0, 1, 2, 3)
        assert publisher.is_available and publisher.dropped == 0


@pytest.mark.needs("redis")
async def test_a_quiet_stream_on_redis_is_not_reset_when_reads_time_out(
    redis: RedisProcess, settings: Any, caplog: Any
) -> None:
    redis.command("FLUSHALL")
    address = {"address": redis.url, "socket_timeout": 0.3}  # shorter than the layer's blocking read
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [address]}}
    }
    caplog.set_level("DEBUG", logger="django_sse_live")
    async with processes(publishing=1) as (worker, publisher):
        await until(lambda: sum("receive() failed" in record.message for record in caplog.records) >= 4)
        await publisher.apublish(event(1))
        await worker.hears(1)
        assert worker.backend.is_available and worker.backend.outages == 0
    assert [record for record in caplog.records if record.name == "django_sse_live" and record.levelno > 20] == []
