"""What was revoked is kept apart from events: who begins later knows it, however many events came since."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from django_sse_live.backends.base import Backend
from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.backends.redis import stream_writer
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.events import CONTROL_CHANNEL, LOST_EVENTS, REVOKE, Event, control_event
from django_sse_live.hub import recent_ends
from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.recent_ends import Revocations
from tests.backends.redis_process import RedisProcess
from tests.clients import make_client
from tests.live.harness import until


def revocation(**conditions: str) -> Event:
    return control_event(REVOKE, conditions)


ADA = ClientInfo(("a",), user_pk="1", auth="old")
EVE = ClientInfo(("a",), user_pk="2", auth="old")


async def begun(backend: Backend) -> Hub:
    hub = Hub(asyncio.get_running_loop(), EventLog("0"))
    backend.attach(hub)
    await hub.filled()
    assert hub.is_ready and hub.revocations is not None
    return hub


async def publish(backend: Backend, hub: Hub, *events: Event) -> int:
    """Where the log is once the hub has obeyed them all."""
    for event in events:
        await backend.apublish(event)
    last = Event(("news",), "last", json.dumps(secrets.token_hex(8)))
    await backend.apublish(last)
    # By its payload: a publisher whose answer was late does not know the id.
    await until(lambda: (newest := hub.log.newest(("news",), hub.log.head)) and newest.payload == last.payload)
    return hub.log.head


def concerns(hub: Hub, info: ClientInfo, since: int) -> bool:
    assert hub.revocations is not None
    return hub.revocations.concern(info, since + 1)


async def test_in_memory_a_hub_that_begins_later_knows_them() -> None:
    backend = MemoryBackend({})
    backend.publish(Event(("news",), "x", "{}"))
    before = backend._log.head
    backend.publish(revocation(user_pk="1", not_auth="new"))
    hub = await begun(backend)
    assert concerns(hub, ADA, before) and not concerns(hub, EVE, before)
    assert not concerns(hub, ADA, hub.log.head)


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as redis:
        yield redis


@pytest.mark.needs("redis")
class TestRedis:
    @pytest.fixture
    async def make(self, redis: RedisProcess) -> AsyncIterator[Any]:
        made: list[RedisStreamsBackend] = []

        def make() -> RedisStreamsBackend:
            made.append(RedisStreamsBackend({"URL": redis.url, "MAXLEN": 100}))
            return made[-1]

        yield make
        for backend in made:
            backend.close()

    @pytest.fixture
    def client(self, redis: RedisProcess) -> Any:
        from redis import Redis

        return Redis.from_url(redis.url, decode_responses=True)

    async def test_they_outlast_the_events_of_the_stream(self, make: Any, client: Any) -> None:
        backend = make()
        hub = await begun(backend)
        before = await publish(backend, hub)
        after = await publish(backend, hub, revocation(user_pk="1", not_auth="new"))
        await publish(backend, hub, *(Event(("busy",), "x", "{}") for _ in range(500)))
        assert client.xlen("sse_live") < 300
        later = await begun(make())
        for known in (hub, later):
            assert concerns(known, ADA, before) and not concerns(known, ADA, after)
            assert not concerns(known, EVE, before)
        assert abs(later.clock_ms() - 1000 * time.time()) < 5_000

    @pytest.mark.parametrize("has_read", [True, False], ids=["", "and had read nothing"])
    async def test_they_end_the_streams_of_a_worker_that_stood_still_until_they_were_trimmed(
        self, make: Any, client: Any, has_read: bool
    ) -> None:
        publisher, hub = make(), await begun(make())
        if has_read:
            await publish(publisher, hub)
        ada, eve = make_client(hub, user_pk="1", auth="old"), make_client(hub, user_pk="2", auth="old")
        for each in (ada, eve):
            each.open()
        client.client_kill_filter(_type="normal", skipme=True)  # no read is under way
        publisher.publish(revocation(user_pk="1", not_auth="new"))
        for _ in range(500):
            publisher.publish(Event(("busy",), "x", "{}"))
        while not client.exists("sse_live") or client.xinfo_stream("sse_live")["entries-added"] < 501 + has_read:
            time.sleep(0.01)  # noqa: ASYNC251  # the worker, which is this loop, stands still
        await until(lambda: ada.close_reason == "revoked")
        assert eve.is_open and b"event: reset" in (eve.take() or b"") + (eve.take() or b"")
        for each in (ada, eve):
            each.leave()

    async def test_of_the_same_only_the_newest_is_kept(self, make: Any, client: Any) -> None:
        backend = make()
        hub = await begun(backend)
        await publish(backend, hub, *(revocation(user_pk="1", not_auth="same") for _ in range(50)))
        assert client.hlen("{sse_live}:revoked") == 2  # and the since
        between = await publish(backend, hub)
        await publish(backend, hub, revocation(user_pk="1", not_auth="same"))
        assert concerns(await begun(make()), ADA, between)

    async def test_what_is_too_old_goes_and_is_known_to_be_gone(
        self, make: Any, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backend = make()
        hub = await begun(backend)
        before = await publish(backend, hub, revocation(user_pk="1"))
        await publish(backend, hub, revocation(user_pk="3"))
        monkeypatch.setattr(stream_writer, "kept_milliseconds", lambda: 20)
        await asyncio.sleep(0.1)
        after = await publish(backend, hub, revocation(user_pk="2"))
        later = await begun(make())
        assert concerns(later, ClientInfo(("x",)), before)  # nobody knows what was revoked since
        assert not concerns(later, ClientInfo(("x",)), after)
        assert client.hlen("{sse_live}:revoked") == 2  # and the since

    async def test_where_events_were_given_up_one_may_have_been_a_revocation(self, make: Any) -> None:
        backend = make()
        hub = await begun(backend)
        before = await publish(backend, hub)
        after = await publish(backend, hub, Event((CONTROL_CHANNEL,), LOST_EVENTS, "{}"))
        for known in (hub, await begun(make())):
            assert concerns(known, EVE, before) and not concerns(known, EVE, after)

    async def test_where_redis_has_forgotten_them_nothing_older_is_known(self, make: Any, client: Any) -> None:
        backend = make()
        hub = await begun(backend)
        before = await publish(backend, hub, revocation(user_pk="1"))
        client.delete("{sse_live}:revoked")
        after = await publish(backend, hub, revocation(user_pk="1"))
        later = await begun(make())
        assert concerns(later, EVE, before) and not concerns(later, EVE, after)

    async def test_a_stream_begun_anew_begins_anew_with_them(self, make: Any, client: Any) -> None:
        backend = make()
        hub = await begun(backend)
        await publish(backend, hub, revocation(user_pk="1"))
        client.set("{sse_live}:epoch", "another")
        await until(lambda: hub.log.epoch == "another")
        assert client.hget("{sse_live}:revoked", "since").startswith("another:")
        assert concerns(hub, ADA, 5)

    async def test_what_cannot_be_read_is_anybodys(self, make: Any, client: Any) -> None:
        hub = await begun(make())
        client.hset("{sse_live}:revoked", '{"of": "a newer version"}', f"{int(time.time() * 1000)}-0")
        before = hub.log.head
        assert concerns(await begun(make()), EVE, before)

    @pytest.mark.parametrize("field", ["[" * 100_000, b"\xff", "[]", "7"], ids=["deep", "bytes", "list", "number"])
    async def test_nonsense_among_them_keeps_no_worker_from_starting(self, make: Any, client: Any, field: Any) -> None:
        hub = await begun(make())
        client.hset("{sse_live}:revoked", field, f"{int(time.time() * 1000)}-0")
        before = hub.log.head
        assert concerns(await begun(make()), EVE, before)

    @pytest.mark.parametrize("name", ["revoked", "revoked:times"])
    async def test_a_key_of_another_type_holds_back_no_event(self, make: Any, client: Any, name: str) -> None:
        backend = make()
        hub = await begun(backend)
        keys = {"revoked": backend.stream.revoked_key, "revoked:times": backend.stream.revoked_times_key}
        client.set(keys[name], "of somebody else")
        await publish(backend, hub, revocation(user_pk="1"))
        assert backend.is_available and not backend.buffered


class TestBounds:
    def test_who_is_forgotten_makes_older_tickets_useless(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(recent_ends, "REVOKED_KEYS_MAX", 3)
        known = Revocations(0, [(number << 64, {"user_pk": str(number)}) for number in range(1, 6)])
        stranger = ClientInfo(("x",))
        assert known.concern(stranger, 2 << 64) and not known.concern(stranger, (2 << 64) + 1)

    def test_two_marks_of_one_user_do_not_hide_each_other(self) -> None:
        known = Revocations(0, [(5, {"user_pk": "1", "not_auth": "new"}), (7, {"user_pk": "1", "not_auth": "old"})])
        assert known.concern(ADA, 4) and not known.concern(ADA, 6)
