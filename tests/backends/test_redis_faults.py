"""Ways in which Redis, or what is kept in it, goes wrong besides being away."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from django.test import override_settings
from redis.retry import Retry

from django_sse_live.backends.redis import reader
from django_sse_live.backends.redis.entries import FIELD, encode_entry
from django_sse_live.backends.redis.server import RedisServer
from django_sse_live.events import Event
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.workers import REPORT
from tests.backends.redis_process import RedisProcess, free_port
from tests.backends.test_redis_details import (
    Listener,
    Make,
    data_of,
    event,
    heard,
    hub_of,
    make,
    opened,
    server,
    stream,
)
from tests.live.harness import until

__all__ = ["make", "server", "stream"]  # fixtures

pytestmark = pytest.mark.needs("redis")


# A cluster of which nodes are gone


def cluster_port() -> int:
    """Free, as is the one 10,000 above it, on which the nodes of a cluster talk."""
    while (port := free_port()) > 55_000:
        pass
    return port


@pytest.fixture
def cluster() -> Iterator[tuple[RedisProcess, RedisProcess]]:
    """(the node that has every slot, a node that has none)"""
    arguments = ("--cluster-enabled", "yes")
    with (
        RedisProcess(port=cluster_port(), aof=True, arguments=arguments) as full,
        RedisProcess(port=cluster_port(), arguments=arguments) as empty,
    ):
        full.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        empty.command("CLUSTER", "MEET", "127.0.0.1", str(full.port))
        for node in (full, empty):
            until_ok(node)
        yield full, empty


def until_ok(node: RedisProcess) -> None:
    end = time.monotonic() + 90
    while b"cluster_state:ok" not in node.command("CLUSTER", "INFO"):
        assert time.monotonic() < end
        time.sleep(0.05)


async def test_a_cluster_that_was_away_is_found_again(
    cluster: tuple[RedisProcess, RedisProcess], make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    full, empty = cluster
    backend = make(URL=f"redis+cluster://127.0.0.1:{full.port}", STREAM="sse_live")
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    full.kill()
    empty.kill()
    await until(lambda: not backend.is_available)
    await backend.apublish(event(2))
    assert make(URL=f"redis+cluster://127.0.0.1:{full.port}").position() == "0:0-0"
    full.start()
    until_ok(full)
    await backend.apublish(event(3))
    await until(lambda: len(hub.log) == 3)
    assert [e.data for e in hub.log.read(("c",), 0)] == [1, 2, 3]
    ours = [record for record in caplog.records if record.name.startswith("django_sse_live")]
    assert not [record for record in ours if record.levelno > logging.WARNING]


async def test_the_node_that_the_url_names_may_go(cluster: tuple[RedisProcess, RedisProcess], make: Make) -> None:
    full, empty = cluster
    backend = make(URL=f"redis+cluster://127.0.0.1:{empty.port}", STREAM="sse_live")
    hub = await hub_of(backend)
    empty.kill()
    full.command("CLIENT", "KILL", "TYPE", "normal")
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)


def test_a_url_may_name_several_hosts() -> None:
    server = RedisServer("redis+cluster://:secret@one:7000,[::1]:7001,three", "key")
    assert str(server) == "one:7000,::1:7001,three:6379"
    assert str(RedisServer("redis+sentinel://[::1]:1,two/mymaster", "key")) == "::1:1,two:26379"


def test_tls_is_for_the_sentinels_too() -> None:
    server = RedisServer("rediss+sentinel://host:26379/mymaster?ssl_ca_certs=/ca.pem&sentinel_username=u", "key")
    [sentinel] = server._sentinel(redis_py.Sentinel, Retry).sentinels
    assert sentinel.connection_pool.connection_class is redis_py.SSLConnection
    options = sentinel.connection_pool.connection_kwargs
    assert (options["ssl_ca_certs"], options["username"]) == ("/ca.pem", "u")


async def test_a_sentinel_that_is_silent_is_waited_for_once(make: Make, redis: RedisProcess) -> None:
    """Its machine is gone, and nothing refuses the connection."""
    watching = RedisProcess()
    config = Path(watching.directory.name, "sentinel.conf")
    config.write_text(  # noqa: ASYNC240
        f"port {watching.port}\nbind 127.0.0.1\nsentinel monitor live 127.0.0.1 {redis.port} 1\n"
    )
    watching._arguments = [str(config), "--sentinel"]
    with watching, socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{watching.port}"
        server = RedisServer(f"redis+sentinel://{hosts}/live", "key")
        asked = [server.address(), server.address(), await server.aaddress()]
        assert asked == [("127.0.0.1", redis.port)] * 3
        server = RedisServer(f"redis+sentinel://{hosts}/live", "key")
        assert [await server.aaddress(), await server.aaddress(), server.address()] == asked
        silent.settimeout(0)
        for _ in range(2):
            silent.accept()
        with pytest.raises(BlockingIOError):
            silent.accept()


async def test_sentinels_that_know_no_master_are_named_without_their_password() -> None:
    """redis-py writes its clients into the error, in some versions with all that they were given."""
    server = RedisServer(f"redis+sentinel://127.0.0.1:{free_port()}/live?sentinel_password=secret", "key")
    with pytest.raises(redis_py.ConnectionError, match=r"127\.0\.0\.1:\d+ .*'live'") as error:
        server.address()
    with pytest.raises(redis_py.ConnectionError, match=r"127\.0\.0\.1:\d+ .*'live'") as async_error:
        await server.aaddress()
    for each in (error.value, async_error.value):
        assert "<redis." not in "".join(traceback.format_exception(each))


# What a stream no longer has


async def test_a_reader_that_falls_behind_the_stream_tells_its_clients(make: Make) -> None:
    backend, elsewhere = make(MAXLEN=100), make(MAXLEN=100)
    hub = await hub_of(backend)
    listener = Listener(hub)
    await backend.apublish(event("first"))
    await until(lambda: listener.heard() == ["first"])

    def publish() -> None:
        for number in range(1000):
            elsewhere.publish(event(number))
        while elsewhere.buffered:
            time.sleep(0.005)

    thread = threading.Thread(target=publish)
    thread.start()
    thread.join()  # the loop stands still meanwhile, as by a slow sync call in an async view
    await until(lambda: listener.resets)
    await backend.apublish(event("live"))
    await until(lambda: "live" in listener.heard())


async def test_a_stream_that_was_deleted_alone_leaves_no_silent_gap(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await backend.apublish(event(2))
    await until(lambda: len(hub.log) == 2)
    first = hub.log.read(("c",), 0)[0]
    server.delete(stream)
    await backend.apublish(event(3))
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)][-1:] == [3])
    other = make()
    resumed = heard(await opened(other, await hub_of(other), first.id))
    assert "event: reset" in resumed and '"resumed":true' not in resumed
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 1}):
        await backend.apublish(event(4))
        await until(lambda: len(hub.log) == 1)
        assert "event: reset" in heard(await opened(backend, hub, first.id))


async def test_an_entry_sent_again_is_not_replayed_to_who_had_it(make: Make, server: Any, stream: str) -> None:
    backend = make()
    twice = encode_entry(event("paid"), "publisher", 1)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 3}):
        hub = await hub_of(backend)
        server.xadd(stream, {FIELD: twice})
        server.xadd(stream, {FIELD: twice})
        await until(lambda: len(hub.log) == 1)
        last_id = hub.log.read(("c",), 0)[0].id
        for number in range(5):
            server.xadd(stream, {FIELD: encode_entry(event(number), "publisher", 2 + number)})
        await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == [2, 3, 4])
        assert data_of(heard(await opened(backend, hub, last_id))) == [0, 1, 2, 3, 4]
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 6}):  # the log of a new worker begins with the second
        other = make()
        assert data_of(heard(await opened(other, await hub_of(other), last_id))) == [0, 1, 2, 3, 4]


# Who asks, and who publishes


async def test_pages_do_not_wait_for_each_other_while_redis_is_paused(
    make: Make, redis: RedisProcess, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make()
    known = backend.position()
    redis.pause()
    try:
        began = time.monotonic()
        assert await asyncio.gather(*(asyncio.to_thread(backend.position) for _ in range(8))) == [known] * 8
        assert time.monotonic() - began < 8 * 0.9  # one answer that did not come
    finally:
        redis.resume()
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


async def test_an_event_is_sent_though_its_request_is_cancelled(make: Make, redis: RedisProcess) -> None:
    backend = make()
    hub = await hub_of(backend)
    redis.pause()
    try:
        first = asyncio.create_task(backend.apublish(event(1)))
        second = asyncio.create_task(backend.apublish(event(2)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
    finally:
        redis.resume()
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == [1, 2])


def test_a_loop_that_ends_during_an_outage_does_not_leave_it_behind(redis: RedisProcess) -> None:
    from django_sse_live.backends.redis_streams import RedisStreamsBackend

    own = RedisProcess()
    own.start()
    backend = RedisStreamsBackend({"URL": own.url, "STREAM": "sse_" + secrets.token_hex(4), "EXIT_SECONDS": 0})
    own.kill()

    async def short() -> None:
        backend.attach(Hub(asyncio.get_running_loop(), EventLog("0")))
        await until(lambda: not backend.is_available)

    try:
        asyncio.run(short())
        assert backend.is_available and backend.outages == 1
    finally:
        backend.close()
        own.directory.cleanup()


# What is worth nothing later


async def test_a_read_url_that_leads_to_no_replica_is_told(
    make: Make, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such as another database of the same server."""
    monkeypatch.setattr(reader, "REPLICA_SECONDS", 0.2)
    backend = make(READ_URL=redis.url.replace("/0", "/1"))
    hub = Hub(asyncio.get_running_loop(), EventLog("0"))
    backend.attach(hub)
    await until(lambda: not backend.is_available)
    assert "READ_URL" in caplog.text and not hub.is_ready


async def test_what_workers_tell_each_other_is_heard_of_a_redis_whose_clock_is_behind(
    make: Make, server: Any, stream: str
) -> None:
    """Another one has taken over, without the data of the first."""
    backend = make()
    hub = await hub_of(make())
    reports: list[Any] = []
    hub.handlers[REPORT] = reports.append
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    report = Event(("sse.control",), REPORT, '{"number": 1}')
    of_then = f"{1000 * (int(time.time()) + 3600)}-0"
    server.xadd(backend.stream.now_name, {FIELD: encode_entry(report, "p", 0)}, id=of_then)
    await until(lambda: len(reports) == 1)
    epoch = hub.log.epoch
    server.delete(*server.keys(f"*{stream}*"))
    await until(lambda: hub.log.epoch != epoch)
    await until(lambda: backend.publish(report) or len(reports) > 1)


async def test_what_workers_tell_each_other_of_the_moment_takes_no_room_from_the_history(
    make: Make, server: Any, stream: str
) -> None:
    backend, elsewhere = make(MAXLEN=100), make(MAXLEN=100)
    hub, other = await hub_of(backend), await hub_of(elsewhere)
    reports: list[Any] = []
    other.handlers[REPORT] = reports.append
    await backend.apublish(event(1))

    def report(number: int) -> None:
        backend.publish(Event(("sse.control",), REPORT, json.dumps({"number": number, "streams": "x" * 1000})))

    def is_heard(number: int) -> bool:
        if not reports or reports[-1]["number"] < number:
            report(number)  # where Redis is slow to answer, they are not kept for it
        return bool(reports and reports[-1]["number"] == number)

    for number in range(700):
        report(number)
        if number % 100 == 99:
            await until(lambda number=number: is_heard(number))
    numbers = [each["number"] for each in reports]
    assert numbers == sorted(numbers) and set(range(99, 700, 100)) <= set(numbers)
    assert server.xlen(stream) == 1 and server.xlen(backend.stream.now_name) < 700
    await backend.apublish(event(2))
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == [1, 2])
    late = await hub_of(make())
    assert [e.data for e in late.log.read(("c",), 0)] == [1, 2]


async def test_what_is_worth_nothing_later_does_not_wait_for_redis(make: Make, redis: RedisProcess) -> None:
    backend = make(BUFFER_EVENTS=6)
    hub = await hub_of(backend)
    await backend.apublish(event("first"))
    await until(lambda: not backend.buffered)
    redis.pause()
    try:
        backend.publish(event("noticed"))
        for number in range(5):
            backend.publish(Event(("sse.control",), REPORT, "{}"))
            backend.publish(event(number))
    finally:
        redis.resume()
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == ["first", "noticed", 0, 1, 2, 3, 4])
    assert backend.dropped == 0
