"""Our stream, read by others: each sees the same events."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.live.browser.conftest import NODE_MODULES, need
from tests.runserver import ROOT, Runserver

Read = tuple[str, str, str]  # type, data, id

# (type, data as it is broadcast, data as it is read): JSON, and text of every awkward shape.
EVENTS: list[tuple[str, dict[str, Any], str]] = [
    ("note", {"data": {"id": 7, "text": "ünïcode 🎈"}}, '{"id":7,"text":"ünïcode 🎈"}'),
    ("with space", {"data": [1, None, True]}, "[1,null,true]"),
    (
        "note",
        {"html": "<li>one</li>\n<li>two</li>\r\n<li>three</li>\r"},
        "<li>one</li>\n<li>two</li>\n<li>three</li>\n",
    ),
    ("note", {"html": " a space before, and a colon: after"}, " a space before, and a colon: after"),
    # A line break at the very start would be too much for fetch-event-source, which drops it.
    ("note", {"html": "one\n\n\nfour\n"}, "one\n\n\nfour\n"),
    ("note", {"data": "x" * 300_000}, json.dumps("x" * 300_000)),
    ("note", {"data": "\u2028 \u0000 \ufeff"}, '"\u2028 \\u0000 \ufeff"'),
    ("end", {"data": None}, "null"),
]


def decode(lines: Iterator[str]) -> Iterator[Read]:
    """https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation"""
    data: list[str] = []
    type = last_id = ""
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield type or "message", "\n".join(data), last_id
            data, type = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            type = value
        elif name == "id":
            last_id = value


def by_curl(url: str) -> Iterator[Read]:
    (curl,) = need("curl")
    with subprocess.Popen([curl, "-sN", "-H", "Accept: text/event-stream", url], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield from decode(line.decode().removesuffix("\n") for line in process.stdout)
        finally:
            process.terminate()


def by_httpx_sse(url: str) -> Iterator[Read]:
    httpx_sse = pytest.importorskip("httpx_sse", reason="needs httpx-sse")
    with httpx.Client(timeout=60) as client, httpx_sse.connect_sse(client, "GET", url) as source:
        for event in source.iter_sse():
            yield event.event, event.data, event.id


def by_sseclient(url: str) -> Iterator[Read]:
    sseclient = pytest.importorskip("sseclient", reason="needs sseclient-py")
    with httpx.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=60) as response:
        for event in sseclient.SSEClient(response.iter_bytes()).events():
            yield event.event, event.data, event.id


def by_launchdarkly(url: str) -> Iterator[Read]:
    ld_eventsource = pytest.importorskip("ld_eventsource", reason="needs launchdarkly-eventsource")
    with ld_eventsource.SSEClient(url) as client:
        for event in client.events:
            yield event.event, event.data, event.last_event_id


def by_node(reader: str, package: str) -> Callable[[str], Iterator[Read]]:
    def read(url: str) -> Iterator[Read]:
        (node,) = need("node")
        if not (NODE_MODULES / package).is_dir():
            pytest.skip(f"needs {package}, which is not on this machine (npm install --prefix tests/js)")
        script = str(ROOT / "tests/js/interop/read.mjs")
        with subprocess.Popen([node, script, reader, url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line == "ready\n":
                        yield "connected", "", ""
                    else:
                        type, data, id = json.loads(line)
                        yield type, data, id
            finally:
                process.terminate()

    return read


READERS: dict[str, Callable[[str], Iterator[Read]]] = {
    "curl": by_curl,
    "httpx-sse": by_httpx_sse,
    "sseclient-py": by_sseclient,
    "launchdarkly-eventsource": by_launchdarkly,
    "eventsource": by_node("eventsource", "eventsource"),
    "eventsource-parser": by_node("eventsource-parser", "eventsource-parser"),
    "reconnecting-eventsource": by_node("reconnecting-eventsource", "reconnecting-eventsource"),
    "fetch-event-source": by_node("fetch-event-source", "@microsoft/fetch-event-source"),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_sees_the_same_events(reader: str, site: Runserver) -> None:
    channel = uuid.uuid4().hex
    read: list[Read] = []
    for type, data, id in READERS[reader](f"{site.url}/events/?channel={channel}"):
        if type == "connected":
            for event_type, body, _ in EVENTS:
                httpx.post(f"{site.url}/broadcast/", json={"channel": channel, "type": event_type, **body})
        elif type != "heartbeat":
            read.append((type, data, id))
        if type == "end":
            break
    assert [(type, data) for type, data, _ in read] == [(type, data) for type, _, data in EVENTS]
    ids = [id for _, _, id in read]
    assert len(set(ids)) == len(EVENTS)


def test_the_libraries_of_pages_work_with_it(window: Callable[..., Any], site: Runserver) -> None:
    """htmx, Alpine, Turbo, in a real page under a strict policy."""
    for package in ("htmx.org", "htmx-ext-sse", "@alpinejs/csp", "@hotwired/turbo"):
        if not (NODE_MODULES / package).is_dir():
            pytest.skip(f"needs {package}, which is not on this machine (npm install --prefix tests/js)")
    channel = uuid.uuid4().hex
    page = window().new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{site.url}/libraries/?channel={channel}")
    page.locator("sse-live[state=connected]").wait_for()
    page.locator("body[data-turbo]").wait_for(state="attached")

    def send(type: str, **body: Any) -> None:
        httpx.post(f"{site.url}/broadcast/", json={"channel": channel, "type": type, **body})

    send("new_comment", html="<b>hello\nthere</b>")
    send(
        "message", html='<turbo-stream action="append" target="turbo"><template><b>hello</b></template></turbo-stream>'
    )
    page.locator("#swapped b").get_by_text("hello there").wait_for()
    page.locator("#triggered b").get_by_text("fetched").wait_for()
    page.locator("#alpine").get_by_text("new_comment", exact=True).wait_for()
    page.locator("#turbo b").get_by_text("hello", exact=True).wait_for()
    assert page.locator("#turbo b").count() == 1
    assert complaints == []
