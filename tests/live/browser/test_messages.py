"""Messages from real pages: by POST, over a WebSocket, and over a network that breaks."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.live.browser.drivers import until
from tests.live.browser.network import Network
from tests.runserver import Runserver

UPGRADES = int(os.environ.get("SSE_LIVE_UPGRADES", "20"))  # 500 in the long form
AT_ONCE = 4


@pytest.fixture
def channel() -> str:
    return uuid.uuid4().hex


@pytest.fixture
def lossy(site: Runserver) -> Iterator[Network]:
    network = Network(site)
    yield network
    network.cut()


def open_page(context: Any, url: str, channel: str, **options: str) -> Any:
    page = context.new_page()
    query = "&".join(f"{name}={value}" for name, value in {"channel": channel, **options}.items())
    page.goto(f"{url}/messages/?{query}")
    page.locator("sse-live[state=connected]").wait_for()
    return page


def written(site: Runserver, channel: str) -> list[Any]:
    notes: list[Any] = httpx.get(f"{site.url}/messages/written/", params={"channel": channel}).json()["notes"]
    return notes


def send(page: Any, channel: str, data: Any, **options: Any) -> Any:
    """The answer's data, or the error's name and text."""
    return page.evaluate(
        """([channel, data, options]) => document.querySelector("sse-live").send("note", data, {channel, ...options})
             .catch(({error, message, status}) => [error, message, status])""",
        [channel, data, options],
    )


def holds(page: Any, condition: str) -> None:
    until(lambda: page.evaluate(condition), 60, condition)


def until_on_socket(page: Any) -> None:
    holds(page, "document.querySelector('sse-live').live.stats.connects === 2")


@pytest.mark.parametrize("transport", ["sse", "websocket", "auto"])
def test_a_message_is_answered_and_heard_whatever_carries_it(
    site: Runserver, window: Callable[..., Any], channel: str, transport: str
) -> None:
    page = open_page(window(), site.url, channel, transport=transport)
    assert send(page, channel, "one")["count"] == 1
    if transport == "auto":
        until_on_socket(page)
    assert page.evaluate("sockets") == (0 if transport == "sse" else 1)
    answer = send(page, channel, "two")
    assert answer == {"count": 2, "client": page.evaluate("document.querySelector('sse-live').live.clientId")}
    assert send(page, channel, "refused") == ["invalid", "Not this one.", 400]
    assert send(page, "another", "x" * 70_000)[0] == "too_large"
    holds(page, "heard.length === 2")
    assert page.evaluate("heard") == written(site, channel) == ["one", "two"]


def test_a_page_whose_csrf_cookie_is_gone_is_answered(
    site: Runserver, window: Callable[..., Any], channel: str
) -> None:
    context = window()
    page = open_page(context, site.url, channel)
    context.clear_cookies()
    assert send(page, channel, "one")["count"] == 1
    assert send(page, channel, "two")["count"] == 2


def test_a_message_of_another_user_is_refused(site: Runserver, window: Callable[..., Any], channel: str) -> None:
    context = window()
    page = open_page(context, site.url, channel)
    context.new_page().goto(f"{site.url}/messages/enter/ada/")
    assert send(page, channel, "one")[::2] == ["other_user", 409]


@pytest.mark.parametrize("transport", ["sse", "auto"])
def test_twenty_messages_that_were_written_offline_are_sent_once_and_in_order_after_a_reload(
    site: Runserver, lossy: Network, window: Callable[..., Any], channel: str, transport: str
) -> None:
    context = window()
    context.new_page().goto(f"{site.url}/messages/enter/ada/")
    page = open_page(context, lossy.url, channel, queue="storage", transport=transport)
    send(page, channel, "before")
    if transport == "auto":
        until_on_socket(page)
    write_offline(page, lossy, channel)
    address = page.url
    with pytest.raises(Exception, match="ERR_"):
        page.goto(page.url)
    page.wait_for_url("chrome-error://**", wait_until="commit")
    assert written(site, channel) == ["before"]
    lossy.mend()
    page.goto(address)
    holds(page, "answers.length === 20")
    assert page.evaluate("answers") == [*range(2, 22)]
    assert written(site, channel) == ["before", *range(20)]
    assert page.evaluate("Object.keys(sessionStorage).filter((key) => key.includes('queue'))") == []


def test_a_queue_goes_on_when_the_network_is_back_without_a_reload(
    site: Runserver, lossy: Network, window: Callable[..., Any], channel: str
) -> None:
    context = window()
    page = open_page(context, lossy.url, channel, queue="memory")
    write_offline(page, lossy, channel)
    lossy.mend()
    holds(page, "answers.length === 20")
    assert written(site, channel) == [*range(20)]


@pytest.mark.parametrize("next_user", ["nobody", "bob"])
def test_what_was_written_offline_is_not_sent_once_its_user_is_logged_out(
    site: Runserver, lossy: Network, window: Callable[..., Any], channel: str, next_user: str
) -> None:
    context = window()
    other = context.new_page()
    other.goto(f"{site.url}/messages/enter/ada/")
    page = open_page(context, lossy.url, channel, queue="storage")
    write_offline(page, lossy, channel)
    other.goto(f"{site.url}/messages/enter/{next_user}/")
    lossy.mend()
    page.goto(page.url)
    page.locator("sse-live[state=connected]").wait_for()
    send(page, channel, "mine")
    assert written(site, channel) == ["mine"]
    assert page.evaluate("Object.keys(sessionStorage).filter((key) => key.includes('queue'))") == []


def write_offline(page: Any, network: Network, channel: str) -> None:
    """Twenty messages, on a page whose network is cut."""
    network.cut()
    page.locator("sse-live[state=reconnecting]").wait_for()
    page.evaluate(
        """(channel) => {
             const it = document.querySelector("sse-live");
             for (let n = 0; n < 20; n += 1) it.send("note", n, {channel}).catch(() => {});
           }""",
        channel,
    )


def test_a_stream_goes_over_to_a_websocket_without_an_event_lost_or_doubled(
    site: Runserver, window: Callable[..., Any], channel: str
) -> None:
    page = open_page(window(), site.url, uuid.uuid4().hex)
    order = {"channel": channel, "count": 50 * (60 + UPGRADES), "interval": 0.02}
    httpx.post(f"{site.url}/ticks/", json=order)
    results: list[Any] = []
    for _ in range(0, UPGRADES, AT_ONCE):
        results += page.evaluate(
            """async ([path, count]) => {
                 const {SSELive} = await import("/static/django_sse_live/sse-live.js");
                 const token = document.querySelector("sse-live").getAttribute("csrf-token");
                 return Promise.all(Array.from({length: count}, () => upgrade(path, SSELive, token)));
               }""",
            [f"/events/?channel={channel}", AT_ONCE],
        )
    assert [result for result in results if result["gaps"]] == []
    assert all(result["connections"] == 2 and result["after"] >= 5 for result in results), results
    print(f"{len(results)} upgrades, {sum(result['heard'] for result in results)} events, none lost or doubled")


class OldProxy(Network):
    """It does not know WebSockets: a handshake is refused, or never answered."""

    is_silent = False

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # broken: what a network is here for
            self._refuse(source)
        super()._pump(source, target)

    def _refuse(self, source: socket.socket) -> None:
        if b"upgrade: websocket" in source.recv(65536, socket.MSG_PEEK).lower():
            if self.is_silent:
                source.recv(65536)
            else:
                source.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                source.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "unanswered"])
def test_behind_a_proxy_that_knows_no_websockets_the_page_is_live_without_and_the_tab_remembers(
    site: Runserver, window: Callable[..., Any], channel: str, is_silent: bool
) -> None:
    proxy = OldProxy(site)
    proxy.is_silent = is_silent
    page = open_page(window(), proxy.url, channel, transport="websocket")
    assert send(page, channel, "one")["count"] == 1
    holds(page, "Object.keys(sessionStorage).some((key) => key.includes('no-socket'))")
    assert page.evaluate("document.querySelector('sse-live').live.state") == "connected"
    page.goto(page.url)
    page.locator("sse-live[state=connected]").wait_for()
    assert send(page, channel, "two")["count"] == 2
    holds(page, "heard.includes('two')")
    assert page.evaluate("sockets") == 0
    proxy.cut()
