"""What the Redis backend does beyond what every backend does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
import redis as redis_py
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_sse_live.backends import replace_backend, replay_history
from django_sse_live.backends.redis.entries import read_id
from django_sse_live.backends.redis.server import RedisServer
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.events import DISCONNECT, Event, parse_id
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.registry import forget_hubs
from tests.backends.redis_process import RedisProcess
from tests.clients import make_client
from tests.live.harness import until

pytestmark = pytest.mark.needs("redis")

Make = Callable[..., RedisStreamsBackend]


@pytest.fixture
def server(redis: RedisProcess) -> Iterator[Any]:
    client = redis_py.Redis(port=redis.port)
    yield client
    client.close()


@pytest.fixture
def stream() -> str:
    return "sse_live_" + secrets.token_hex(4)


@pytest_asyncio.fixture
async def make(redis: RedisProcess, stream: str) -> AsyncIterator[Make]:
    made: list[RedisStreamsBackend] = []

    def make(**options: Any) -> RedisStreamsBackend:
        backend = RedisStreamsBackend({"URL": redis.url, "STREAM": stream, **options})
        made.append(backend)
        return backend

    forget_hubs()
    before = replace_backend(None)
    yield make
    for backend in made:
        await asyncio.to_thread(backend.close)
    replace_backend(before)
    forget_hubs()


async def hub_of(backend: RedisStreamsBackend) -> Hub:
    hub = Hub(asyncio.get_running_loop(), EventLog("0"))
    backend.attach(hub)
    await hub.filled()
    return hub


async def taken(backend: RedisStreamsBackend, events: list[Event]) -> None:
    """Wait until Redis has these events, its last ones, and write their ids on them: a publisher whose answer was late
    does not know them."""
    await until(lambda: not backend.buffered)
    client = backend.stream.server.connect(10.0)
    epoch = client.get(backend.stream.epoch_key).decode()
    found = client.xrevrange(backend.stream.name, count=len(events))
    for sent, (entry_id, _) in zip(reversed(events), found, strict=True):
        sent.stamp(epoch, read_id(entry_id))
    client.close()


def event(data: Any, type: str = "t") -> Event:
    return Event(("c",), type, json.dumps(data))


def heard(client: Client) -> str:
    text = b""
    while (body := client.take()) is not None:
        text += body
    return text.decode()


def data_of(text: str) -> list[Any]:
    return [json.loads(part.split("data: ")[1]) for part in text.split("\n\n") if "event: t\n" in part]


async def opened(backend: RedisStreamsBackend, hub: Hub, last_id: str) -> Client:
    """As the view does it."""
    place = parse_id(last_id)
    assert place is not None
    client = make_client(hub, ("c",), last_id=place)
    if client.needs_history:
        replace_backend(backend)
        await replay_history(client)
    client.open()
    return client


class Listener:
    """A client, and all that it was sent so far."""

    def __init__(self, hub: Hub, client: Client | None = None) -> None:
        self.client = client or make_client(hub, ("c",))
        if client is None:
            self.client.open()
        self.text = ""

    def heard(self) -> list[Any]:
        self.text += heard(self.client)
        return data_of(self.text)

    @property
    def resets(self) -> int:
        self.text += heard(self.client)
        return self.text.count("event: reset")


async def filled(make: Make, count: int, payload: str = "") -> tuple[RedisStreamsBackend, Hub, list[Event]]:
    backend = make()
    events = [event([number, payload] if payload else number) for number in range(count)]
    hub = await hub_of(backend)
    await asyncio.to_thread(lambda: [backend.publish(e) for e in events])
    await taken(backend, events)
    await until(lambda: hub.log.head == events[-1].position and len(hub.log) == 10)
    return backend, hub, events


async def test_an_entry_that_stands_in_the_stream_twice_is_heard_once(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    backend.publish(event(1))
    await until(lambda: not backend.buffered)
    [(_, fields)] = server.xrange(stream)
    server.xadd(stream, fields)
    backend.publish(event(2))
    await until(lambda: len(hub.log) >= 2)
    other = await hub_of(make())
    for log in (hub.log, other.log):
        assert [e.data for e in log.read(("c",), 0)] == [1, 2]


async def test_what_has_left_the_log_is_read_from_redis(make: Make) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 450)
        client = await opened(backend, hub, events[5].id)
        text = heard(client)
        assert '"resumed":true' in text and "event: reset" not in text
        assert data_of(text) == list(range(6, 450))
        ids = [line for line in text.split("\n") if line.startswith("id: ")]
        assert ids == [f"id: {e.id}" for e in events[6:]]
        backend.publish(event("live"))
        await until(lambda: data_of(heard(client)) == ["live"])


async def test_what_was_read_for_one_serves_those_who_come_with_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        connects = 0
        aconnect = backend.stream.read_server.aconnect

        async def counted(timeout: float) -> Any:
            nonlocal connects
            connects += 1
            return await aconnect(timeout)

        monkeypatch.setattr(backend.stream.read_server, "aconnect", counted)
        clients = await asyncio.gather(*(opened(backend, hub, events[5 + n].id) for n in range(20)))
        assert [data_of(heard(client)) for client in clients] == [list(range(6 + n, 60)) for n in range(20)]
        assert connects == 1


async def test_what_has_left_redis_too_is_told_by_a_reset(make: Make, server: Any, stream: str) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        server.xtrim(stream, maxlen=30, approximate=False)
        text = heard(await opened(backend, hub, events[5].id))
        assert '"reason":"history_expired"' in text and not data_of(text)
        assert data_of(heard(await opened(backend, hub, events[35].id))) == list(range(36, 60))


async def test_a_new_worker_fills_its_log_within_its_bounds(make: Make) -> None:
    backend = make()
    events = [event(number) for number in range(250)]
    for e in events:
        backend.publish(e)
    await until(lambda: not backend.buffered)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 130}):
        hub = await hub_of(make())
        await taken(backend, events)
        assert [e.data for e in hub.log.read(("c",), events[119].position)] == list(range(120, 250))
        assert not hub.log.lost(("c",), events[119].position)
        assert hub.log.lost(("c",), events[118].position)


async def test_no_stream_opens_before_the_log_is_filled(make: Make, redis: RedisProcess) -> None:
    redis.pause()
    try:
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        make().attach(hub)
        client = make_client(hub, ("c",))
        client.open()
        assert '"reason":"not_ready","reconnect":true' in heard(client)
    finally:
        redis.resume()
    await hub.filled()
    client = make_client(hub, ("c",))
    client.open()
    assert client.is_open


async def test_a_stream_that_has_lost_what_was_read_is_another_stream(make: Make, server: Any, stream: str) -> None:
    """As after a failover to a replica that lagged behind."""
    backend = make()
    hub = await hub_of(backend)
    for number in range(5):
        backend.publish(event(number))
    await until(lambda: len(hub.log) == 5)
    listener, epoch = Listener(hub), hub.log.epoch
    last = server.xrevrange(stream, count=1)[0][0]
    server.xdel(stream, last)
    server.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: hub.log.epoch != epoch)
    backend.publish(event("live"))
    await until(lambda: listener.heard() == ["live"])
    assert listener.resets == 1


async def test_a_connection_that_breaks_loses_nothing_and_tells_nobody(make: Make, server: Any) -> None:
    backend = make()
    hub = await hub_of(backend)
    listener = Listener(hub)
    for number in range(40):
        if number % 10 == 5:
            server.client_kill_filter(_type="normal", skipme=True)
        await asyncio.to_thread(backend.publish, event(number))
    await until(lambda: len(listener.heard()) >= 40)
    assert listener.heard() == list(range(40)) and not listener.resets


async def test_a_reader_that_was_away_for_longer_than_the_stream_goes_back_has_a_gap(
    make: Make, server: Any, stream: str
) -> None:
    backend = make()
    hub = await hub_of(backend)
    backend.publish(event(0))
    await until(lambda: len(hub.log) == 1)
    listener, epoch = Listener(hub), hub.log.epoch
    # Everything at once, so that nothing of it is read in between.
    fields = server.xrange(stream)[0][1][b"event"].replace(b'"seq":1', b'"seq":%d')
    pipeline = server.pipeline()
    for number in range(2, 22):
        pipeline.xadd(stream, {"event": fields % number})
    pipeline.xtrim(stream, maxlen=5, approximate=False)
    server.client_kill_filter(_type="normal", skipme=True)
    pipeline.execute()
    # Either it was quick enough to see them all, or it tells.
    await until(lambda: listener.resets or len(listener.heard()) == 20)
    assert hub.log.epoch == epoch


async def test_a_control_event_issued_while_redis_was_away_is_obeyed(make: Make, redis: RedisProcess) -> None:
    backend = make()
    hub = await hub_of(backend)
    client = make_client(hub, ("c",), user_pk="7")
    client.open()
    redis.pause()
    try:
        await asyncio.to_thread(backend.publish, Event(("sse.control",), DISCONNECT, '{"user_pk": "7"}'))
        assert client.is_open
    finally:
        redis.resume()
    await until(lambda: client.close_reason == "disconnected")


async def test_a_control_event_that_was_obeyed_is_not_obeyed_again_in_another_epoch(
    make: Make, server: Any, stream: str
) -> None:
    """disconnect_clients() is no ban: who has come back since stays, though Redis has lost what came after it."""
    backend = make()
    hub = await hub_of(backend)
    backend.publish(Event(("sse.control",), DISCONNECT, '{"user_pk": "7"}'))
    backend.publish(event("lost"))
    await until(lambda: len(hub.log) == 1)
    epoch = hub.log.epoch
    listener = Listener(hub, make_client(hub, ("c",), user_pk="7"))
    listener.client.open()
    server.xdel(stream, server.xrevrange(stream, count=1)[0][0])
    server.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: hub.log.epoch != epoch)
    backend.publish(event("live"))
    await until(lambda: listener.heard() == ["live"])
    assert listener.client.is_open and listener.resets == 1


async def test_the_first_event_of_a_redis_that_was_emptied_is_obeyed(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    client = make_client(hub, ("c",), user_pk="7")
    client.open()
    server.delete(stream, backend.stream.epoch_key)
    backend.publish(Event(("sse.control",), DISCONNECT, '{"user_pk": "7"}'))
    await until(lambda: client.close_reason == "disconnected")


async def test_a_fork_has_connections_and_a_sequence_of_its_own(redis: RedisProcess, stream: str) -> None:
    from django_sse_live import broadcast
    from django_sse_live.backends import get_backend

    settings = {
        "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
        "OPTIONS": {"URL": redis.url, "STREAM": stream},
    }
    with override_settings(SSE_LIVE=settings):
        broadcast("c", "t", "before", on_commit=False)
        await until(lambda: get_backend().buffered == 0)
        child = os.fork()
        if child == 0:
            broadcast("c", "t", "child", on_commit=False)
            get_backend().close()  # waits for the answer
            os._exit(get_backend().buffered)
        broadcast("c", "t", "parent", on_commit=False)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
        hub = await hub_of(get_backend())
        assert {e.data for e in hub.log.read(("c",), 0)} == {"before", "child", "parent"}


async def test_one_warning_and_one_info_for_one_outage(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_sse_live")
    with RedisProcess(aof=True) as redis:
        backend = make(URL=redis.url)
        hub = await hub_of(backend)
        backend.publish(event(0))
        redis.kill()
        for number in range(1, 20):
            await asyncio.to_thread(backend.publish, event(number))
        await until(lambda: not backend.is_available)
        redis.start()
        await until(lambda: len(hub.log) == 20 and backend.is_available)
        assert [e.data for e in hub.log.read(("c",), 0)] == list(range(20))
        assert backend.outages == 1

        def lines() -> list[tuple[str, str]]:
            return [(r.levelname, r.message.split(" (")[0]) for r in caplog.records if "SSE bus" in r.message]

        await until(lambda: len(lines()) == 2)  # it is back a moment before that is said
        assert lines() == [("WARNING", "SSE bus lost"), ("INFO", "SSE bus is back")]
        await asyncio.to_thread(backend.close)


async def test_a_position_is_known_or_asked_for_or_safe(make: Make, redis: RedisProcess) -> None:
    backend = make()
    assert backend.known_position() is None
    backend.publish(event(1))
    await until(lambda: not backend.buffered)
    asked = backend.position()
    hub = await hub_of(backend)
    assert backend.known_position() == asked == hub.log.head_id
    nowhere = make(URL="redis://127.0.0.1:1/0")
    assert nowhere.position() == "0:0-0"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"URL": "http://localhost"}, "URL"),
        ({"URL": None}, "URL"),
        ({"URL": "redis+sentinel://host1:26379"}, "master"),
        ({"STREAM": ""}, "STREAM"),
        ({"MAXLEN": 5}, "MAXLEN"),
        ({"MAXLEN": "many"}, "MAXLEN"),
        ({"MAXBYTES": 5}, "MAXBYTES"),
        ({"BUFFER_EVENTS": 0}, "BUFFER_EVENTS"),
        ({"BUFFER_FULL": "explode"}, "BUFFER_FULL"),
        ({"EXIT_SECONDS": -1}, "EXIT_SECONDS"),
        ({"URI": "redis://localhost"}, "'URI'"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=match):
        RedisStreamsBackend(options)


def test_a_password_is_shown_nowhere() -> None:
    assert "secret" not in str(RedisServer("redis://user:secret@host:6380/1", "s"))


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:secret@host",
        "redis://:secret/x@host:6379/0",  # one that is not quoted is read as a port, and a path
        "redis://:secret#x@host:6379/0",
        "redis://:secret?x@host:6379/0",
        "redis://user:sec@secret@host:port/0",
        "redis://host/0?password=secret&db=first",
        "redis+sentinel://h1,h2?sentinel_password=secret",
    ],
)
def test_nor_is_one_in_the_error_of_a_bad_url(url: str) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        RedisServer(url, "s")
    assert "secret" not in "".join(traceback.format_exception(error.value))
    assert ("%2F" in str(error.value)) == ("@" in url)
