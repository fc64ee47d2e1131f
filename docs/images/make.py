"""Draws the moving pictures and the social card from the example, as Chromium shows it; and compared.md's bars.

    python docs/images/make.py          # live.webp, live-dark.webp, card.png
    python docs/images/make.py bars     # benchmark.svg, from the table below it

The pictures need Chromium, and Pillow of the extra `docs`.
"""

from __future__ import annotations

import base64
import io
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from playwright.sync_api import Browser, Page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.conftest import CHROMIUM_FLAGS, find_program  # noqa: E402
from tests.runserver import Runserver  # noqa: E402

WINDOW = {"width": 520, "height": 640}
WROTE = "Do you see this, @otter?"
ANSWER = "At once. And I did not reload."

# Two windows side by side; the one that somebody works in stands out.
STAGE = """<!doctype html><style>
  body { margin: 0; padding: 12px; display: flex; gap: 16px; width: 920px; box-sizing: border-box;
    font: 13px system-ui }
  figure { margin: 0; flex: 1; border-radius: 10px; overflow: hidden; border: 2px solid %(edge)s }
  figure.active { border-color: %(accent)s }
  figcaption { background: %(bar)s; color: %(text)s; padding: 7px 12px }
  img { display: block; width: 100%% }
</style>%(windows)s"""
COLOURS = {
    "light": {"edge": "#c9cfcb", "accent": "#0b6e4f", "bar": "#e6e9e7", "text": "#33403a"},
    "dark": {"edge": "#3a423e", "accent": "#5fd4a4", "bar": "#2a302d", "text": "#c8d0cc"},
}
CARD = """<!doctype html><style>
  body { margin: 0; width: 1200px; height: 630px; background: #0b6e4f; color: #fff;
    font: 30px system-ui; overflow: hidden }
  h1 { font-size: 60px; margin: 36px 0 4px 60px } p { margin: 0 0 0 62px; opacity: .92 }
  img { position: absolute; left: 130px; top: 180px; width: 940px }
</style><h1>django-sse-live</h1><p>A model save becomes a change of every open page.</p><img src="%s">"""

# What is shown is the board: mentions and the answer would push it out of so small a window.
STYLE = """document.addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = ".mentions, .answer { display: none } html { scrollbar-width: none }";
  document.head.append(style);
});"""


class Film:
    """Frames of two pages, each shown for some time."""

    def __init__(self, browser: Browser, pages: dict[str, Page], scheme: str) -> None:
        self.pages = pages
        self.scheme = scheme
        self.stage = browser.new_page(viewport={"width": 920, "height": 540}, device_scale_factor=1.5)
        self.frames: list[Image.Image] = []
        self.durations_ms: list[int] = []

    def show(self, milliseconds: int, active: str = "") -> None:
        shots = {name: page.screenshot() for name, page in self.pages.items()}
        windows = "".join(
            f'<figure class="{"active" if name == active else ""}"><figcaption>{name}’s window</figcaption>'
            f'<img src="{as_url(shot)}"></figure>'
            for name, shot in shots.items()
        )
        self.stage.set_content(STAGE % {**COLOURS[self.scheme], "windows": windows})
        self.stage.wait_for_function("[...document.images].every((image) => image.complete)")
        from PIL import Image

        self.frames.append(Image.open(io.BytesIO(self.stage.screenshot(full_page=True, omit_background=True))))
        self.durations_ms.append(milliseconds)

    def save(self, path: Path) -> None:
        first, *rest = self.frames
        first.save(
            path, save_all=True, append_images=rest, duration=self.durations_ms, loop=0, quality=70, method=6,
            minimize_size=True,
        )  # fmt: skip


def as_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def open_board(browser: Browser, url: str, name: str, scheme: Any) -> Page:
    context = browser.new_context(
        base_url=url, viewport=WINDOW, color_scheme=scheme, device_scale_factor=1.5, bypass_csp=True
    )
    context.add_init_script(STYLE)
    page = context.new_page()
    page.goto("/login/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", name)
    page.click("main button")
    page.locator("sse-live[state=connected]").wait_for()
    return page


def write(film: Film, who: str, text: str) -> None:
    page = film.pages[who]
    field = page.locator("#write [name=text]")
    field.focus()
    film.show(500, who)
    for end in range(4, len(text) + 4, 4):
        field.fill(text[:end])
        field.dispatch_event("input")
        film.show(130, who)
    page.click("#write button")
    for each in film.pages.values():
        each.locator("#comments > li", has_text=text).wait_for()
    film.show(1400, who)
    for each in film.pages.values():
        each.locator("[data-sse-live-new]").wait_for(state="detached")
    field.blur()
    film.show(900)


def play(browser: Browser, url: str, scheme: str) -> Film:
    film = Film(browser, {name: open_board(browser, url, name, scheme) for name in ("heron", "otter")}, scheme)
    film.show(1200)
    write(film, "heron", WROTE)
    write(film, "otter", ANSWER)
    page = film.pages["heron"]
    row = page.locator("#comments > li", has_text=WROTE)
    page.goto(row.locator("a[href*='/']").first.get_attribute("href") or "/")
    film.show(900, "heron")
    page.click("button[name=delete]")
    film.pages["otter"].locator("#comments > li", has_text=WROTE).wait_for(state="detached")
    page.locator("sse-live[state=connected]").wait_for()
    film.show(2200, "heron")
    return film


def bars() -> str:
    """The first column of the table of what it costs, as it stands there: the one home of these figures."""
    page = (HERE.parent / "compared.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+(?:–[\d.]+)?) \| [^|]* KiB \|", page, re.MULTILINE)
    figures = {name: (sum(map(float, text.split("–"))) / len(text.split("–")), text) for name, text in rows}
    longest = max(figure for figure, _ in figures.values())
    height = 70 + 38 * len(figures)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720" height="{height}" role="img" '
        'aria-label="CPU of the server per delivered event" font-family="system-ui, sans-serif" font-size="15">',
        f'<rect width="720" height="{height}" rx="10" fill="#fbfaf8"/>',
        '<text x="24" y="38" font-size="17" font-weight="600" fill="#1d2430">',
        "CPU of the server per delivered event</text>",
    ]
    for number, (name, (figure, text)) in enumerate(figures.items()):
        top, length, ours = 60 + 38 * number, round(370 * figure / longest), name.startswith("**")
        weight, colour = (600, "#1b8a5a") if ours else (400, "#a9b1bd")
        middle = f'y="{top + 18}" font-weight="{weight}" fill="#1d2430"'
        lines += [
            f'<text x="254" {middle} text-anchor="end">{name.strip("*").partition(",")[0]}</text>',
            f'<rect x="266" y="{top}" width="{length}" height="26" rx="4" fill="{colour}"/>',
            f'<text x="{274 + length}" {middle}>{text}×</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_program("chromium"), args=CHROMIUM_FLAGS)
        for scheme, name in (("light", "live.webp"), ("dark", "live-dark.webp")):
            database = Path(directory) / f"{scheme}.sqlite3"
            example = Runserver(
                "config.settings", Path(directory), project=ROOT / "example_project", EXAMPLE_DATABASE=str(database)
            )
            example.manage("seed")
            example.start()
            try:
                film = play(browser, example.url, scheme)
            finally:
                example.kill()
            film.save(HERE / name)
            if scheme == "light":
                picture = io.BytesIO()
                film.frames[-4].save(picture, "PNG")
                card = browser.new_page(viewport={"width": 1200, "height": 630})
                card.set_content(CARD % as_url(picture.getvalue()))
                card.screenshot(path=HERE / "card.png")
            print(name, len(film.frames), "frames", (HERE / name).stat().st_size // 1024, "KiB")
        browser.close()


if __name__ == "__main__":
    if sys.argv[1:] == ["bars"]:
        (HERE / "benchmark.svg").write_text(bars())
    else:
        main()
