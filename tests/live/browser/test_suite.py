"""The suite that runs in the page, in three engines."""

from __future__ import annotations

import glob
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.browser import drivers
from tests.live.browser.conftest import need
from tests.runserver import Runserver

ENGINES = ["chromium", "firefox", "webkit"]
MINIBROWSERS = "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"


def driven(engine: str, url: str, directory: Path, request: pytest.FixtureRequest) -> Any:
    if engine == "chromium":
        return drivers.chromium(request.getfixturevalue("chromium"), url)
    if engine == "firefox":
        pytest.importorskip("websockets", reason="needs websockets")
        return drivers.firefox(*need("firefox-esr"), directory, url)
    minibrowsers = sorted(glob.glob(MINIBROWSERS))
    if not minibrowsers:
        pytest.skip("needs MiniBrowser, which is not on this machine (Debian: apt-get install webkit2gtk-driver)")
    driver, xvfb, _ = need("WebKitWebDriver", "xvfb-run", "xauth")
    return drivers.webkit(driver, xvfb, minibrowsers[-1], directory, url)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_client_does_what_it_says(
    engine: str, site: Runserver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run_suite(engine, site, tmp_path, request)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stream_is_renewed_and_nobody_notices(
    engine: str, renewing_site: Runserver, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    run_suite(engine, renewing_site, tmp_path, request, "&renewing")


def run_suite(
    engine: str, site: Runserver, directory: Path, request: pytest.FixtureRequest, parameters: str = ""
) -> None:
    """Have an engine open the suite, and read what it reports."""
    run = uuid.uuid4().hex
    with driven(engine, f"{site.url}/?run={run}{parameters}", directory, request):
        deadline = time.monotonic() + 300
        while not (
            reports := [each for each in httpx.get(f"{site.url}/report/").json()["reports"] if each["run"] == run]
        ):
            assert time.monotonic() < deadline, "The suite did not come to its end."
            time.sleep(0.5)
    (report,) = reports
    print(report["agent"])
    for result in report["results"]:
        print(f"{result['ms']:6} ms  {result['name']}: {result['error'] or 'ok'}")
    assert report["results"]
    assert [result for result in report["results"] if result["error"]] == []
