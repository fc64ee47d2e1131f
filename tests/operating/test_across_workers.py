"""Three workers, Redis between them: the command, the status url and the admin's page know all of them."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from tests.conftest import CHROMIUM_FLAGS
from tests.live.harness import until
from tests.live.harness.servers import ROOT
from tests.operating.site.__main__ import Site, site

PAGE = "/admin/django_sse_live/liveconnection/"


async def manage(here: Site, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "django", *arguments),
        cwd=ROOT,
        env={**os.environ, **here.servers[0].environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.mark.needs("redis")
@pytest.mark.parametrize("bus", ["redis_streams.RedisStreamsBackend", "channel_layer.ChannelLayerBackend"])
async def test_the_command_and_the_status_url_ask_every_worker(bus: str) -> None:
    async with site(3, bus) as here:
        await here.open(7)

        # On a slow machine a worker may answer too late for one question.
        async def by_command() -> Any:
            report = json.loads(await manage(here, "sse_live_status", "--json", "--streams", "--seconds=2"))
            return len(report["workers"]) == 3 and report

        async def as_text() -> str:
            text = await manage(here, "sse_live_status", "--streams=user:2", "--seconds=2")
            return ("3 in all" in text and text) or ""

        async def by_url() -> Any:
            _, _, body = await here.servers[1].request("GET", "/events/status/", headers=here.headers("admin"))
            status = json.loads(body)
            return len(status["workers"]) == 3 and status

        report = await until(by_command)
        assert report["total"]["streams"] == 7
        assert sorted(worker["streams"] for worker in report["workers"]) == [2, 2, 3]
        assert sum(len(worker["matches"]) for worker in report["workers"]) == 7
        text = await until(as_text)
        assert text.count("user 2 127.0.0.1") == 1 and "anonymous" not in text
        status = await until(by_url)
        assert status["total"]["streams"] == 7


def test_where_the_bus_reaches_nobody_the_command_says_where_to_ask() -> None:
    with pytest.raises(CommandError, match="sse_live:status"):
        call_command("sse_live_status", stdout=io.StringIO())


def test_on_sqlite_the_command_says_where_to_ask(settings: Any) -> None:
    settings.SSE_LIVE = {"BACKEND": "django_sse_live.database.DatabaseBackend"}
    with pytest.raises(CommandError, match=r"on SQLite carries no reports .* status url"):
        call_command("sse_live_status", stdout=io.StringIO())


@pytest.fixture
async def window(tools: dict[str, str]) -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=tools["chromium"], args=CHROMIUM_FLAGS)
        yield await browser.new_context(viewport={"width": 390, "height": 844})
        await browser.close()


@pytest.mark.needs("redis", "chromium")
async def test_the_page_in_a_browser_under_a_strict_policy(window: Any) -> None:
    async with site(2) as here:
        crowds = await here.open(8)
        await window.add_cookies(
            [{"name": "sessionid", "value": here.cookies["admin"], "url": here.servers[0].url}],
        )
        page = await window.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))
        rows = page.locator("#sse-clients tbody tr")

        async def has_rows(count: int) -> None:
            async def so() -> bool:
                return bool(await rows.count() == count)

            await until(so, 20, say=lambda: f"{count} rows")

        await page.goto(here.servers[0].url + PAGE)
        await has_rows(9)  # its own stream too
        assert await page.locator("#sse-workers tbody tr").count() == 2
        await page.get_by_role("link", name="emil").wait_for()
        assert await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")

        # A stream of the other worker, and then a user's.
        await rows.filter(has_text="emil").get_by_role("button", name="Disconnect user").click()
        await crowds[4].all(lambda client: client.goodbyes == 1)
        await page.mouse.move(1, 1)  # what is pointed at stays
        await has_rows(8)
        await rows.filter(has_text="anonymous").first.get_by_role("button", name="Disconnect stream").click()
        await page.mouse.move(1, 1)
        await has_rows(7)
        await page.get_by_text("The stream is told to end.").wait_for()

        # An event, which the page's other tab of the same site would hear.
        await page.get_by_label("Channel").fill("prices")
        await page.get_by_role("button", name="Send").click()
        await page.get_by_text("“prices”").wait_for()

        # The filter, by name.
        await page.locator("#sse-filter").fill("ada")
        await page.get_by_role("button", name="Apply").click()
        await page.get_by_text("Streams of ada").wait_for()
        await has_rows(2)
        assert [text for text in wrong if "404" not in text] == []  # the favicon
