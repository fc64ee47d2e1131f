"""EventLog: ordered, bounded, and honest about what it has forgotten."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_sse_live.events import Event
from django_sse_live.hub.log import EVICTED_CHANNELS_MAX, READ_EVENTS, EventLog


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def event(position: int, *channels: str, size: int = 2) -> Event:
    return Event(channels or ("a",), "t", "x" * size, position=position)


def log_of(*events: Event) -> EventLog:
    log = EventLog("e")
    for each in events:
        assert log.append(each)
    return log


def positions(events: list[Event]) -> list[int]:
    return [each.position for each in events]


class TestReading:
    def test_gives_what_came_after_a_position(self) -> None:
        log = log_of(*(event(n) for n in range(1, 6)))
        assert positions(log.read(["a"], 3)) == [4, 5]
        assert positions(log.read(["a"], 0)) == [1, 2, 3, 4, 5]
        assert log.read(["a"], 5) == []

    def test_a_position_ahead_of_the_head_has_nothing_yet(self) -> None:
        log = log_of(event(1))
        assert log.read(["a"], 99) == []
        assert not log.lost(["a"], 99)

    def test_other_channels_are_not_seen(self) -> None:
        log = log_of(event(1, "a"), event(2, "b"), event(3, "a"))
        assert positions(log.read(["a"], 0)) == [1, 3]
        assert log.read(["c"], 0) == []

    def test_several_channels_are_merged_in_order(self) -> None:
        log = log_of(event(1, "a"), event(2, "b"), event(3, "a"), event(4, "b"))
        assert positions(log.read(["b", "a"], 1)) == [2, 3, 4]

    def test_an_event_on_two_channels_comes_once(self) -> None:
        log = log_of(event(1, "a", "b"), event(2, "b"), event(3, "a", "b"))
        assert positions(log.read(["a", "b"], 0)) == [1, 2, 3]

    def test_one_read_is_bounded_and_misses_nothing(self) -> None:
        log = log_of(*(event(n, "a" if n % 3 else "b", *(["c"] if n % 2 else [])) for n in range(1, 3 * READ_EVENTS)))
        cursor, seen = 0, []
        while batch := log.read(["a", "b", "c"], cursor):
            assert len(batch) <= READ_EVENTS
            cursor = batch[-1].position
            seen += positions(batch)
        assert seen == list(range(1, 3 * READ_EVENTS))

    @pytest.mark.parametrize("times", [1, 40])
    def test_reading_on_through_many_channels_looks_at_each_event_a_few_times(
        self, times: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """``times``: how many times as many events the first channel has."""
        looks = 0
        slot = Event.position

        def look(each: Event) -> int:
            nonlocal looks
            looks += 1
            return slot.__get__(each)  # type: ignore[attr-defined, no-any-return]

        channels = [str(n) for n in range(50)]
        names = times * channels[:1] + channels[1:]
        count = 20_000
        with override_settings(SSE_LIVE={"HISTORY_EVENTS": count}):
            log = log_of(*(event(n, names[n % len(names)]) for n in range(1, count + 1)))
        monkeypatch.setattr(Event, "position", property(look))
        seen: list[int] = []
        while batch := log.read(channels, seen[-1] if seen else 0):
            seen += positions(batch)
        assert seen == list(range(1, count + 1))
        assert looks < 5 * count

    def test_what_is_not_newer_than_the_head_has_been_seen(self) -> None:
        log = log_of(event(5))
        assert not log.append(event(5))
        assert not log.append(event(4))
        assert positions(log.read(["a"], 0)) == [5]


class TestBounds:
    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 3})
    def test_by_events(self) -> None:
        log = log_of(*(event(n) for n in range(1, 6)))
        log.evict()
        assert positions(log.read(["a"], 0)) == [3, 4, 5]

    @override_settings(SSE_LIVE={"HISTORY_BYTES": 10_000})
    def test_by_bytes(self) -> None:
        log = log_of(*(event(n, size=1_000) for n in range(1, 10)))
        log.evict()
        assert log.bytes <= 10_000
        assert 0 < len(log) < 9

    @override_settings(SSE_LIVE={"HISTORY_SECONDS": 60})
    def test_by_age(self) -> None:
        clock = Clock()
        log = EventLog("e", clock=clock)
        log.append(event(1))
        clock.now += 50
        log.append(event(2))
        log.evict()
        assert len(log) == 2
        clock.now += 11
        log.evict()
        assert positions(log.read(["a"], 1)) == [2]

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 10})
    def test_with_slack_it_keeps_up_to_twice_as_much(self) -> None:
        log = log_of(*(event(n) for n in range(1, 21)))
        log.evict(slack=2)
        assert len(log) == 20
        log.append(event(21))
        log.evict(slack=2)
        assert positions(log.read(["a"], 0)) == list(range(2, 22))
        log.evict()
        assert len(log) == 10

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 50})
    def test_long_use_leaves_no_trace(self) -> None:
        log = EventLog("e")
        for n in range(1, 20_000):
            log.append(event(n, f"channel-{n % 7}", "all"))
            log.evict()
        assert len(log) == 50
        assert positions(log.read(["all"], 0)) == list(range(19_950, 20_000))
        assert sum(len(lane.events) for lane in log._lanes.values()) < 500


class TestWhatIsLost:
    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 2})
    def test_is_known_to_the_position(self) -> None:
        log = log_of(*(event(n) for n in range(1, 6)))
        log.evict()  # 1, 2, 3 are gone
        assert log.lost(["a"], 2)
        assert not log.lost(["a"], 3)

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 2})
    def test_a_quiet_channel_is_not_lost_through_the_traffic_of_others(self) -> None:
        log = log_of(event(1, "quiet"), *(event(n, "loud") for n in range(2, 100)))
        log.evict()
        assert log.lost(["quiet"], 0)
        assert not log.lost(["quiet"], 1)
        assert not log.lost(["never"], 0)
        assert log.lost(["quiet", "loud"], 1)

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 1})
    def test_what_is_evicted_while_clients_catch_up_is_not_forgotten_with_what_was_before(self) -> None:
        total = EVICTED_CHANNELS_MAX + 10
        log = EventLog("e")
        for n in range(1, total + 2):
            log.append(event(n, f"channel-{n}"))
        log.evict()
        up_to = 4  # as if the others had been evicted since
        log.forget(up_to)
        assert not log.lost(["channel-5"], 5) and not log.lost(["quiet"], 4)
        assert log.lost(["quiet"], 3)

    @override_settings(SSE_LIVE={"HISTORY_EVENTS": 1})
    def test_beneath_the_channels_known_by_name_there_is_one_floor(self) -> None:
        total = EVICTED_CHANNELS_MAX + 10
        log = EventLog("e")
        for n in range(1, total + 2):
            log.append(event(n, f"channel-{n}"))
        log.evict()
        assert not log.must_forget
        log.forget(log.evicted_to)
        assert len(log._evicted) == EVICTED_CHANNELS_MAX
        assert log.lost(["channel-1"], 0)
        assert not log.lost(["never"], 10)  # at the floor
        assert log.lost(["never"], 9)  # beneath it nobody knows any more: better a reset than a silent gap
        assert not log.lost([f"channel-{total}"], total)

    def test_a_log_that_begins_later_has_lost_what_was_before(self) -> None:
        log = EventLog("e", head=100)
        assert log.lost(["a"], 99)
        assert not log.lost(["a"], 100)

    def test_a_later_beginning_leaves_nobody_where_they_were(self) -> None:
        log = log_of(event(1), event(2))
        log.restart("e", log.head + 1)
        assert log.lost(["a"], 2)
        assert not log.lost(["a"], log.head)
        assert log.append(event(10))


@override_settings(SSE_LIVE={"HISTORY_EVENTS": 3})
def test_a_copy_knows_the_same_and_goes_its_own_way() -> None:
    log = log_of(*(event(n, "a" if n % 2 else "b") for n in range(1, 8)))
    log.evict()
    twin = log.copy()
    for each in (log, twin):
        assert positions(each.read(["a", "b"], 0)) == [5, 6, 7]
        assert each.lost(["a"], 2) and not each.lost(["a"], 3)
        assert (each.head, each.bytes, each.epoch) == (7, log.bytes, "e")
    twin.append(event(8))
    twin.evict()
    assert positions(twin.read(["a", "b"], 0)) == [6, 7, 8]
    assert positions(log.read(["a", "b"], 0)) == [5, 6, 7]


@pytest.mark.parametrize("channels", [("a",), ("a", "b")])
def test_ids_are_of_the_head(channels: tuple[str, ...]) -> None:
    log = EventLog("abc")
    assert log.head_id == "abc:0-0"
    log.append(event((7 << 64) + 3, *channels))
    assert log.head_id == "abc:7-3"
