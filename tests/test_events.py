"""The wire: each rule of the HTML standard's "event stream interpretation" that concerns a writer, and the ids."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum

import pytest

from django_sse_live.events import (
    Event,
    format_id,
    make_position,
    parse_id,
    validate_channels,
    validate_name,
    validate_type,
)
from django_sse_live.wire import connected_frame, encode_json, goodbye_frame, heartbeat_frame, reset_frame


def stamped(*args: object, **kwargs: object) -> Event:
    event = Event(*args, **kwargs)
    event.stamp("5f3a", make_position(1764150000123, 0))
    return event


def fields(body: bytes) -> list[tuple[str, str]]:
    """The fields of one block, in order."""
    text = body.decode()
    assert text.endswith("\n\n") and "\n\n" not in text[:-2], "one block, ended by one empty line"
    return [tuple(line.split(": ", 1)) for line in text[:-2].split("\n")]


class TestNamedForm:
    def test_has_id_type_and_data(self) -> None:
        event = stamped(("comments",), "new_comment", '{"id":7}')
        assert event.named() == b'id: 5f3a:1764150000123-0\nevent: new_comment\ndata: {"id":7}\n\n'

    @pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
    def test_a_line_break_in_text_begins_another_data_line(self, line_break: str) -> None:
        event = stamped(("c",), "t", f"one{line_break}two", is_text=True)
        assert fields(event.named())[2:] == [("data", "one"), ("data", "two")]

    def test_text_that_ends_in_a_line_break_keeps_it(self) -> None:
        # The standard's reader drops one LF at the end of the data; the empty last line is that one.
        event = stamped(("c",), "t", "one\n", is_text=True)
        assert event.named().endswith(b"data: one\ndata: \n\n")

    def test_empty_text_is_still_dispatched(self) -> None:
        # A block without a data line would be dropped by the reader.
        assert stamped(("c",), "t", "", is_text=True).named().endswith(b"event: t\ndata: \n\n")

    def test_text_that_looks_like_a_field_stays_data(self) -> None:
        event = stamped(("c",), "t", "x\nevent: forged\n\nid: 1", is_text=True)
        assert [value for name, value in fields(event.named()) if name == "event"] == ["t"]

    def test_unicode_is_utf_8(self) -> None:
        assert "žluťoučký 🐎".encode() in stamped(("c",), "t", "žluťoučký 🐎", is_text=True).named()

    def test_line_separators_that_are_not_of_the_standard_are_left_alone(self) -> None:
        text = "a\u2028b\u2029c\x0bd\x0ce\x85f"
        assert fields(stamped(("c",), "t", text, is_text=True).named())[2:] == [("data", text)]

    def test_a_very_long_line_stays_one_line(self) -> None:
        text = "x" * 1_000_000
        assert fields(stamped(("c",), "t", text, is_text=True).named())[2] == ("data", text)


class TestEnvelopeForm:
    def test_has_no_event_field_and_all_in_the_data(self) -> None:
        event = stamped(("comments",), "new_comment", '{"id":7}')
        assert event.envelope(frozenset({"comments"})) == (
            b'id: 5f3a:1764150000123-0\ndata: {"type":"new_comment","channels":["comments"],"data":{"id":7}}\n\n'
        )

    def test_text_comes_as_a_string_with_its_line_breaks(self) -> None:
        event = stamped(("c",), "t", 'a\r\n"b"', is_text=True)
        ((_, _), (_, data)) = fields(event.envelope(frozenset({"c"})))
        assert json.loads(data)["data"] == 'a\r\n"b"'

    def test_names_only_the_channels_that_its_reader_hears(self) -> None:
        event = stamped(("a", "b", "secret"), "t", "null")
        heard = json.loads(fields(event.envelope(frozenset({"b", "a", "z"})))[1][1])
        assert heard["channels"] == ["a", "b"]
        assert b"secret" not in event.envelope(frozenset({"a"}))

    def test_a_patch_rides_beside_the_data(self) -> None:
        event = stamped(("c",), "t", '{"patch":"mine"}', patch='{"action":"remove","target":"x"}')
        value = json.loads(fields(event.envelope(frozenset({"c"})))[1][1])
        assert (value["data"], value["patch"]) == ({"patch": "mine"}, {"action": "remove", "target": "x"})
        assert b"action" not in event.named()

    def test_a_patch_counts_as_part_of_the_size(self) -> None:
        html = "é" * 10_000
        assert stamped(("c",), "t", "null", patch=html).size - stamped(("c",), "t", "null").size == 40_000


class Kind(str, Enum):
    NEW = "new_comment"
    CHANNEL = "comments"


class TestSubclassesOfStr:
    """What an enum's member says of itself is not the text that it is."""

    def test_names_become_plain_text(self) -> None:
        for name in (validate_type(Kind.NEW), validate_name("channel", Kind.NEW), *validate_channels([Kind.NEW])):
            assert (type(name), f"{name}") == (str, "new_comment")
        assert type(validate_channels(Kind.CHANNEL)[0]) is str

    def test_every_form_has_the_text(self) -> None:
        event = stamped(validate_channels(Kind.CHANNEL), validate_type(Kind.NEW), "null")
        assert ("event", "new_comment") in fields(event.named())
        assert json.loads(fields(event.envelope(frozenset({"comments"})))[1][1])["type"] == "new_comment"


def test_the_type_message_is_what_an_eventsource_calls_an_event_without_a_name() -> None:
    assert fields(stamped(("c",), "message", "null").named()) == [("id", "5f3a:1764150000123-0"), ("data", "null")]
    assert b'"type":"message"' in stamped(("c",), "message", "null").envelope(frozenset({"c"}))


class TestCompletion:
    def test_what_is_known_after_the_commit_is_filled_in_once(self) -> None:
        calls = []

        def finish(event: Event) -> bool:
            calls.append(event)
            event.payload = '"done"'
            return True

        event = Event(("c",), "t", "null", finish=finish)
        assert event.complete() and event.complete()
        assert (event.data, calls) == ("done", [event])

    def test_an_event_that_says_it_is_none_is_not_sent(self) -> None:
        assert Event(("c",), "t", "null").complete()
        assert not Event(("c",), "t", "null", finish=lambda event: False).complete()


def test_each_form_is_encoded_once() -> None:
    event = stamped(("c",), "t", "null")
    assert event.named() is event.named()
    assert event.envelope(frozenset({"c"})) is event.envelope(frozenset({"c", "d"}))
    several = stamped(("a", "b"), "t", "null")
    assert several.envelope(frozenset({"a"})) is several.envelope(frozenset({"a", "x"}))


class TestControlFrames:
    def test_connected_has_an_id_and_the_retry_time(self) -> None:
        body = connected_frame(
            "named",
            id="5f3a:1-0",
            retry_ms=2000,
            client_id="c1",
            channels=("a",),
            heartbeat_seconds=30,
            resumed=False,
            tokens=(),
        )
        assert fields(body)[:3] == [("retry", "2000"), ("id", "5f3a:1-0"), ("event", "connected")]
        assert json.loads(fields(body)[3][1]) == {
            "type": "connected",
            "client_id": "c1",
            "channels": ["a"],
            "heartbeat": 30,
            "resumed": False,
            "token": None,
        }

    def test_the_envelope_form_has_the_same_data_and_no_event_field(self) -> None:
        assert fields(reset_frame("envelope", id="e:1-2", reason="history_expired")) == [
            ("id", "e:1-2"),
            ("data", '{"type":"reset","reason":"history_expired"}'),
        ]

    def test_heartbeat_has_an_iso_8601_timestamp(self) -> None:
        (_, _, (_, data)) = fields(heartbeat_frame("named", id="e:1-2"))
        timestamp = json.loads(data)["timestamp"]
        assert timestamp.endswith("Z") and datetime.fromisoformat(timestamp.replace("Z", "+00:00"))

    def test_a_goodbye_says_when_to_come_back(self) -> None:
        body = goodbye_frame("named", reason="shutdown", retry_ms=3140, id="e:1-2")
        assert fields(body)[:2] == [("retry", "3140"), ("event", "goodbye")]
        assert json.loads(fields(body)[2][1]) == {
            "type": "goodbye",
            "reason": "shutdown",
            "reconnect": True,
            "retry": 3140,
        }

    def test_a_final_goodbye_marks_the_id_that_the_browser_will_bring_back(self) -> None:
        body = goodbye_frame("named", reason="disconnected", retry_ms=None, id="e:1-2")
        assert fields(body)[0] == ("id", "e:1-2/end")
        assert json.loads(fields(body)[2][1])["reconnect"] is False


class TestIds:
    def test_what_is_formatted_can_be_parsed(self) -> None:
        position = make_position(1764150000123, 7)
        assert format_id("5f3a", position) == "5f3a:1764150000123-7"
        assert parse_id("5f3a:1764150000123-7") == ("5f3a", position)

    def test_positions_grow_as_ids_do(self) -> None:
        assert make_position(1, 2**64 - 1) < make_position(2, 0)

    @pytest.mark.parametrize(
        "text",
        ["", "5f3a", "5f3a:1", "5f3a:1-", "5f3a:-1-0", "5F3A:1-0", "5f3a:1-0 ", "5f3a:1-0\n", ":1-0", "a:1-0/end",
         "5f3a:1-99999999999999999999", "5f3a:9999999999999999-0", "5f3a:１-０", "x" * 100_000],
    )  # fmt: skip
    def test_anything_else_is_none(self, text: str) -> None:
        assert parse_id(text) is None


class TestNames:
    @pytest.mark.parametrize("name", ["comments", "user:42", "a b", "ž", "x" * 200, "日本語/…#?&"])
    def test_good_ones(self, name: str) -> None:
        assert validate_name("channel", name) == name

    @pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\rb", "a\0b", "a\tb", "\x7f", "\x85", "\ud800"])
    def test_bad_ones_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="channel"):
            validate_name("channel", name)

    def test_something_else_than_a_str_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="channel must be a str, not int"):
            validate_name("channel", 7)

    @pytest.mark.parametrize(
        "type",
        ["connected", "heartbeat", "reset", "goodbye", "answer", "statechange", "error", "open", "stale", "patched",
         "sse.anything"],
    )  # fmt: skip
    def test_types_of_the_stream_itself_are_reserved(self, type: str) -> None:
        with pytest.raises(ValueError, match="reserved"):
            validate_type(type)

    def test_channels_are_one_name_or_several(self) -> None:
        assert validate_channels("a") == ("a",)
        assert validate_channels(["a", "b", "a"]) == ("a", "b")
        with pytest.raises(ValueError, match="at least one channel"):
            validate_channels([])
        with pytest.raises(TypeError, match="iterable"):
            validate_channels(7)


class TestJSON:
    def test_nan_is_not_json(self) -> None:
        with pytest.raises(ValueError, match="not JSON compliant"):
            encode_json({"x": float("nan")}, json.JSONEncoder)

    def test_a_lone_surrogate_is_escaped(self) -> None:
        assert encode_json("\ud800", json.JSONEncoder) == '"\\ud800"'

    def test_is_compact_and_readable(self) -> None:
        assert encode_json({"a": ["ž", 1]}, json.JSONEncoder) == '{"a":["ž",1]}'


class TestLines:
    """The form for a carrier that has messages of its own."""

    def test_each_is_one_json_object_with_its_id(self) -> None:
        event = stamped(("comments",), "new_comment", '{"id":7}')
        assert event.lines(frozenset({"comments"})) == (
            b'{"id":"5f3a:1764150000123-0","type":"new_comment","channels":["comments"],"data":{"id":7}}\n'
        )

    def test_a_line_break_in_json_is_white_space(self) -> None:
        body = stamped(("c",), "t", '{\n"a":\r\n"b\\n"}').lines(frozenset({"c"}))
        assert body.count(b"\n") == 1 and b"\r" not in body
        assert json.loads(body)["data"] == {"a": "b\n"}

    def test_text_and_patch_are_in_it(self) -> None:
        text = stamped(("c",), "t", "one\ntwo \u2028", is_text=True).lines(frozenset({"c"}))
        assert text.count(b"\n") == 1 and json.loads(text)["data"] == "one\ntwo \u2028"

    def test_only_channels_that_are_heard_are_named(self) -> None:
        event = stamped(("a", "secret", "b"), "t", "1")
        assert json.loads(event.lines(frozenset({"b", "a"})))["channels"] == ["a", "b"]
        assert b"secret" not in event.lines(frozenset({"a"}))

    def test_it_is_encoded_once(self) -> None:
        event = stamped(("c",), "t", "1")
        assert event.lines(frozenset({"c"})) is event.lines(frozenset({"c", "d"}))
        several = stamped(("a", "b"), "t", "1")
        assert several.lines(frozenset({"a"})) is several.lines(frozenset({"a", "x"}))

    def test_control_frames_have_their_id_inside(self) -> None:
        frame = json.loads(reset_frame("lines", id="e:1-1", reason="unknown_id"))
        assert frame == {"id": "e:1-1", "type": "reset", "reason": "unknown_id"}
        assert json.loads(goodbye_frame("lines", reason="shutdown", retry_ms=3)) == {
            "type": "goodbye", "reason": "shutdown", "reconnect": True, "retry": 3,
        }  # fmt: skip
