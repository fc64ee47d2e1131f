"""What is kept is bounded, and nobody who is up to date pays for it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.events import Event
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import DISCONNECT, Hub
from django_sse_live.hub.log import EVICTED_CHANNELS, FORGOTTEN_CHANNELS, EventLog
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
        self.client = Client(hub, channels)
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
    client = Client(hub, channels, **options)
    client.open()
    taken(client)
    return client


async def test_the_traffic_of_many_channels_resets_nobody_who_missed_nothing(hub: Hub) -> None:
    with override_settings(SSE_LIVE={"HISTORY_EVENTS": 10}):
        quiet, mixed = opened(hub, "quiet"), opened(hub, "quiet", "also.quiet")
        for number in range(1, EVICTED_CHANNELS + FORGOTTEN_CHANNELS + 100):
            hub.deliver(event(number, f"user.{number}"))
        await until(lambda: hub.log.head == EVICTED_CHANNELS + FORGOTTEN_CHANNELS + 99)
        await asyncio.sleep(0)
        assert len(hub.log) <= 10
        for client in (quiet, mixed):
            client.heartbeat_due = True
        assert "event: reset" not in taken(quiet) and "event: reset" not in taken(mixed)
        late = Client(hub, ("elsewhere",), last_id=("e", 5))
        late.open()
        assert "event: reset" in taken(late), "of what it missed nothing is known any more"


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
    assert sum(map(sys.getsizeof, sent._envelopes.values())) < 20_000  # type: ignore[union-attr]


def test_text_beyond_ascii_counts_as_what_it_takes() -> None:
    assert event(1, "c", payload='"' + "😀" * 10_000 + '"').size > 80_000


async def test_what_cannot_be_dealt_with_stops_nothing_behind_it(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    client = opened(hub, "news")
    unknown = event(1, "sse.control", payload='{"device": "x"}')
    unknown.type = DISCONNECT
    hub.deliver(unknown)
    hub.deliver(event(2, "news"))
    await until(lambda: "event: x" in taken(client))
    assert [record.levelname for record in caplog.records if record.name == "django_sse_live"].count("ERROR") == 1


async def test_a_snapshot_goes_out_in_pieces(hub: Hub) -> None:
    client = Client(hub, ("news",))
    client.initial = [b"data: " + b"x" * 10_000 + b"\n\n"] * 500
    client.open()
    sizes = []
    while chunk := client.take():
        sizes.append(len(chunk))
    assert sum(sizes) > 5_000_000 and max(sizes) <= 256 * 1024 + 10_010


async def test_who_was_refused_does_not_open_after_all(hub: Hub) -> None:
    client = Client(hub, ("news",))
    client.refuse("too_many_clients")
    client.open()
    text = b"".join(iter(client.take, None)).decode()  # type: ignore[arg-type]
    assert "event: goodbye" in text and "event: connected" not in text and not len(hub.clients)
