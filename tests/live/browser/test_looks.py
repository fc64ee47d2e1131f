"""The element as it is seen, and as it is read out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.browser.conftest import NODE_MODULES
from tests.runserver import Runserver

STATES = {"green": "connected", "yellow": "reconnecting", "red": "disconnected"}
WORDS = {"green": "Live", "yellow": "Reconnecting…", "red": "Disconnected"}
SCREENS = {"phone": {"width": 390, "height": 500}, "desktop": {"width": 1024, "height": 500}}


@pytest.fixture(params=["light", "dark"])
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def page(window: Callable[..., Any], site: Runserver, scheme: str, screen: str) -> Any:
    page = window(color_scheme=scheme, viewport=SCREENS[screen]).new_page()
    page.goto(f"{site.url}/states/")
    for light, state in STATES.items():
        page.locator(f"#{light}[state={state}]").wait_for()
        page.locator(f"#{light}").get_by_role("status").wait_for()
    return page


def test_every_state_is_shown_in_words_too(page: Any, screen: str, scheme: str, tmp_path: Path) -> None:
    for light, words in WORDS.items():
        assert page.locator(f"#{light}").get_by_role("status").inner_text().strip() == words
    page.screenshot(path=tmp_path / f"{screen}-{scheme}.png", animations="disabled")


def test_every_light_stands_out_from_the_page(page: Any) -> None:
    """WCAG 2.2, 1.4.11: three to one against what is behind it."""
    contrasts = page.evaluate(
        """(lights) => {
          const luminance = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((value) => value / 255)
            .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
            .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
          const canvas = document.createElement("p");
          document.body.append(canvas);
          canvas.style.backgroundColor = "Canvas";
          const behind = luminance(getComputedStyle(canvas).backgroundColor);
          return lights.map((id) => {
            const light = document.getElementById(id).shadowRoot.querySelector("[part=light]");
            const [a, b] = [luminance(getComputedStyle(light).borderTopColor), behind].sort((a, b) => b - a);
            return (a + 0.05) / (b + 0.05);
          });
        }""",
        list(STATES),
    )
    assert all(contrast >= 3 for contrast in contrasts), contrasts


def test_axe_finds_nothing(page: Any) -> None:
    axe = NODE_MODULES / "axe-core/axe.min.js"
    if not axe.is_file():
        pytest.skip("needs axe-core, which is not on this machine (npm install --prefix tests/js)")
    page.evaluate(axe.read_text())
    found = page.evaluate(
        "async () => (await axe.run()).violations.map(({id, nodes}) => [id, nodes.map((n) => n.html)])"
    )
    assert found == []


def test_a_change_is_announced_politely(page: Any) -> None:
    tree = page.locator("main").aria_snapshot()
    for words in WORDS.values():
        assert f"status: {words}" in tree
