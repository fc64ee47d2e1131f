"""What Redis acknowledged and lost, was sent twice, refused, or holds malformed: heard once, or told."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from django.test import override_settings

from django_sse_live.backends.redis import history, outbox
from django_sse_live.backends.redis.entries import FIELD, Decoder, Seen, encode_entry
from django_sse_live.backends.redis.server import RedisServer
from django_sse_live.backends.redis.stream_writer import StreamWriter
from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.events import DISCONNECT, Event, parse_id
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from tests.backends.redis_process import RedisProcess
from tests.backends.test_redis_details import (
    Listener,
    Make,
    data_of,
    event,
    filled,
    heard,
    hub_of,
    make,
    opened,
    server,
    stream,
    taken,
)
from tests.clients import make_client
from tests.live.harness import until

__all__ = ["make", "server", "stream"]  # fixtures

pytestmark = pytest.mark.needs("redis")

ROOT = Path(__file__).parents[2]


def all_data(server: Any, stream: str) -> list[Any]:
    return [json.loads(fields[b"event"].split(b"\n")[1]) for _, fields in server.xrange(stream)]


# Acknowledged, and lost


async def test_what_redis_acknowledged_and_lost_is_sent_again(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    for number in range(5):
        await backend.apublish(event(number))
    await until(lambda: len(hub.log) == 5)
    listener = Listener(hub)
    # As a replica that was promoted too early: it lacks the last two, and what counts them.
    [key] = server.keys(f"{{{stream}}}:????????????")
    for entry_id, _ in server.xrevrange(stream, count=2):
        server.xdel(stream, entry_id)
    server.set(key, 3)
    server.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: all_data(server, stream) == [0, 1, 2, 3, 4])
    await until(lambda: listener.resets == 1)  # the ids that this worker has read are gone
    await backend.apublish(event("live"))
    await until(lambda: listener.heard()[-1:] == ["live"])
    assert listener.resets == 1


async def test_nothing_is_sent_again_into_a_stream_that_has_begun_anew(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    epoch = hub.log.epoch
    keys = server.keys(f"*{stream}*")
    server.delete(*keys)
    server.client_kill_filter(_type="normal", skipme=True)
    await until(lambda: hub.log.epoch != epoch)
    await backend.apublish(event(2))
    await until(lambda: all_data(server, stream) == [2])


async def test_a_gap_in_a_publishers_numbers_is_told(make: Make, server: Any, stream: str) -> None:
    """As after a failover to a replica that lacks what this worker had not read yet."""
    backend = make()
    hub = await hub_of(backend)
    server.xadd(stream, {FIELD: encode_entry(event(1), "p", 1)})
    await until(lambda: len(hub.log) == 1)
    first = hub.log.read(("c",), 0)[0]
    listener = Listener(hub)
    server.xadd(stream, {FIELD: encode_entry(event(4), "p", 4)})
    server.xadd(stream, {FIELD: encode_entry(event(5), "p", 5)})
    await until(lambda: listener.resets == 1)
    server.xadd(stream, {FIELD: encode_entry(event(6), "p", 6)})
    await until(lambda: listener.heard()[-1:] == [6])
    assert listener.resets == 1
    # A worker that starts later, and one whose log is too short, tell it too.
    other = make()
    assert "event: reset" in heard(await opened(other, await hub_of(other), first.id))
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 1}):
        third = make()
        assert "event: reset" in heard(await opened(third, await hub_of(third), first.id))


@pytest.mark.parametrize("command", ["XTRIM {} MAXLEN 0", "DEL {}"])
async def test_what_was_trimmed_before_it_was_read_is_told(
    make: Make, server: Any, stream: str, command: str, redis: RedisProcess
) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(0))
    await until(lambda: len(hub.log) == 1)
    listener = Listener(hub)
    # The loop stands still, and somebody else adds, whom this worker never heard of.
    server.xadd(stream, {FIELD: encode_entry(event(1), "other", 1)})
    time.sleep(0.3)  # noqa: ASYNC251
    for number in range(2, 11):
        server.xadd(stream, {FIELD: encode_entry(event(number), "other", number)})
    server.execute_command(*command.format(stream).split())
    for number in range(11, 14):
        server.xadd(stream, {FIELD: encode_entry(event(number), "third", number)})
    await until(lambda: listener.resets == 1)
    await backend.apublish(event("live"))
    await until(lambda: listener.heard()[-1:] == ["live"])
    assert listener.resets == 1


async def test_what_came_and_went_between_two_reads_is_told(
    make: Make, server: Any, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
    hub = await hub_of(backend)
    listener = Listener(hub)
    deliver = Hub.deliver

    def deliver_slowly(hub: Hub, item: Any) -> None:
        """Event 0 is handed on, and the loop stands still before the next read."""
        monkeypatch.setattr(Hub, "deliver", deliver)
        hub.deliver(item)
        server.xadd(stream, {FIELD: encode_entry(event(1), "other", 1)})
        server.delete(stream)
        time.sleep(0.1)
        server.xadd(stream, {FIELD: encode_entry(event(2), "third", 2)})

    monkeypatch.setattr(Hub, "deliver", deliver_slowly)
    server.xadd(stream, {FIELD: encode_entry(event(0), "other", 0)})
    await until(lambda: listener.resets == 1)


async def test_a_stream_that_was_trimmed_when_all_was_read_goes_on(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(0))
    await until(lambda: len(hub.log) == 1)
    listener = Listener(hub)
    server.xtrim(stream, maxlen=0, approximate=False)
    server.client_kill_filter(_type="normal", skipme=True)  # so that it is looked for at once
    await until(lambda: backend.outages == 1 and backend.is_available)
    await backend.apublish(event("live"))
    await until(lambda: "live" in listener.heard())
    assert listener.resets == 0


async def test_a_replica_that_has_less_than_was_read_from_it_is_waited_for(redis: RedisProcess, stream: str) -> None:
    """It has restarted from an older state, and its primary has everything: nobody is told of a loss."""
    with RedisProcess() as replica:
        client = redis_py.Redis(port=replica.port)

        def follow() -> None:
            client.replicaof("127.0.0.1", str(redis.port))

        follow()
        backend = RedisStreamsBackend({"URL": redis.url, "STREAM": stream, "READ_URL": replica.url})
        hub = await hub_of(backend)
        for number in range(5):
            await backend.apublish(event(number))
        await until(lambda: len(hub.log) == 5)
        epoch, listener = hub.log.epoch, Listener(hub)
        client.replicaof("NO", "ONE")
        for entry_id, _ in client.xrevrange(stream, count=2):
            client.xdel(stream, entry_id)
        client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: not backend.is_available)
        await backend.apublish(event("meanwhile"))
        follow()
        await until(lambda: "meanwhile" in listener.heard())
        assert (listener.heard(), listener.resets, hub.log.epoch) == (["meanwhile"], 0, epoch)
        await asyncio.to_thread(backend.close)
        client.close()


async def test_an_id_beyond_the_last_one_of_redis_is_unknown(make: Make) -> None:
    """Redis came back with less than was written, and the workers have been restarted, too."""
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    place = parse_id(hub.log.head_id)
    assert place is not None
    beyond = hub.log.head_id.replace(str(place[1] >> 64), str((place[1] >> 64) + 1000))
    text = heard(await opened(backend, hub, beyond))
    assert '"reason":"unknown_id"' in text and '"resumed":true' not in text


async def test_an_id_that_another_worker_is_ahead_by_is_waited_for(make: Make, server: Any, stream: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event(1))
    await until(lambda: len(hub.log) == 1)
    entry_id = server.xadd(stream, {FIELD: encode_entry(event(2), "other", 1)}).decode()  # not read yet: no await
    listener = Listener(hub, await opened(backend, hub, f"{hub.log.epoch}:{entry_id}"))
    await backend.apublish(event(3))
    await until(lambda: listener.heard() == [3])
    assert '"resumed":true' in listener.text and not listener.resets


# Refused


def noted_connects(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each connection from now on is given to answer, in seconds."""
    noted: list[float] = []
    connect = RedisServer.connect

    def connect_and_note(self: RedisServer, answer_seconds: float) -> Any:
        noted.append(answer_seconds)
        return connect(self, answer_seconds)

    monkeypatch.setattr(RedisServer, "connect", connect_and_note)
    return noted


async def test_an_event_that_redis_never_takes_is_given_up_and_told(
    make: Make, server: Any, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis ends the connection over it each time, and answers everything else."""
    patience = noted_connects(monkeypatch)
    backend = make()
    hub = await hub_of(backend)
    await backend.apublish(event("before"))
    await until(lambda: len(hub.log) == 1)
    listener = Listener(hub)
    most = server.config_get("proto-max-bulk-len")["proto-max-bulk-len"]
    server.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        await backend.apublish(event("x" * 1_200_000))
        await until(lambda: listener.resets == 1)
        await backend.apublish(event("behind"))
        await until(lambda: listener.heard()[-1:] == ["behind"])
    finally:
        server.config_set("proto-max-bulk-len", most)
    assert listener.resets == 1 and backend.dropped == 1
    assert "Redis does not take" in caplog.text
    assert max(patience) > outbox.FLUSH_SECONDS + 1_200_000 / outbox.SLOWEST_BYTES_PER_SECOND
    await backend.apublish(event("x" * 1_200_000))
    await until(lambda: len(listener.heard()[-1]) == 1_200_000)


async def test_a_large_event_is_not_given_up_while_redis_takes_no_other(
    make: Make, server: Any, redis: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "TRIES_MAX", 2)
    connects = noted_connects(monkeypatch)
    backend = make()
    hub = await hub_of(backend)
    server.replicaof("127.0.0.1", 1)
    try:
        await backend.apublish(event("x" * 600_000))
        await until(lambda: not backend.is_available)
        tried = len(connects)
        await until(lambda: len(connects) > tried + outbox.TRIES_MAX)
    finally:
        server.replicaof("NO", "ONE")
    await until(lambda: [len(each.data) for each in hub.log.read(("c",), 0)] == [600_000])
    assert backend.dropped == 0


# Stored once


async def test_an_event_whose_answer_was_lost_is_stored_once(
    make: Make, redis: RedisProcess, server: Any, stream: str
) -> None:
    backend = make()
    await backend.apublish(event(0))
    redis.pause()
    try:
        await asyncio.to_thread(backend.publish, event(1))  # lies in the paused server's socket
    finally:
        redis.resume()
    await until(lambda: backend.buffered == 0)
    await backend.apublish(event(2))
    await until(lambda: all_data(server, stream) == [0, 1, 2])


@pytest.mark.parametrize("has_next", [True, False])
@pytest.mark.parametrize("is_sent", [True, False])
async def test_a_broadcast_that_a_time_limit_interrupts_is_stored_once_and_in_its_place(
    make: Make, server: Any, stream: str, monkeypatch: pytest.MonkeyPatch, is_sent: bool, has_next: bool
) -> None:
    backend = make()
    outbox_ = backend._parts.outbox
    backend.publish(event(0))
    await until(lambda: outbox_._client is not None)
    add = StreamWriter.add

    def interrupted(*arguments: Any) -> Any:  # by what a signal handler raises, as a worker of tasks does
        monkeypatch.setattr(StreamWriter, "add", add)
        if is_sent:
            add(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(StreamWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.publish(event(1))
    if has_next:
        backend.publish(event(2))
    wanted = [0, 1, 2] if has_next else [0, 1]
    await until(lambda: len(all_data(server, stream)) == len(wanted) and not backend.buffered)
    assert all_data(server, stream) == wanted


async def test_a_redis_that_is_far_away_stores_once_and_lets_no_save_wait(
    make: Make, monkeypatch: pytest.MonkeyPatch, server: Any, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "NEAR_SECONDS", 0.0)  # as if each answer took longer
    backend = make()
    await backend.apublish(event(0))
    await until(lambda: backend._parts.outbox.is_quick and not backend.buffered)
    for number in range(1, 20):
        backend.publish(event(number))
    await until(lambda: all_data(server, stream) == list(range(20)))
    assert backend.outages == 0 and not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_nothing_is_given_up_while_redis_takes_it_however_fast_it_comes(
    make: Make, monkeypatch: pytest.MonkeyPatch, server: Any, stream: str
) -> None:
    monkeypatch.setattr(outbox, "NEAR_SECONDS", 0.0)  # the thread sends
    backend = make(BUFFER_EVENTS=200)
    await asyncio.to_thread(lambda: [backend.publish(event(number)) for number in range(3000)])
    await until(lambda: not backend.buffered)
    assert backend.dropped == 0
    assert all_data(server, stream) == list(range(3000))


def test_numbers_only_grow_and_gaps_are_seen() -> None:
    def entry(publisher: str, number: int) -> Any:
        raw = (b"1-1", {FIELD: encode_entry(event(number), publisher, number)})
        return Decoder().decode(raw, "e")

    seen = Seen()
    looked = [seen.look(entry("p", number)) for number in (3, 4, 4, 3, 6)]
    assert looked == ["next", "next", "repeated", "repeated", "gap"]
    assert seen.look(entry("q", 9)) == "next"  # nobody knows what it was before
    later = Seen(seen)  # the stream goes on with less: 5 and 6 are known to be missing
    assert [later.look(entry("p", number)) for number in (4, 7, 9)] == ["next", "next", "gap"]


# A full Redis


@pytest.fixture
def full() -> Iterator[tuple[RedisProcess, Any]]:
    with RedisProcess(arguments=("--maxmemory-policy", "noeviction")) as process:
        client = redis_py.Redis(port=process.port)
        yield process, client
        client.close()


def fill_up(client: Any) -> None:
    """From now on Redis takes nothing."""
    client.config_set("maxmemory", 1)


async def test_a_full_redis_is_read_from(full: tuple[RedisProcess, Any], make: Make) -> None:
    process, client = full
    backend = make(URL=process.url)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        events = [event(number) for number in range(60)]
        await asyncio.to_thread(lambda: [backend.publish(e) for e in events])
        await until(lambda: not backend.buffered)
        fill_up(client)
        hub = await hub_of(backend)
        assert hub.is_ready
        assert data_of(heard(await opened(backend, hub, f"{hub.log.epoch}:{events[5].id.partition(':')[2]}"))) == list(
            range(6, 60)
        )


async def test_in_a_full_redis_new_events_push_out_old_ones_and_revocations_travel(
    full: tuple[RedisProcess, Any], make: Make, stream: str
) -> None:
    process, client = full
    backend = make(URL=process.url)
    hub = await hub_of(backend)
    payload = "x" * 20_000
    await asyncio.to_thread(lambda: [backend.publish(event(payload)) for _ in range(400)])
    await until(lambda: len(hub.log) > 0 and backend.buffered == 0)
    before = client.xlen(stream)
    fill_up(client)
    victim = make_client(hub, ("c",), user_pk="7")
    victim.open()
    for number in range(20):
        await backend.apublish(event(number))
    await backend.apublish(Event(("sse.control",), DISCONNECT, '{"user_pk": "7"}'))
    await until(lambda: victim.close_reason == "disconnected")
    assert backend.dropped == 0 and backend.is_available
    assert client.xlen(stream) < before
    client.config_set("maxmemory", 0)
    await backend.apublish(event("live"))
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)][-1] == "live")


async def test_a_stream_is_bounded_in_bytes(make: Make, server: Any, stream: str) -> None:
    backend = make(MAXBYTES=1024 * 1024)
    payload = "x" * 10_000
    await asyncio.to_thread(lambda: [backend.publish(event(payload)) for _ in range(400)])
    await until(lambda: not backend.buffered)
    assert server.memory_usage(stream) < 1.2 * 1024 * 1024
    assert 50 < server.xlen(stream) < 120


# Malformed entries

DEEP = b"[" * 100_000
MALFORMED = [
    {"what": "else"},
    {FIELD: b"\xff not ours"},
    {FIELD: b""},
    {FIELD: b"[]\n1"},
    {FIELD: b"7\n1"},
    {FIELD: DEEP},
    {FIELD: b'{"channels":' + DEEP},
    {FIELD: b'{"channels":["c"],"type":"t","from":"p","seq":' + b"9" * 5000 + b"}\n1"},
    {FIELD: b'{"channels":["c"],"type":"t","from":"p","seq":1e400}\n1'},
    {FIELD: b'{"channels":["c"],"type":"t","from":"p","seq":true}\n1'},
    {FIELD: b'{"channels":["c"],"type":"t","from":["p"],"seq":1}\n1'},
    {FIELD: b'{"channels":"c","type":"t","from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":[["c"]],"type":"t","from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":[],"type":"t","from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":["c"],"type":7,"from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":["c"],"type":"t\\n\\ndata: x","from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":["c"],"type":"t","text":"yes","from":"p","seq":1}\n1'},
    {FIELD: b'{"channels":["c"],"type":"t","from":"p","seq":1}\n\xff'},
    {FIELD: b'{"channels":["c"],"type":"sse.disconnect","from":"p","seq":1}\n[]'},
    {FIELD: b'{"channels":["c"],"type":"sse.revoke","from":"p","seq":1}\n' + DEEP},
]


async def test_malformed_entries_are_passed_over_counted_and_named_a_few_times(
    make: Make, server: Any, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make()
    hub = await hub_of(backend)
    for fields in MALFORMED:
        server.xadd(stream, fields)
    server.xadd(stream, {FIELD: b'{"channels":["c"],"type":"sse.disconnect","from":"p","seq":1}\n{"nobody":"knows"}'})
    server.xadd(backend.stream.now_name, MALFORMED[5])
    await backend.apublish(event("good"))
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == ["good"])
    await until(lambda: backend.unreadable == len(MALFORMED) + 1)
    late = make()
    assert [e.data for e in (await hub_of(late)).log.read(("c",), 0)] == ["good"]
    lines = [record for record in caplog.records if "is passed over" in record.message]
    assert len(lines) == 20  # ten for each of the two
    assert all(len(record.message) < 500 for record in lines)


# History, bounded


@pytest.mark.parametrize(("bound", "value"), [("SCAN_ENTRIES_MAX", 250), ("SCAN_BYTES_MAX", 22_000)])
async def test_nobody_is_taken_further_back_than_the_bounds_and_that_is_remembered(
    make: Make, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(history, bound, value)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 600)
        near = await opened(backend, hub, events[520].id)
        assert data_of(heard(near)) == list(range(521, 600))
        far = await opened(backend, hub, events[20].id)
        assert '"reason":"history_expired"' in heard(far)

        asked: list[Any] = []
        monkeypatch.setattr(backend.stream.read_server, "aconnect", asked.append)
        assert '"reason":"history_expired"' in heard(await opened(backend, hub, events[19].id))
        assert '"reason":"history_expired"' in heard(await opened(backend, hub, events[100].id))
        assert not asked
        again = await opened(backend, hub, events[530].id)
        assert data_of(heard(again)) == list(range(531, 600))


async def test_a_client_is_sent_no_more_history_than_its_bound(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        monkeypatch.setattr(history, "REPLAY_BYTES_MAX", 210 * 30)
        assert "event: reset" in heard(await opened(backend, hub, events[5].id))
        assert "event: reset" not in heard(await opened(backend, hub, events[35].id))


@pytest.mark.parametrize(("chunk_bytes", "most"), [(1024 * 1024, 101), (2_000, 40), (1, 2)])
async def test_large_entries_are_read_few_at_a_time(
    make: Make, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, most: int
) -> None:
    answers: list[int] = []
    read_on = history.History._read_on

    async def noted(self: history.History, client: Any) -> None:
        before = self._count
        await read_on(self, client)
        answers.append(self._count - before)

    monkeypatch.setattr(history.History, "_read_on", noted)
    monkeypatch.setattr(history, "CHUNK_BYTES", chunk_bytes)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 400)
        client = await opened(backend, hub, events[200].id)
        assert data_of(heard(client)) == list(range(201, 400))
    assert answers[0] <= 10
    assert most / 2 <= max(answers[1:]) <= most


async def test_history_of_another_lineage_is_served_to_nobody(
    make: Make, server: Any, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has not noticed yet that the stream was begun anew."""
    monkeypatch.setattr("django_sse_live.backends.redis.reader.Reader._compare", lambda self, epoch: None)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        server.set(f"{{{stream}}}:epoch", "0a0a0a0a")
        text = heard(await opened(backend, hub, events[5].id))
    assert '"reason":"history_expired"' in text and not data_of(text)


async def test_no_more_than_so_many_wait_for_history(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WAITING_MAX", 3)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        texts = [heard(c) for c in await asyncio.gather(*(opened(backend, hub, events[5].id) for _ in range(5)))]
        assert sum('"resumed":true' in text for text in texts) == 3


async def test_who_waits_too_long_for_history_is_told_by_a_reset(
    make: Make, monkeypatch: pytest.MonkeyPatch, redis: RedisProcess
) -> None:
    monkeypatch.setattr(history, "WAIT_SECONDS", 0.05)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        redis.pause()
        try:
            assert '"reason":"history_expired"' in heard(await opened(backend, hub, events[5].id))
        finally:
            redis.resume()


async def test_who_comes_while_history_cannot_be_read_is_asked_to_come_back(
    make: Make, monkeypatch: pytest.MonkeyPatch, redis: RedisProcess
) -> None:
    monkeypatch.setattr(history, "ANSWER_SECONDS", 0.05)
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 60)
        redis.pause()
        try:
            text = heard(await opened(backend, hub, events[5].id))
            assert '"reason":"not_ready","reconnect":true' in text and "event: reset" not in text
        finally:
            redis.resume()
        assert data_of(heard(await opened(backend, hub, events[5].id))) == list(range(6, 60))


async def test_history_read_for_one_goes_on_for_the_next_with_the_traffic(make: Make) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        backend, hub, events = await filled(make, 300)
        for since, more in ((250, 20), (150, 150), (20, 5)):
            client = await opened(backend, hub, events[since].id)
            assert data_of(heard(client)) == list(range(since + 1, len(events)))
            fresh = [event(len(events) + number) for number in range(more)]
            await asyncio.to_thread(lambda fresh=fresh: [backend.publish(e) for e in fresh])
            await taken(backend, fresh)
            events += fresh
            await until(lambda last=events[-1]: hub.log.head == last.position and len(hub.log) == 10)


async def test_a_hub_that_keeps_no_history_reads_none(make: Make, redis: RedisProcess, server: Any) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        await filled(make, 300, "x" * 1000)
    backend = make()
    before = server.info("stats")["total_net_output_bytes"]
    hub = Hub(asyncio.get_running_loop(), EventLog("0"), keeps_history=False)
    backend.attach(hub)
    await hub.filled()
    assert len(hub.log) == 0 and server.info("stats")["total_net_output_bytes"] - before < 50_000
    await backend.apublish(event("live"))
    await until(lambda: [e.data for e in hub.log.read(("c",), 0)] == ["live"])


def test_nothing_of_a_loop_that_has_ended_is_kept(redis: RedisProcess, stream: str) -> None:
    backend = RedisStreamsBackend({"URL": redis.url, "STREAM": stream})

    async def short() -> None:
        await hub_of(backend)

    try:
        for _ in range(3):
            asyncio.run(short())
        assert not backend._parts.readers and not backend._parts.histories
    finally:
        backend.close()


# A full buffer


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest"])
async def test_a_full_buffer_gives_up_what_it_says_and_keeps_the_order_of_the_rest(
    make: Make, when_full: str, stream: str, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisProcess() as own:
        backend = make(URL=own.url, BUFFER_EVENTS=10, BUFFER_FULL=when_full)
        own.kill()
        await asyncio.to_thread(backend.publish, event("before"))
        await until(lambda: backend._parts.outbox.is_quick)
        for number in range(30):
            backend.publish(event(number))
            if number in (2, 20):
                backend.publish(Event(("sse.control",), DISCONNECT, '{"user_pk": "7"}'))
        assert backend.dropped == 22
        assert sum("given up" in record.message for record in caplog.records) == 1
        own.start()
        await until(lambda: backend.buffered == 0)
        client = redis_py.Redis(port=own.port)
        heads = [json.loads(fields[b"event"].split(b"\n")[0]) for _, fields in client.xrange(stream)]
        told = [
            data if head["type"] == "t" else head["type"]
            for head, data in zip(heads, all_data(client, stream), strict=True)
        ]
        client.close()
    assert [head["seq"] for head in heads] == list(range(1, len(heads) + 1))
    if when_full == "drop_oldest":
        assert told == ["sse.disconnect", "sse.disconnect", "sse.lost", *range(21, 30)]
    else:
        assert told == ["before", 0, 1, 2, "sse.disconnect", *range(3, 8), "sse.lost", "sse.disconnect", "sse.lost"]


# Every way out

SITE = """
import os, signal, sys, time
import django
from django.conf import settings
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
settings.configure(
    INSTALLED_APPS=["django_sse_live"], SECRET_KEY="x",
    SSE_LIVE={"BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
              "OPTIONS": {"URL": sys.argv[1], "EXIT_SECONDS": float(sys.argv[2])}},
)
django.setup()
from django_sse_live import broadcast
from django_sse_live.backends import get_backend
"""


def script(code: str) -> str:
    return SITE + textwrap.dedent(code)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("is_back", [True, False])
def test_a_command_that_a_signal_ends_sends_what_it_has_or_says_what_is_lost(is_back: bool, ending: int) -> None:
    with RedisProcess(aof=True) as own:
        code = """
            broadcast("c", "t", 0)
            while get_backend().buffered:  # an event without its answer would be counted among the lost
                time.sleep(0.01)
            print("connected", flush=True)
            sys.stdin.readline()
            broadcast("c", "t", 1)
            print("broadcast", flush=True)
            for _ in range(600):  # a signal that comes just before a sleep begins is heard only after it
                time.sleep(0.1)
        """
        command = subprocess.Popen(
            [sys.executable, "-c", script(code), own.url, "10" if is_back else "0.3"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert command.stdin is not None and command.stdout is not None and command.stderr is not None
        assert command.stdout.readline() == "connected\n"
        assert own.command("XLEN", "sse_live") == b":1\r\n"
        own.kill()
        command.stdin.write("\n")
        command.stdin.flush()
        assert command.stdout.readline() == "broadcast\n"
        command.send_signal(ending)
        if is_back:
            own.start()
        _, errors = command.communicate(timeout=60)
        assert command.returncode == -ending
        if is_back:
            client = redis_py.Redis(port=own.port)
            assert all_data(client, "sse_live") == [0, 1]
            client.close()
        assert ("1 SSE broadcasts are lost" in errors) == (not is_back)


def test_a_command_without_a_buffer_ends_at_once(redis: RedisProcess) -> None:
    code = """
        broadcast("c", "t", 0)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    """
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", script(code), redis.url, "30"], cwd=ROOT, timeout=60)
    assert ended.returncode == -15 and time.monotonic() - began < 25


# Tests beside a running site

TESTS = """
        from django_sse_live.testing.isolation import own_bus
        from django_sse_live.backends import get_backend
        with own_bus(), own_bus():
            for number in range(4):
                broadcast("c", "t", number)
            print(get_backend().stream.name, get_backend().position(), flush=True)
            sys.stdin.readline()
"""


def test_processes_that_run_tests_hear_neither_each_other_nor_a_running_site(redis: RedisProcess, server: Any) -> None:
    server.flushall()
    command = [sys.executable, "-c", script(TESTS), redis.url, "2"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    names = [process.stdout.readline().split()[0] for process in both if process.stdout is not None]
    assert names == [f"sse_live:tests:{process.pid}" for process in both]
    assert [all_data(server, name) for name in names] == [list(range(4))] * 2
    for process in both:
        process.communicate("\n", timeout=60)
    assert not server.exists("sse_live", *names) and not server.keys("*:epoch")  # nothing is left behind
