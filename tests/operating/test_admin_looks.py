"""The admin's page "Live connections" as it is seen, read out, and pointed at."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHROMIUM_FLAGS, find_program
from tests.live.browser.conftest import NODE_MODULES
from tests.live.harness import until
from tests.operating.site.__main__ import Site, site

PAGE = "/admin/django_sse_live/liveconnection/"
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 800}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 800}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
    "forced": {"forced_colors": "active", "viewport": {"width": 1280, "height": 800}},
}

pytestmark = [pytest.mark.needs("chromium")]

Open = Callable[..., Any]


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Site, Open]]:
    from playwright.async_api import async_playwright

    async with site(1, "memory.MemoryBackend") as here, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_program("chromium"), args=CHROMIUM_FLAGS)

        async def open_page(**look: Any) -> Any:
            context = await browser.new_context(**look)
            cookie = {"name": "sessionid", "value": here.cookies["admin"], "url": here.servers[0].url}
            await context.add_cookies([cookie])
            page = await context.new_page()
            await page.goto(here.servers[0].url + PAGE)
            return page

        yield here, open_page
        await browser.close()


async def rows(page: Any, count: int) -> None:
    async def are_there() -> bool:
        return bool(await page.locator("#sse-clients tbody tr").count() >= count)

    await until(are_there, 120)


async def test_axe_finds_nothing_in_any_look_and_every_target_is_large_enough(tmp_path: Path) -> None:
    axe = NODE_MODULES / "axe-core/axe.min.js"
    if not axe.is_file():
        pytest.skip("needs axe-core, which is not on this machine (npm install --prefix tests/js)")
    async with opened() as (here, open_page):
        await here.open(6)
        found: dict[str, Any] = {}
        for name, look in LOOKS.items():
            page = await open_page(**look)
            await rows(page, 6)
            await page.screenshot(path=tmp_path / f"{name}.png", full_page=True, animations="disabled")
            await page.evaluate(axe.read_text())
            found[name] = await page.evaluate(
                """async () => (await axe.run("#content, #sse-live")).violations
                  .filter(({impact}) => impact === "serious" || impact === "critical")
                  .map(({id, nodes}) => [id, nodes.map(({html}) => html)])"""
            )
            small = await page.evaluate(
                """() => [...document.querySelectorAll("#sse-live :is(button, input, a)")]
                  .filter((node) => node.offsetParent && !(node.localName === "a" && node.closest("p, td, th")))
                  .map((node) => [node.outerHTML, node.getBoundingClientRect()])
                  .filter(([, {width, height}]) => width < 24 || height < 24)"""
            )
            assert small == [], f"{name}: targets of less than 24 px"
            await page.context.close()
        assert found == {name: [] for name in LOOKS}


async def test_in_forced_colours_buttons_and_figures_have_borders() -> None:
    async with opened() as (here, open_page):
        await here.open(1)
        page = await open_page(**LOOKS["forced"])
        await rows(page, 1)
        for selector in (".sse-buttons .button", ".sse-form .button", ".sse-figures > div"):
            border = await page.eval_on_selector(
                selector, "(node) => [getComputedStyle(node).borderTopStyle, getComputedStyle(node).borderTopColor]"
            )
            assert border[0] == "solid" and border[1] not in ("transparent", "rgba(0, 0, 0, 0)"), (selector, border)


@pytest.mark.parametrize("width", [320, 768, 1024, 1280])
async def test_beside_the_sidebar_too_nothing_is_cut_and_no_word_is_broken(width: int, tmp_path: Path) -> None:
    async with opened() as (here, open_page):
        await here.open(2)
        page = await open_page(viewport={"width": width, "height": 900})
        await rows(page, 2)
        await page.screenshot(path=tmp_path / f"{width}.png", full_page=True, animations="disabled")
        wrong = await page.evaluate(
            """() => {
              const lines = (node) => {
                const range = document.createRange();
                while (node.firstElementChild) node = node.firstElementChild;
                range.selectNodeContents(node.firstChild);
                return range.getClientRects().length;
              };
              const all = (selector) => [...document.querySelectorAll(`#sse-live ${selector}`)];
              const cut = all(".module").filter((each) => each.scrollWidth > each.clientWidth);
              const broken = all("td[data-cell=channels] span, th[data-cell=user]").filter((each) => lines(each) > 1);
              return [...cut, ...broken].map((each) => each.textContent.replace(/\\s+/g, " "));
            }"""
        )
        assert wrong == []


async def test_a_row_that_is_pointed_at_stays_where_it_is() -> None:
    async with opened() as (here, open_page):
        await here.open(3)
        page = await open_page(**LOOKS["light"])
        await rows(page, 4)
        table = page.locator("#sse-clients tbody")
        before = await table.locator("button[name=client]").evaluate_all("(found) => found.map(({value}) => value)")
        await table.locator("tr").nth(1).hover()
        more = await here.open(2)
        await until(lambda: _text(page, "#sse-streams", "6"))
        await until(lambda: _text(page, "#sse-held", "The list waits while you point at it."))
        held = await table.locator("button[name=client]").evaluate_all("(found) => found.map(({value}) => value)")
        assert held == before
        await page.mouse.move(5, 5)
        await rows(page, 6)
        await until(lambda: _text(page, "#sse-held", ""))
        for crowd in more:
            crowd.close()
        await until(lambda: _text(page, "#sse-streams", "4"))


async def test_a_button_says_what_it_does_to_whom_and_asks_before(tmp_path: Path) -> None:
    async with opened() as (here, open_page):
        await here.open(1)
        page = await open_page(**LOOKS["light"])
        await rows(page, 2)
        button = page.get_by_role("button", name="Disconnect stream: ada, 127.0.0.1")
        await until(button.count)
        asked: list[str] = []

        async def dismiss(dialog: Any) -> None:
            asked.append(dialog.message)
            await dialog.dismiss()

        page.on("dialog", dismiss)
        await button.click()
        await until(lambda: bool(asked))
        assert asked[0].startswith("End this stream?\nada, 127.0.0.1")
        assert await page.locator("#sse-said").inner_text() == ""
        assert await page.get_by_role("button", name="Disconnect user: ada").count() == 1


async def test_events_that_workers_receive_are_counted_whoever_publishes(tmp_path: Path) -> None:
    async with opened() as (here, open_page):
        await here.open(2)
        page = await open_page(**LOOKS["light"])
        await rows(page, 3)
        await here.servers[0].get("/publish/steadily/?channel=comments&rate=20&size=40")

        async def counts() -> bool:
            text = await page.locator("#sse-events").inner_text()
            return text not in ("–", "0") and float(text.replace(",", "")) > 5

        await until(counts, 60)
        assert await page.locator("#sse-workers [data-cell=bus]").inner_text() == "none: this process alone"


async def _text(page: Any, selector: str, wanted: str) -> bool:
    return bool(await page.locator(selector).inner_text() == wanted)
