"""The example as it is seen: by who reads it aloud, at 400 %, in forced colours, from right to left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.live.browser.conftest import NODE_MODULES
from tests.runserver import Runserver

pytestmark = pytest.mark.needs("chromium")

DESKTOP = {"width": 1024, "height": 768}
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": DESKTOP},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}},
    "zoom": {"viewport": {"width": 320, "height": 256}},  # 1280 × 1024 at 400 %
    "forced": {"viewport": DESKTOP, "forced_colors": "active"},
}

CONTRAST = """(field) => {
  const luminance = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
    .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const around = getComputedStyle(field.closest(".write")).backgroundColor;
  const [a, b] = [getComputedStyle(field).borderTopColor, around].map(luminance).sort((a, b) => b - a);
  return (a + 0.05) / (b + 0.05);
}"""


@pytest.fixture
def open_page(chromium: Any, example: Runserver) -> Iterator[Callable[..., Any]]:
    contexts = []

    def open_page(path: str = "/", **options: Any) -> Any:
        context = chromium.new_context(base_url=example.url, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()


def log_in(page: Any, name: str, password: str) -> None:
    page.goto("/login/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", password)
    page.click("main button")


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(open_page: Callable[..., Any], look: str) -> None:
    axe = NODE_MODULES / "axe-core/axe.min.js"
    if not axe.is_file():
        pytest.skip("needs axe-core, which is not on this machine (npm install --prefix tests/js)")
    page, found = open_page(**LOOKS[look]), []

    def read() -> None:
        page.evaluate(axe.read_text())
        violations = "(await axe.run()).violations.map(({id, nodes}) => [id, nodes.map((node) => node.html)])"
        found.extend(page.evaluate(f"async () => {violations}"))

    read()
    log_in(page, "otter", "wrong")
    read()
    log_in(page, "otter", "otter")
    page.wait_for_url("**/")
    read()
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator("sse-live-job[state=running]").get_by_text("You asked").wait_for()
    read()
    page.get_by_role("button", name="Stop").click()
    page.locator("sse-live-job[state=cancelled]").wait_for()
    read()
    page.click("#comments a:has(time)")
    page.get_by_role("heading", level=1, name="One comment").wait_for()
    read()
    assert found == []


@pytest.mark.parametrize("look", ["light", "phone", "zoom"])
@pytest.mark.parametrize("key", ["Tab", "Shift+Tab"])
def test_nothing_covers_what_has_the_focus(open_page: Callable[..., Any], look: str, key: str) -> None:
    page = open_page(**LOOKS[look])
    page.locator("sse-live[state=connected]").wait_for()
    for _ in range(12):
        page.keyboard.press(key)
        seen = page.evaluate("""() => {
          const focused = document.activeElement;
          if (focused === document.body) return true;
          const { x, y, width, height } = focused.getClientRects()[0];
          const top = document.elementFromPoint(x + width / 2, Math.max(y + 2, 0));
          const bottom = document.elementFromPoint(x + width / 2, Math.min(y + height - 2, innerHeight - 1));
          return focused.contains(top) && focused.contains(bottom);
        }""")
        assert seen, page.evaluate("document.activeElement.outerHTML")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_fields_stand_out_three_to_one(open_page: Callable[..., Any], look: str) -> None:
    """WCAG 2.2, 1.4.11."""
    page = open_page(**LOOKS[look])
    for path in ("/", "/login/"):
        page.goto(path)
        for field in page.locator(".write :is(input:not([type=hidden]), textarea)").all():
            assert field.evaluate(CONTRAST) >= 3


def test_buttons_have_an_edge_in_forced_colours(open_page: Callable[..., Any]) -> None:
    button = open_page(**LOOKS["forced"]).locator("main button").first
    width, edge, inside = button.evaluate(
        "(b) => { const s = getComputedStyle(b); return [s.borderTopWidth, s.borderTopColor, s.backgroundColor]; }"
    )
    assert width != "0px" and edge != inside


def test_from_right_to_left_the_page_is_its_mirror_image(open_page: Callable[..., Any]) -> None:
    page = open_page(viewport=DESKTOP)
    log_in(page, "otter", "otter")
    page.locator("sse-live[state=connected]").wait_for()

    def edges() -> dict[str, float]:
        return page.evaluate("""() => Object.fromEntries(
          [".brand", ".bar nav", ".reply", ".comment b", "#write button"].map((selector) => {
            const { left, right } = document.querySelector(selector).getBoundingClientRect();
            return [selector, Math.round(document.dir === "rtl" ? innerWidth - right : left)];
          }))""")

    before = edges()
    page.evaluate("document.dir = 'rtl'")
    assert edges() == pytest.approx(before, abs=1)
    assert page.locator(".mentions").evaluate("(each) => getComputedStyle(each).borderRightWidth") == "4px"


def test_a_login_that_fails_is_announced(open_page: Callable[..., Any]) -> None:
    page = open_page()
    log_in(page, "otter", "wrong")
    page.get_by_role("alert").get_by_text("Please enter a correct username and password.").wait_for()
    assert page.title().startswith("Error: ")
