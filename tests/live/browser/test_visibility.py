"""Pages that nobody sees, and a browser that forbids what tabs share by."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.browser import drivers
from tests.live.browser.conftest import need
from tests.live.browser.drivers import until
from tests.live.browser.test_tabs import streams
from tests.runserver import Runserver

HIDDEN = 6  # pages: as many as a browser has connections to a host, over HTTP/1.1


def test_a_prerendered_page_opens_its_stream_when_it_is_shown(site: Runserver, tmp_path: Path) -> None:
    """Without a debugger: Chromium prerenders nothing where one is attached."""
    run, shown, *hidden = (uuid.uuid4().hex for _ in range(HIDDEN + 2))

    def prerendered() -> list[dict[str, Any]]:
        reports = httpx.get(f"{site.url}/report/").json()["reports"]
        return [report for report in reports if report["run"] == run and report.get("prerendering")]

    [chromium] = need("chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    url = f"{site.url}/prerendered/?run={run}&channel={shown}&next={','.join(hidden)}"
    with drivers.running([chromium, *options, url], tmp_path / "chromium.log", HOME=str(tmp_path)):
        until(lambda: streams(site, shown) == 1, 60, "the stream of the page that is shown")
        until(lambda: len(prerendered()) == HIDDEN, 60, "the pages that are prerendered")
        assert [streams(site, channel) for channel in hidden] == [0] * HIDDEN
        httpx.post(f"{site.url}/report/", json={"run": run, "go": prerendered()[0]["url"]})
        until(lambda: any(streams(site, channel) for channel in hidden), 60, "the stream of a page that is shown now")
        assert sum(streams(site, channel) for channel in hidden) == 1
        assert len(prerendered()) == HIDDEN, "the page was shown as it was prerendered, and not drawn anew"


def test_where_firefox_forbids_what_tabs_share_by_each_has_a_stream(site: Runserver, tmp_path: Path) -> None:
    """With all cookies blocked, BroadcastChannel and storage are there and throw: SecurityError."""
    pytest.importorskip("websockets", reason="needs websockets")
    channel = uuid.uuid4().hex
    blocked = 'user_pref("network.cookie.cookieBehavior", 2);\n'
    url = f"{site.url}/tab/?channel={channel}&share=1&persist=local"
    with drivers.firefox(*need("firefox-esr"), tmp_path, url, blocked):
        until(lambda: streams(site, channel) == 1, 60, "a stream")
