"""Forty tabs, six connections: real tabs of one Chromium, over HTTP/1.1."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.live.browser.drivers import until
from tests.runserver import Runserver

TABS = 12


@pytest.fixture
def channel() -> str:
    return uuid.uuid4().hex


def open_tab(context: Any, site: Runserver, channel: str, share: str = "1") -> Any:
    tab = context.new_page()
    tab.goto(f"{site.url}/tab/?channel={channel}&share={share}", wait_until="commit")
    return tab


def is_live(tab: Any) -> None:
    tab.locator("sse-live[state=connected]").wait_for(timeout=90_000)


def streams(site: Runserver, channel: str) -> int:
    return sum(channel in channels for channels in httpx.get(f"{site.url}/clients/").json()["clients"])


def tick(site: Runserver, channel: str, count: int, interval: float = 0.05) -> None:
    httpx.post(f"{site.url}/ticks/", json={"channel": channel, "count": count, "interval": interval})


def heard(tab: Any) -> list[Any]:
    found: list[Any] = tab.evaluate("heard")
    return found


def leader_among(tabs: list[Any]) -> Any:
    """The tab that holds the stream, and the lock that says so."""

    def find() -> Any:
        for tab in tabs:
            if tab.evaluate(
                """async () => {
                  const {held} = await navigator.locks.query();
                  const leads = ({name}) => name.startsWith("sse-live:") && name.endsWith("]");
                  return held.some((lock) => leads(lock) && lock.clientId === WHO);
                }""".replace("WHO", repr(tab.evaluate("lockClient")))
            ):
                return tab
        return None

    return until(find, 10, "a leader")


def test_twelve_tabs_share_one_stream_and_the_site_still_answers(
    window: Callable[..., Any], site: Runserver, channel: str
) -> None:
    context = window()
    tabs = [open_tab(context, site, channel) for _ in range(TABS)]
    for tab in tabs:
        is_live(tab)
    assert streams(site, channel) == 1
    tick(site, channel, 1)
    for tab in tabs:
        until(lambda tab=tab: heard(tab) == [0], 10, "the event, in every tab")
    is_live(open_tab(context, site, channel))  # one more tab waits in no queue


def test_twelve_tabs_that_do_not_share_jam(window: Callable[..., Any], site: Runserver, channel: str) -> None:
    """What sharing is for: a browser opens six connections to a host, and the seventh request waits for ever."""
    context = window()
    tabs = [open_tab(context, site, channel, share="") for _ in range(6)]
    for tab in tabs:
        is_live(tab)
    assert streams(site, channel) == 6
    seventh = context.new_page()
    with pytest.raises(Exception, match="Timeout"):
        seventh.goto(f"{site.url}/tab/?channel={channel}", timeout=3000, wait_until="commit")


def test_when_the_leader_is_closed_ten_times_every_tab_hears_everything_once(
    window: Callable[..., Any], site: Runserver, channel: str
) -> None:
    count = 20 * 20  # 20 a second, for 20 s
    context = window()
    tabs = [open_tab(context, site, channel) for _ in range(TABS)]
    for tab in tabs:
        is_live(tab)
    tick(site, channel, count)
    for _ in range(10):
        leader = leader_among(tabs)
        tabs.remove(leader)
        leader.close()
        so_far = max(len(heard(tab)) for tab in tabs)
        until(lambda so_far=so_far: len(heard(tabs[0])) > so_far + 5, 20, "the next events")
    for tab in tabs:
        until(lambda tab=tab: heard(tab)[-1:] == [count - 1], 40, "the last event")
        assert heard(tab) == list(range(count))
    assert streams(site, channel) == 1


@pytest.mark.parametrize("fate", ["hangs", "crashes", "freezes", "is put into the back/forward cache"])
def test_when_the_leader_fails_another_tab_takes_over(
    fate: str, window: Callable[..., Any], site: Runserver, channel: str
) -> None:
    context = window()
    tabs = [open_tab(context, site, channel) for _ in range(3)]
    for tab in tabs:
        is_live(tab)
    leader = leader_among(tabs)
    others = [tab for tab in tabs if tab is not leader]
    devtools = context.new_cdp_session(leader)
    if fate == "hangs":
        leader.evaluate("setTimeout(() => { const end = Date.now() + 15000; while (Date.now() < end); }, 100)")
    elif fate == "crashes":
        leader.on("crash", lambda _: None)
        devtools.send("Page.enable")
        try:
            leader.goto("chrome://crash", timeout=3000)
        except Exception as error:
            assert "crash" in str(error).lower() or "Timeout" in str(error) or "aborted" in str(error).lower(), error
    elif fate == "freezes":
        devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    else:
        leader.goto(f"{site.url}/report/")
    tick(site, channel, 60, 0.2)
    for tab in others:
        until(lambda tab=tab: heard(tab)[-1:] == [59], 40, "the last event")
        assert heard(tab) == list(range(60))
    if fate == "freezes":
        devtools.send("Page.setWebLifecycleState", {"state": "active"})
    elif fate.startswith("is put"):
        leader.go_back()
    if fate != "crashes":
        until(lambda: heard(leader)[-1:] == [59], 40, "the last event, in the tab that led")
        if not fate.startswith("is put"):
            assert heard(leader) == list(range(60))
    assert streams(site, channel) == 1
