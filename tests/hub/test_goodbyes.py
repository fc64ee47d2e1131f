"""Before a goodbye: everything up to its place in the order, or a reset; in bounded time."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.events import DISCONNECT, REVOKE, Event, parse_id
from django_sse_live.hub import inbox
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import GOODBYE_SECONDS, Hub
from django_sse_live.hub.log import EventLog
from tests.clients import make_client
from tests.live.harness import until

from .conftest import Connect, Reader

REASONS = {DISCONNECT: "disconnected", REVOKE: "revoked"}


def event(position: int, *channels: str, data: Any = None) -> Event:
    made = Event(channels, "token", json.dumps(position if data is None else data))
    made.stamp("e", position)
    return made


def control(position: int, type: str, **conditions: str) -> Event:
    made = Event(("sse.control",), type, json.dumps(conditions))
    made.stamp("e", position)
    return made


@pytest.fixture
async def hub() -> Hub:
    return Hub(asyncio.get_running_loop(), EventLog("e"))


async def all_events(reader: Reader) -> list[str]:
    await reader.done()
    return reader.data("token")


def all_of(client: Client) -> str:
    text = b""
    while chunk := client.take():
        text += chunk
    return text.decode()


async def ready(*readers: Reader) -> None:
    await until(lambda: all(reader.chunks and reader.client.is_waiting for reader in readers))


@pytest.mark.parametrize("type", [DISCONNECT, REVOKE])
async def test_what_was_broadcast_before_it_is_sent_before_it_and_nothing_after(
    hub: Hub, connect: Connect, type: str
) -> None:
    reader, other = connect("a"), connect("b", "a")
    await ready(reader, other)
    for position in range(1, 6):
        hub.deliver(event(position, "a"))
    hub.deliver(control(6, type, channel="a"))
    hub.deliver(event(7, "a"))
    for one in (reader, other):
        assert await all_events(one) == ["1", "2", "3", "4", "5"]
        assert one.types()[-1] == "goodbye" and REASONS[type] in one.text
        if type == DISCONNECT:
            assert parse_id(one.ids()[-1].removesuffix("/end")) == ("e", 6), "it has had everything up to here"


@pytest.mark.parametrize("type", [DISCONNECT, REVOKE])
async def test_a_slow_reader_gets_all_of_it_too(hub: Hub, connect: Connect, type: str) -> None:
    reader = connect("a")
    await ready(reader)
    reader.stop_reading()
    hub.deliver(event(1, "a"))
    await until(lambda: bool(reader.client.sending_since))
    for position in range(2, 1500):
        hub.deliver(event(position, "a"))
    hub.deliver(control(1500, type, channel="a"))
    hub.deliver(event(1501, "a"))
    await until(lambda: hub.log.head == 1501)
    assert reader.client.close_reason == REASONS[type]
    reader.go_on_reading()
    assert await all_events(reader) == [str(number) for number in range(1, 1500)]
    assert reader.types()[-1] == "goodbye" and "reset" not in reader.types()


async def test_so_does_a_client_in_the_middle_of_a_replay(hub: Hub) -> None:
    for position in range(1, 4):
        hub.deliver(event(position, "a", data="x" * 200_000))
    await until(lambda: hub.log.head == 3)
    client = make_client(hub, ("a",), last_id=("e", 0))
    client.replay([event(number, "a", data=f"old {number}") for number in (1, 2)])
    client.open()
    client.take()
    hub.deliver(control(4, DISCONNECT, channel="a"))
    await until(lambda: client.close_reason is not None)
    text = all_of(client)
    assert [text.index("old 1") < text.index("old 2") < text.rindex("xxx") < text.index("event: goodbye")] == [True]
    client.leave()


@override_settings(SSE_LIVE={"HISTORY_EVENTS": 5})
async def test_what_cannot_be_had_any_more_is_told_by_a_reset_before_it(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await ready(reader)
    reader.stop_reading()
    hub.deliver(event(1, "a"))
    await until(lambda: bool(reader.client.sending_since))
    hub.deliver(event(2, "a"))
    hub.deliver(control(3, DISCONNECT, channel="a"))
    for position in range(4, 40):
        hub.deliver(event(position, "a"))
    await until(lambda: hub.log.head == 39 and hub.log.evicted_to > 3)
    reader.go_on_reading()
    assert await all_events(reader) == ["1"]
    assert reader.types()[-2:] == ["reset", "goodbye"]


async def test_a_new_lineage_is_a_reset_before_it(hub: Hub) -> None:
    client = make_client(hub, ("a",))
    client.open()
    all_of(client)
    hub.deliver(event(1, "a"))
    hub.deliver(control(2, DISCONNECT, channel="a"))
    hub.deliver(lambda: hub.restart("f", 9))
    await until(lambda: hub.log.epoch == "f")
    text = all_of(client)
    assert text.index("event: reset") < text.index("event: goodbye") and "id: f:0-9/end" in text
    client.leave()


@override_settings(SSE_LIVE={"SEND_TIMEOUT_SECONDS": 0.5})
async def test_a_client_that_does_not_read_ends_by_the_send_timeout(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await ready(reader)
    reader.stop_reading()
    hub.deliver(event(1, "a"))
    hub.deliver(event(2, "a"))
    hub.deliver(control(3, DISCONNECT, channel="a"))
    await until(lambda: len(hub.clients) == 0)
    reader.go_on_reading()


async def test_a_client_that_reads_too_slowly_is_told_what_it_missed(
    hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(hub, ("a",))
    client.open()
    all_of(client)
    for position in range(1, 8):
        hub.deliver(event(position, "a", data="x" * 200_000))
    hub.deliver(control(8, DISCONNECT, channel="a"))
    await until(lambda: client.close_reason is not None)
    assert client.take()
    assert client._goodbye is not None
    client._goodbye = client._goodbye._replace(until=0.0)
    text = all_of(client)
    assert "xxx" not in text and text.index("event: reset") < text.index("event: goodbye")
    client.leave()


async def test_a_final_goodbye_takes_the_place_of_one_that_is_not(hub: Hub) -> None:
    client = make_client(hub, ("a",))
    client.open()
    all_of(client)
    client.grow_old()
    hub.deliver(event(1, "a"))
    hub.deliver(control(2, DISCONNECT, channel="a"))
    hub.deliver(control(3, REVOKE, channel="a"))
    await until(lambda: hub.log.head == 3)
    text = all_of(client)
    assert text.index("event: token") < text.index("event: goodbye")
    assert text.count("event: goodbye") == 1 and '"reason":"disconnected","reconnect":false' in text
    client.leave()


async def test_what_came_after_a_revocation_is_not_heard_for_a_later_goodbye(hub: Hub) -> None:
    client = make_client(hub, ("a",))
    client.open()
    all_of(client)
    hub.deliver(control(1, REVOKE, channel="a"))
    hub.deliver(event(2, "a", data="secret"))
    hub.deliver(control(3, DISCONNECT, channel="a"))
    await until(lambda: hub.log.head == 3)
    text = all_of(client)
    assert "secret" not in text and '"reason":"disconnected"' in text
    client.leave()


@pytest.mark.parametrize("type", [DISCONNECT, REVOKE])
async def test_of_an_end_that_a_newer_version_narrows_everybody_it_may_concern_is_checked_again(
    hub: Hub, caplog: pytest.LogCaptureFixture, type: str
) -> None:
    ann, bob = (make_client(hub, ("a",), user_pk=pk) for pk in ("1", "2"))
    opening = make_client(hub, ("a",), user_pk="1", checked_at=hub.loop.time())  # checked before, and not open yet
    for client in (ann, bob):
        client.open()
        all_of(client)
    hub.deliver(control(1, type, user_pk="1", device="phone"))
    await until(lambda: hub.log.head == 1)
    opening.open()
    for client in (ann, opening):
        text = all_of(client)
        assert '"reason":"revoked","reconnect":true' in text
    assert bob.close_reason is None and not caplog.records
    hub.deliver(control(2, type, device="phone"))
    await until(lambda: bob.close_reason == "revoked")
    for client in (ann, bob):
        client.leave()


async def test_ten_thousand_are_ended_in_slices_and_what_comes_after_waits(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SLICE_SECONDS", 0.0)
    clients = [make_client(hub, ("a", str(number % 3))) for number in range(10_000)]
    for client in clients:
        client.open()
        all_of(client)
        client.wait()
    hub.deliver(control(1, DISCONNECT, channel="a"))
    hub.deliver(event(2, "a"))
    turns_in_between = 0
    while hub.log.head < 2:
        ended = sum(client.close_reason is not None for client in (clients[0], clients[-1]))
        turns_in_between += ended == 1
        await asyncio.sleep(0)
    assert turns_in_between > 100, "the loop does other things in between"
    assert all(client.close_reason == "disconnected" for client in clients), "nothing overtakes a goodbye"
    assert all("event: goodbye" in all_of(client) and not client.events_sent for client in clients)
    for client in clients:
        client.leave()


async def test_a_shutdown_sends_what_has_come_in_before_its_goodbye(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await ready(reader)
    for position in range(1, 4):
        hub.deliver(event(position, "a"))
    hub.shut_down()
    assert await all_events(reader) == ["1", "2", "3"]
    assert '"reason":"shutdown","reconnect":true' in reader.text


async def test_a_worker_with_many_streams_takes_the_time_that_its_goodbyes_need(
    hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = [connect("a") for _ in range(100)]
    for reader in readers:
        await ready(reader)
    end = Client.end

    def takes_long(client: Client, *arguments: Any, **named: Any) -> None:
        time.sleep(2 * GOODBYE_SECONDS / len(readers))
        end(client, *arguments, **named)

    monkeypatch.setattr(Client, "end", takes_long)
    hub.shut_down()
    for reader in readers:
        await reader.done()
    assert all('"reason":"shutdown","reconnect":true' in reader.text for reader in readers)
