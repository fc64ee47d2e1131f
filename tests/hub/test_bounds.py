"""What is kept is bounded, and nobody who is up to date pays for it."""

from __future__ import annotations

import asyncio
import json
import sys
import tracemalloc
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.events import CONTROL_CHANNEL, DISCONNECT, LOST_EVENTS, Event
from django_sse_live.hub import inbox
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EVICTED_CHANNELS_MAX, FORGET_SLICE_CHANNELS, EventLog
from django_sse_live.hub.reading import QUEUED_FRAMES_MAX
from tests.clients import make_client
from tests.live.harness import until


def taken(client: Client) -> str:
    """What a stream would have written by now."""
    if client.close_reason is None and client.is_waiting:
        client.wake()
    text = b""
    while chunk := client.take():
        text += chunk
    client.wait()
    return text.decode()


class Stream:
    """Reads as soon as it is woken, as one without live_application does."""

    def __init__(self, hub: Hub, *channels: str) -> None:
        self.client = make_client(hub, channels)
        self.client.open()
        self.text = ""
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while True:
            while chunk := self.client.take():
                self.text += chunk.decode()
            await self.client.wait()


def event(position: int, *channels: str, payload: str = "1") -> Event:
    made = Event(channels, "x", payload)
    made.stamp("e", position)
    return made


@pytest.fixture
async def hub() -> Hub:
    return Hub(asyncio.get_running_loop(), EventLog("e"))


def opened(hub: Hub, *channels: str, **options: Any) -> Client:
    client = make_client(hub, channels, **options)
    client.open()
    taken(client)
    return client


async def test_the_traffic_of_many_channels_resets_nobody_who_missed_nothing(hub: Hub) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        quiet, mixed = opened(hub, "quiet"), opened(hub, "quiet", "also.quiet")
        for number in range(1, EVICTED_CHANNELS_MAX + FORGET_SLICE_CHANNELS + 100):
            hub.deliver(event(number, f"user.{number}"))
        await until(lambda: hub.log.head == EVICTED_CHANNELS_MAX + FORGET_SLICE_CHANNELS + 99)
        await asyncio.sleep(0)
        assert len(hub.log) <= 10
        for client in (quiet, mixed):
            client.heartbeat_due = True
        assert "event: reset" not in taken(quiet) and "event: reset" not in taken(mixed)
        late = make_client(hub, ("elsewhere",), last_id=("e", 5))
        late.open()
        assert "event: reset" in taken(late), "of what it missed nothing is known any more"


async def test_a_client_that_is_ahead_of_this_worker_hears_nothing_twice_when_channels_are_forgotten(hub: Hub) -> None:
    last = EVICTED_CHANNELS_MAX + FORGET_SLICE_CHANNELS + 100
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        ahead = opened(hub, "news", last_id=("e", last + 1))
        for number in range(1, last + 1):
            hub.deliver(event(number, f"user.{number}"))
        hub.deliver(event(last + 1, "news", payload='"it has this one"'))
        hub.deliver(event(last + 2, "news", payload='"new"'))
        await until(lambda: hub.log.head == last + 2)
        await asyncio.sleep(0)
        text = taken(ahead)
        assert '"new"' in text and "it has this one" not in text


async def test_a_client_that_is_ahead_of_this_worker_is_not_taken_back_by_a_loss_that_it_has_passed(hub: Hub) -> None:
    here, ahead = opened(hub, "news"), opened(hub, "news", last_id=("e", 4))
    hub.deliver(Event((CONTROL_CHANNEL,), LOST_EVENTS, "{}", position=2))
    for number in (3, 4, 5):
        hub.deliver(event(number, "news"))
    await until(lambda: hub.log.head == 5)
    text = taken(ahead)
    assert "event: reset" not in text and text.count("id: ") == 1 and "id: e:0-5\n" in text
    assert "event: reset" in taken(here)


@pytest.mark.parametrize("settings", [{"HISTORY_SECONDS": 0}, {"HISTORY_EVENTS": 1}, {"HISTORY_BYTES": 1024}])
async def test_what_the_history_has_no_room_for_is_still_heard_live(hub: Hub, settings: dict[str, Any]) -> None:
    with override_settings(SSE_LIVE=settings):
        stream = Stream(hub, "news")
        for number in range(1, 6):
            hub.deliver(event(number, "news", payload=json.dumps(f"{number}" + "x" * 4000)))
            await until(lambda number=number: stream.text.count("event: x") == number, 2)
        assert "event: reset" not in stream.text
        await until(lambda: len(hub.log) <= settings.get("HISTORY_EVENTS", 0))


async def test_what_was_given_up_in_a_burst_is_told_at_once(hub: Hub) -> None:
    with override_settings(SSE_LIVE={"HISTORY_BYTES": 1024}):
        streams = [Stream(hub, "one"), Stream(hub, "other")]
        for number in range(1, 11):
            hub.deliver(event(number, "one" if number % 2 else "other", payload=json.dumps("x" * 4000)))
        await until(lambda: all("event: reset" in stream.text for stream in streams), 2)


async def test_an_event_on_many_channels_is_not_kept_once_for_each_listener() -> None:
    channels = tuple(f"user.{number}" for number in range(300))
    sent = event(1, *channels, payload=json.dumps("x" * 1000))
    bodies = {sent.envelope(frozenset([channel])) for channel in channels}
    assert len(bodies) == 300
    assert sum(map(sys.getsizeof, sent._envelopes.values())) < 20_000


def test_text_beyond_ascii_counts_as_what_it_takes() -> None:
    assert event(1, "c", payload='"' + "😀" * 10_000 + '"').size > 80_000


async def test_what_cannot_be_dealt_with_stops_nothing_behind_it(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    client = opened(hub, "news")
    malformed = event(1, "sse.control", payload="{")
    malformed.type = DISCONNECT
    hub.deliver(malformed)
    hub.deliver(event(2, "news"))
    await until(lambda: "event: x" in taken(client))
    assert [record.levelname for record in caplog.records if record.name == "django_sse_live"].count("ERROR") == 1


async def test_a_snapshot_goes_out_in_pieces(hub: Hub) -> None:
    client = make_client(hub, ("news",))
    client.initial = [b"data: " + b"x" * 10_000 + b"\n\n"] * 500
    client.open()
    sizes = []
    while chunk := client.take():
        sizes.append(len(chunk))
    assert sum(sizes) > 5_000_000 and max(sizes) <= 256 * 1024 + 10_010


async def test_who_was_refused_does_not_open_after_all(hub: Hub) -> None:
    client = make_client(hub, ("news",))
    client.refuse("too_many_clients")
    client.open()
    text = b"".join(iter(client.take, None)).decode()
    assert "event: goodbye" in text and "event: connected" not in text and not len(hub.clients)


async def test_those_who_find_no_room_do_not_all_come_back_at_one_moment(hub: Hub) -> None:
    waits = []
    with override_settings(SSE_LIVE={"RETRY_MS": 1000}):
        for _ in range(300):
            client = make_client(hub, ("news",))
            client.refuse("too_many_clients")
            waits.append(int(taken(client).split("retry: ")[1].split("\n")[0]))
    assert 1000 <= min(waits) < 1200 and 4800 < max(waits) <= 5000


async def test_at_a_shutdown_the_way_back_is_as_wide_as_there_are_clients(hub: Hub) -> None:
    clients = [make_client(hub, ("news",)) for _ in range(1500)]
    with override_settings(SSE_LIVE={"RETRY_MS": 1000}):
        alone = [hub.retry_ms() for _ in range(300)]
        for client in clients:
            client.open()
            taken(client)
        hub.shut_down()
        await until(lambda: all(client.close_reason for client in clients))
        waits = [int(taken(client).split("retry: ")[1].split("\n")[0]) for client in clients]
    assert 1000 <= min(alone) and 1800 < max(alone) < 2000
    assert 1000 <= min(waits) < 1100 and 3800 < max(waits) < 4000, "two milliseconds for each"
    for client in clients:
        client.leave()


async def test_frames_that_wait_for_a_client_are_bounded(hub: Hub) -> None:
    client = opened(hub, "news")
    client.wake()  # it is being written to, and reads nothing
    for number in range(QUEUED_FRAMES_MAX + 20):
        hub.tell("news", "worker", str(number))
    text = taken(client)
    assert text.count("event: worker") == QUEUED_FRAMES_MAX == 8 and "data: 7\n" in text
    assert "event: reset" not in text, "they are worth nothing later"
    hub.tell("news", "worker", "again")
    assert "again" in taken(client)


@pytest.mark.parametrize(
    ("count", "channels", "length"),
    [
        (500, lambda n: ("news",), 100),
        (500, lambda n: ("news",), 2_000),
        (50, lambda n: ("news",), 20_000),
        (500, lambda n: (f"user.{n}",), 100),
        (200, lambda n: tuple(f"c{(7 * n + k) % 1000}" for k in range(50)), 100),
        (5, lambda n: tuple(f"user.{n}.{k}" for k in range(10_000)), 100),
        (10, lambda n: tuple(f"user.{k}" for k in range(10_000)), 100),
    ],
)
def test_the_log_says_how_many_bytes_it_takes(count: int, channels: Any, length: int) -> None:
    log = EventLog("e")
    tracemalloc.start()
    for number in range(1, count + 1):
        made = event(number, *channels(number), payload=json.dumps("x" * length + str(number)))
        log.append(made)
        made.named()
        for heard in made.channels[:20]:
            made.envelope(frozenset([heard]))
    taken_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert log.bytes / 2 < taken_bytes < 1.55 * log.bytes
    with override_settings(SSE_LIVE={"HISTORY_SECONDS": 0}):
        log._clock = lambda: float("inf")
        log.evict()
    assert log.bytes == 0


async def test_an_event_on_ten_thousand_channels_is_taken_in_slices_and_heard_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox, "SLICE_SECONDS", 0.0)
    channels = tuple(f"user.{number}" for number in range(10_000))
    early, both, late = (
        opened(hub, *names, form="envelope") for names in (["user.1"], ["user.1", "user.9999"], ["user.9999"])
    )
    hub.deliver(event(1, "user.1"))
    await until(lambda: hub.log.head == 1)
    hub.deliver(event(2, *channels))
    hub.deliver(event(3, "user.9999"))
    turns = 0
    held = make_client(hub, ("user.1", "user.9999"), "envelope", last_id=("e", 0))
    texts: list[str] = []
    while hub.log.head < 2:
        turns += 1
        texts.append(taken(both))  # reads on while it is appended
        if turns == 3:
            held._hold([], 0)
            held.open()
        await asyncio.sleep(0)
    assert turns > 5
    await until(lambda: hub.log.head == 3)
    for client, ids in ((early, [1, 2]), (late, [2, 3])):
        text = taken(client)
        assert [number for number in (1, 2, 3) if f"id: e:0-{number}\n" in text] == ids
    text = "".join(texts) + taken(both)
    assert [text.count(f"id: e:0-{number}\n") for number in (1, 2, 3)] == [1, 1, 1]
    assert '"channels":["user.1","user.9999"]' in text
    text = taken(held)
    assert [text.count(f"id: e:0-{number}\n") for number in (1, 2, 3)] == [1, 1, 1]
    for client in (early, both, late, held):
        client.leave()
