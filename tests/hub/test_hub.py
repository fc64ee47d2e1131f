"""The hub: one inbox, drained in order; a client is a cursor on the log."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from django.test import override_settings

from django_sse_live import abroadcast, abroadcast_patch, broadcast, disconnect_clients, stream_position
from django_sse_live.backends import get_backend, running_hub
from django_sse_live.events import Event, parse_id
from django_sse_live.hub.audience import SEND_MAX_BYTES
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.registry import find_hub, open_hubs
from django_sse_live.signals import client_connected, client_disconnected, event_broadcast
from tests.clients import make_client

from .conftest import Connect, drained, until


class TestDelivery:
    async def test_an_event_reaches_the_clients_of_its_channel(self, connect: Connect) -> None:
        mine, other = connect("a"), connect("b")
        await until(lambda: bool(mine.chunks and other.chunks))
        await abroadcast("a", "greeting", "hello")
        await mine.until(lambda reader: reader.data("greeting") == ['"hello"'])
        assert other.types() == ["connected"]

    async def test_a_client_of_two_channels_gets_an_event_on_both_once(self, connect: Connect) -> None:
        reader = connect("a", "b")
        await abroadcast(["a", "b"], "first")
        await abroadcast("b", "last")
        await reader.until(lambda reader: "last" in reader.types())
        assert reader.types() == ["connected", "first", "last"]

    async def test_a_patch_costs_everyone_what_an_event_of_its_size_costs(
        self, hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Rendered once, by who sends it; encoded once; and then the same bytes for all."""
        encoded: list[str] = []
        encode = Event._encode_envelope
        monkeypatch.setattr(
            Event, "_encode_envelope", lambda event, names: (encoded.append(event.type), encode(event, names))[1]
        )
        readers = [connect("a", form="envelope") for _ in range(50)]
        markup = "<li>" + "x" * 2000 + "</li>"
        await abroadcast_patch("a", "update", "list", html=markup, type="change")
        await abroadcast("a", "plain", {"action": "update", "target": "list", "html": markup})
        for reader in readers:
            await reader.until(lambda reader: b'"plain"' in b"".join(reader.chunks))
        assert encoded == ["change", "plain"]
        patched, plain = hub.log.read(["a"], 0)[-2:]
        assert abs(patched.size - plain.size) < 50
        frames = [event.envelope(frozenset("a")) for event in (patched, plain)]
        assert abs(len(frames[0]) - len(frames[1])) < 50
        assert all(frame in b"".join(reader.chunks) for reader in readers for frame in frames)

    async def test_the_order_across_channels_is_kept(self, connect: Connect) -> None:
        reader = connect("a", "b")
        for number in range(500):
            await abroadcast("ab"[number % 2], "n", number)
            if number % 50 == 0:
                await asyncio.sleep(0)
        await reader.until(lambda reader: len(reader.data("n")) == 500)
        assert reader.data("n") == [str(number) for number in range(500)]

    async def test_threads_reach_the_loop_safely_and_in_order(self, connect: Connect) -> None:
        readers = [connect("a") for _ in range(5)]

        def publish(name: int) -> None:
            for number in range(300):
                broadcast("a", "n", [name, number])

        threads = [threading.Thread(target=publish, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        await until(lambda: all(len(reader.data("n")) == 1200 for reader in readers))
        for thread in threads:
            thread.join()
        first = readers[0].data("n")
        assert all(reader.data("n") == first for reader in readers), "every client, the same order"
        for name in range(4):
            mine = [item for item in first if item.startswith(f"[{name},")]
            assert mine == [f"[{name},{number}]" for number in range(300)], "each publisher's own order"

    async def test_ids_never_go_back(self, connect: Connect) -> None:
        reader = connect("a")
        for number in range(100):
            await abroadcast("a" if number % 2 else "b", "n", number)
        await reader.until(lambda reader: len(reader.data("n")) == 50)
        positions = [parse_id(id) for id in reader.ids()]
        assert None not in positions
        assert positions == sorted(positions)


class TestResume:
    async def test_a_client_gets_what_it_missed_then_what_is_new(self, connect: Connect) -> None:
        before = connect("a")
        await abroadcast("a", "n", 1)
        await before.until(lambda reader: reader.data("n") == ["1"])
        last_id = parse_id(before.ids()[-1])
        await before.leave()
        await abroadcast("a", "n", 2)
        await abroadcast("b", "n", "not mine")
        await abroadcast("a", "n", 3)
        after = connect("a", last_id=last_id)
        await abroadcast("a", "n", 4)
        await after.until(lambda reader: "4" in reader.data("n"))
        assert after.data("n") == ["2", "3", "4"]
        assert '"resumed":true' in after.text
        assert not after.text.startswith("retry: 2000\nid:"), "an id here would skip the replay if it were cut off now"

    async def test_a_new_client_gets_an_id_at_once_so_that_it_can_resume(self, connect: Connect) -> None:
        await abroadcast("a", "n", 1)
        await drained(running_hub())
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        assert reader.text.startswith(f"retry: 2000\nid: {stream_position()}\nevent: connected\n")
        assert reader.data("n") == []

    async def test_a_position_of_another_lineage_is_a_reset(self, connect: Connect) -> None:
        await abroadcast("a", "n", 1)
        await drained(running_hub())
        reader = connect("a", last_id=("0ther", 1))
        await reader.until(lambda reader: "reset" in reader.types())
        assert reader.types() == ["connected", "reset"]
        assert reader.ids() == [stream_position()], "the reset carries the head's id, and connected none"
        assert '"resumed":false' in reader.text
        await abroadcast("a", "n", 2)
        await reader.until(lambda reader: reader.data("n") == ["2"])

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 5})
    async def test_a_position_that_fell_off_the_log_is_one_reset_then_live(self, hub: Hub, connect: Connect) -> None:
        start = parse_id(stream_position())
        for number in range(20):
            await abroadcast("a", "n", number)
        await until(lambda: len(hub.log) <= 5)
        reader = connect("a", last_id=start)
        await abroadcast("a", "n", "live")
        await reader.until(lambda reader: reader.data("n") == ['"live"'])
        assert reader.types() == ["connected", "reset", "n"]
        assert '"reason":"history_expired"' in reader.text

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 5})
    async def test_the_client_of_a_quiet_channel_is_not_reset_for_the_traffic_of_others(self, connect: Connect) -> None:
        await abroadcast("quiet", "n", 0)
        last_id = parse_id(stream_position())
        for number in range(50):
            await abroadcast("loud", "n", number)
        reader = connect("quiet", last_id=last_id)
        await abroadcast("quiet", "n", 1)
        await reader.until(lambda reader: reader.data("n") == ["1"])
        assert "reset" not in reader.types()

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 5})
    async def test_a_small_history_does_not_reset_those_who_are_up_to_date(self, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        for number in range(9):  # more than the history, within one fan-out
            await abroadcast("a", "n", number)
        await reader.until(lambda reader: len(reader.data("n")) == 9)
        assert "reset" not in reader.types()

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 5})
    async def test_a_client_that_lags_too_far_is_told_reset_and_goes_on(self, hub: Hub, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        reader.stop_reading()
        for number in range(100):
            await abroadcast("a", "n", number)
            await asyncio.sleep(0)
        await until(lambda: len(hub.log) <= 5)
        reader.go_on_reading()
        await abroadcast("a", "n", "live")
        await reader.until(lambda reader: '"live"' in reader.data("n"))
        assert reader.types().count("reset") == 1
        positions = [parse_id(id) for id in reader.ids()]
        assert positions == sorted(positions)

    async def test_a_position_ahead_of_this_worker_is_waited_for(self, hub: Hub, connect: Connect) -> None:
        epoch = hub.log.epoch
        ahead = (hub.log.head >> 64) + 10_000_000_000_000
        reader = connect("a", last_id=(epoch, ahead << 64))
        await reader.until(lambda reader: bool(reader.chunks))
        await abroadcast("a", "n", "it has this one")
        await abroadcast("b", "n")
        assert "reset" not in reader.types()
        assert reader.data("n") == []

    async def test_one_send_is_bounded_and_the_rest_follows(self, connect: Connect) -> None:
        start = parse_id(stream_position())
        big = "x" * (SEND_MAX_BYTES // 3)
        for _ in range(10):
            await abroadcast("a", "big", big)
        reader = connect("a", last_id=start)
        await reader.until(lambda reader: len(reader.data("big")) == 10)
        assert max(map(len, reader.chunks)) <= SEND_MAX_BYTES

    async def test_without_a_pause_there_is_no_seam(self, connect: Connect) -> None:
        stop = threading.Event()
        published = 0

        def publish() -> None:
            nonlocal published
            while not stop.is_set():
                broadcast("a", "n", published)
                published += 1
                stop.wait(0.0002)

        thread = threading.Thread(target=publish)
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        thread.start()
        seen: list[str] = []
        for _ in range(20):
            await reader.until(lambda reader: len(reader.data("n")) >= 20)
            seen += reader.data("n")
            last_id = parse_id(reader.ids()[-1])
            await reader.leave()
            reader = connect("a", last_id=last_id)
        stop.set()
        thread.join()
        await reader.until(lambda reader: len(seen) + len(reader.data("n")) >= published)
        seen += reader.data("n")
        assert seen == [str(number) for number in range(published)]

    async def test_what_was_broadcast_before_the_first_stream_is_not_lost(self, connect: Connect) -> None:
        position = stream_position()
        assert find_hub(asyncio.get_running_loop()) is not None  # made by the fixture; another loop has none yet
        broadcast("a", "n", 1)

        async def on_another_loop() -> str:
            client = make_client(running_hub(), ("a",), last_id=parse_id(position) or "unknown")
            client.open()
            text = b""
            while chunk := client.take():
                text += chunk
            client.leave()
            return text.decode()

        assert "event: n" in await asyncio.to_thread(asyncio.run, on_another_loop())


class TestGaps:
    async def test_a_new_lineage_resets_everyone_once(self, hub: Hub, connect: Connect) -> None:
        readers = [connect("a"), connect("b")]
        await until(lambda: all(reader.chunks for reader in readers))
        hub.deliver(lambda: hub.restart("new", 5 << 64))
        await until(lambda: all("reset" in reader.types() for reader in readers))
        assert [reader.ids()[-1] for reader in readers] == ["new:5-0", "new:5-0"]
        assert all(reader.types() == ["connected", "reset"] for reader in readers)

    async def test_a_hole_in_the_bus_resets_everyone_once_and_goes_on(self, hub: Hub, connect: Connect) -> None:
        reader = connect("a")
        await reader.until(lambda reader: bool(reader.chunks))
        hub.deliver(lambda: hub.restart(hub.log.epoch, hub.log.head + 1))
        await abroadcast("a", "n", 1)
        await reader.until(lambda reader: reader.data("n") == ["1"] or "reset" in reader.types())
        await abroadcast("a", "n", 2)
        await reader.until(lambda reader: "2" in reader.data("n"))
        assert reader.types().count("reset") == 1


class TestClosing:
    async def test_a_shutdown_tells_everyone_when_to_come_back(self, connect: Connect) -> None:
        readers = [connect("a") for _ in range(20)]
        await until(lambda: all(reader.chunks for reader in readers))
        hub = running_hub()
        hub.shut_down()
        for reader in readers:
            await reader.done()
        retries = {text for reader in readers for text in reader.text.split("retry: ")[2:]}
        assert len(retries) > 10, "spread"
        assert all('"reason":"shutdown","reconnect":true' in reader.text for reader in readers)
        assert len(hub.clients) == 0

    async def test_a_worker_that_shuts_down_turns_new_ones_away_politely(self, connect: Connect) -> None:
        running_hub().shut_down()
        late = connect("a")
        await late.done()
        assert late.types() == ["goodbye"]
        assert '"reconnect":true' in late.text

    async def test_disconnect_clients_is_final_and_no_ban(self, connect: Connect) -> None:
        mine, other = connect("a", user_pk="7"), connect("a", user_pk="8")
        await until(lambda: bool(mine.chunks and other.chunks))
        disconnect_clients(user=7)
        await mine.done()
        assert mine.types()[-1] == "goodbye"
        assert '"reason":"disconnected","reconnect":false' in mine.text
        assert mine.ids()[-1].endswith("/end")
        assert other.client.is_open
        again = connect("a", user_pk="7")
        await again.until(lambda reader: reader.types() == ["connected"])

    async def test_every_condition_of_disconnect_clients_must_hold(self, connect: Connect) -> None:
        readers = [connect("a", user_pk="7"), connect("b", user_pk="7"), connect("b")]
        await until(lambda: all(reader.chunks for reader in readers))
        disconnect_clients(user=7, channel="b")
        await readers[1].done()
        assert readers[0].client.is_open and readers[2].client.is_open
        disconnect_clients(client_id=readers[2].client.id)
        await readers[2].done()
        assert readers[0].client.is_open

    async def test_disconnecting_is_not_repeated_for_who_comes_later(self, connect: Connect) -> None:
        start = parse_id(stream_position())
        disconnect_clients(user=7)
        reader = connect("a", user_pk="7", last_id=start)
        await abroadcast("a", "n", 1)
        await reader.until(lambda reader: reader.data("n") == ["1"])
        assert "goodbye" not in reader.types()

    async def test_a_client_that_comes_while_others_are_ended_is_not_one_of_them(
        self, hub: Hub, connect: Connect, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_sse_live.hub.inbox.SLICE_SECONDS", 0.0)  # as on a busy machine
        before = connect("a", user_pk="7")
        await before.until(lambda reader: reader.types() == ["connected"])
        disconnect_clients(user=7)
        later = connect("a", user_pk="7")
        await before.done()
        await abroadcast("a", "n", 1)
        await later.until(lambda reader: reader.data("n") == ["1"])
        assert "goodbye" not in later.types()


class TestLimits:
    @override_settings(SSE_LIVE={"MAX_CLIENTS": 2})
    async def test_a_full_worker_says_goodbye_and_when_to_come_back(self, connect: Connect) -> None:
        first = connect("a")
        connect("a")
        third = connect("a")
        await third.done()
        assert third.types() == ["goodbye"]
        assert '"reason":"too_many_clients","reconnect":true' in third.text
        await first.leave()
        fourth = connect("a")
        await fourth.until(lambda reader: reader.types() == ["connected"])


class TestWhatIsSeenFromOutside:
    async def test_the_three_log_lines(self, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, "django_sse_live"):
            reader = connect("a")
            await reader.until(lambda reader: bool(reader.chunks))
            await abroadcast("a", "new_comment")
            await reader.until(lambda reader: "new_comment" in reader.types())
            await reader.leave()
        assert [record.getMessage() for record in caplog.records] == [
            f"SSE client connected (ID: {reader.client.id}). Total clients: 1",
            "Broadcasted to 1 SSE clients: new_comment",
            f"SSE client disconnected (ID: {reader.client.id}). Total clients: 0",
        ]

    async def test_the_count_in_the_log_counts_each_client_once(
        self, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        readers = [connect("a", "b"), connect("a"), connect("b"), connect("c")]
        await until(lambda: all(reader.chunks for reader in readers))
        with caplog.at_level(logging.INFO, "django_sse_live"):
            await abroadcast(["a", "b"], "t")
            await readers[0].until(lambda reader: "t" in reader.types())
        assert "Broadcasted to 3 SSE clients: t" in caplog.messages

    async def test_what_is_known_of_a_client(self, connect: Connect, hub: Hub) -> None:
        reader = connect("a", user_pk="7", address="203.0.113.9", user_agent="curl/8")
        await reader.until(lambda reader: bool(reader.chunks))
        await abroadcast("a", "t", 1)
        await reader.until(lambda reader: "t" in reader.types())
        client = hub.clients.get(reader.client.id)
        assert client is not None
        assert (client.user_pk, client.address, client.user_agent) == ("7", "203.0.113.9", "curl/8")
        assert client.channels == ("a",)
        assert client.events_sent == 1
        assert client.bytes_sent == len(b"".join(reader.chunks))
        assert client.connected.tzinfo is not None
        assert client.last_ping == client.connected_at
        assert client.close_reason is None
        await reader.leave()
        assert client.close_reason == "client"
        assert hub.clients.get(client.id) is None

    async def test_signals_go_out_to_sync_and_async_receivers(self, connect: Connect) -> None:
        seen: list[object] = []

        def on_connected(*, client: Client, **kwargs: object) -> None:
            seen.append(("connected", client.id, threading.current_thread() is threading.main_thread()))

        async def on_broadcast(*, event: object, client_count: int, **kwargs: object) -> None:
            seen.append(("broadcast", event.type, client_count))

        def on_disconnected(*, client: Client, **kwargs: object) -> None:
            seen.append(("disconnected", client.close_reason))
            raise RuntimeError("a receiver that fails harms nobody")

        client_connected.connect(on_connected)
        event_broadcast.connect(on_broadcast)
        client_disconnected.connect(on_disconnected)
        try:
            reader = connect("a")
            await until(lambda: len(seen) == 1)
            await abroadcast("a", "t")
            await until(lambda: len(seen) == 2)
            await reader.leave()
            await until(lambda: len(seen) == 3)
        finally:
            client_connected.disconnect(on_connected)
            event_broadcast.disconnect(on_broadcast)
            client_disconnected.disconnect(on_disconnected)
        assert seen == [("connected", reader.client.id, False), ("broadcast", "t", 1), ("disconnected", "client")]


class TestHubs:
    def test_a_short_lived_loop_that_only_publishes_gets_none(self) -> None:
        before = len(open_hubs())
        asyncio.run(abroadcast("a", "t"))
        assert len(open_hubs()) <= before

    def test_a_save_cannot_fail_on_a_loop_that_is_closed(self) -> None:
        async def serve() -> Hub:
            return running_hub()

        hub = asyncio.run(serve())
        assert hub in open_hubs()
        broadcast("a", "t")
        assert hub not in open_hubs()

    def test_a_loop_that_is_closed_before_it_has_heard_everything_keeps_nothing(self) -> None:
        async def serve() -> Hub:
            return running_hub()

        loop = asyncio.new_event_loop()
        hub = loop.run_until_complete(serve())
        broadcast("a", "t")
        assert hub in open_hubs()
        loop.close()
        broadcast("a", "t")
        assert hub not in open_hubs()

    def test_each_loop_hears_every_event(self) -> None:
        ready, stop = threading.Barrier(3), threading.Event()
        heard: list[str] = []

        async def serve() -> None:
            client = make_client(running_hub(), ("a",))
            client.open()
            ready.wait(60)
            text = b""
            while b"event: t" not in text:
                chunk = client.take()
                if chunk is None:
                    await asyncio.wait_for(client.wait(), 60)
                else:
                    text += chunk
            client.leave()
            heard.append(text.decode().split("id: ")[-1])

        threads = [threading.Thread(target=asyncio.run, args=(serve(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        ready.wait(60)
        broadcast("a", "t", 1)
        for thread in threads:
            thread.join(60)
        stop.set()
        assert len(heard) == 2 and heard[0] == heard[1]

    async def test_the_backend_is_one_per_process(self) -> None:
        assert get_backend() is get_backend()
