"""Whatever is broadcast: a reader that knows only the HTML standard gets exactly that, and not a frame more."""

from __future__ import annotations

import asyncio
import json
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sse_live import abroadcast, stream_position
from django_sse_live.backends import get_backend, running_hub
from django_sse_live.broadcasting import _text_event
from django_sse_live.events import parse_id
from django_sse_live.wire import Form
from tests.clients import make_client
from tests.event_stream import EventStreamParser, Message
from tests.fuzz.conftest import Run, fuzz

pytestmark = pytest.mark.usefixtures("_quiet")


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="django_sse_live")


hostile = st.sampled_from(
    [
        "\n",
        "\r",
        "\r\n",
        "\n\n",
        "\r\r",
        ": ",
        "data: x",
        "\ndata: x\n\n",
        "\nid: 0:0-0\n",
        "\nevent: goodbye\n",
        "\ufeff",
        "\x00",
        "\u2028",
        "\u2029",
        "\x85",
        "\x0b",
        "\x0c",
        "</script>",
        "retry: 1",
        " ",
        "\ud800",
        "\U0001f600",
    ]
)
text = st.lists(st.one_of(hostile, st.text(max_size=12)), max_size=8).map("".join)
utf8_text = text.map(lambda value: value.encode("utf-8", "replace").decode())
data = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text),
    lambda children: st.one_of(st.lists(children, max_size=4), st.dictionaries(text, children, max_size=4)),
    max_leaves=8,
)
names = st.one_of(
    st.sampled_from(
        ["new_comment", "ä", "a:b", " a", "a ", ":", "message", "errors", "opened", "data", "id", "retry: 1"] * 2
    ),
    st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=30),
    text,
)


def is_name(name: str) -> bool:
    return 0 < len(name) <= 200 and not any(unicodedata.category(char) in ("Cc", "Cs") for char in name)


def is_type(name: str) -> bool:
    return is_name(name) and name not in ("connected", "heartbeat", "reset", "goodbye") and not name.startswith("sse.")


class Listener:
    """One client, whose bytes reach the parser in pieces of any size."""

    def __init__(self, form: Form, channels: tuple[str, ...], cuts: Iterator[int]) -> None:
        self.client = make_client(running_hub(), channels, form)
        self.client.open()
        self.parser = EventStreamParser()
        self._cuts = cuts
        self.take()

    def take(self) -> list[Message]:
        messages = []
        while (chunk := self.client.take()) is not None:
            while chunk:
                size = next(self._cuts)
                messages += self.parser.feed(chunk[:size])
                chunk = chunk[size:]
        return messages


def sizes(seed: int) -> Iterator[int]:
    while True:
        seed = (seed * 1103515245 + 12345) % 2**31
        yield 1 + seed % 97


async def drained() -> None:
    done = asyncio.Event()
    running_hub().deliver(done.set)
    await done.wait()


@fuzz(0.3, 300)
@given(channel=names, type=names, data=data, seed=st.integers(0, 2**31))
def test_any_json(channel: str, type: str, data: Any, seed: int, run: Run, outcomes: Counter[str]) -> None:
    async def scenario() -> None:
        if not (is_name(channel) and is_type(type)):
            with pytest.raises(ValueError, match=r"must have|is reserved"):
                await abroadcast(channel, type, data)
            outcomes["a name that would break the stream, refused"] += 1
            return
        named, envelope = (Listener(form, (channel,), sizes(seed)) for form in ("named", "envelope"))
        await abroadcast(channel, type, data)
        await drained()
        (event,), (enveloped,) = named.take(), envelope.take()
        assert (event.type, event.json) == (type, data)
        assert event.last_event_id == enveloped.last_event_id == stream_position()
        assert enveloped.type == "message"
        assert enveloped.json == {"type": type, "channels": [channel], "data": data}
        for listener in (named, envelope):
            listener.client.leave()
        outcomes["JSON, as it was"] += 1

    run(scenario())


@fuzz(0.1, 200)
@given(value=utf8_text, seed=st.integers(0, 2**31))
def test_any_text(value: str, seed: int, run: Run, outcomes: Counter[str]) -> None:
    async def scenario() -> None:
        named, envelope = (Listener(form, ("a",), sizes(seed)) for form in ("named", "envelope"))
        await get_backend().apublish(_text_event("a", "fragment", value))
        await drained()
        (event,), (enveloped,) = named.take(), envelope.take()
        assert event.data == value.replace("\r\n", "\n").replace("\r", "\n")  # the standard has but one line break
        assert event.type == "fragment"
        assert enveloped.json == {"type": "fragment", "channels": ["a"], "data": value}
        for listener in (named, envelope):
            listener.client.leave()
        outcomes["text, line by line as it was"] += 1

    run(scenario())


@fuzz(0.1, 200)
@given(id=st.one_of(text, st.from_regex(r"[0-9a-z]{1,34}:[0-9]{1,16}-[0-9]{1,21}", fullmatch=True)))
def test_any_id_that_a_client_brings(id: str, run: Run, outcomes: Counter[str]) -> None:
    async def scenario() -> None:
        hub = running_hub()
        client = make_client(hub, ("a",), last_id=parse_id(id) or "unknown")
        client.open()
        body = client.take()
        assert body is not None
        connected, reset = EventStreamParser().feed(body)
        assert (connected.type, connected.id, connected.json["resumed"]) == ("connected", None, False)
        assert (reset.type, reset.id) == ("reset", hub.log.head_id)
        client.leave()
        outcomes["an id of nowhere, reset"] += 1

    run(scenario())


def test_the_parser_reads_the_standards_own_examples() -> None:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    from tests.event_stream import parse

    stock = parse(b"data: YHOO\ndata: +2\ndata: 10\n\n")
    assert [(message.type, message.data) for message in stock] == [("message", "YHOO\n+2\n10")]
    four = parse(b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n")
    assert [(message.data, message.last_event_id) for message in four] == [
        ("first event", "1"),
        ("second event", ""),
        (" third event", ""),
    ]
    assert [message.data for message in parse(b"data\n\ndata\ndata\n\ndata:")] == ["", "\n"]
    assert [message.data for message in parse(b"data:test\n\ndata: test\n\n")] == ["test", "test"]
    assert [message.data for message in parse(b"\xef\xbb\xbfdata: a\r\rdata: b\r\n\r\n")] == ["a", "b"]
    assert [message.last_event_id for message in parse(b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n")] == ["1", "1"]
    assert json.loads(four[0].data.replace("first event", "1")) == 1
