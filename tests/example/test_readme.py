"""README's five minutes, followed to the letter, and what its first screen says of them."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT, blocks_of
from tests.runserver import Runserver

README = (ROOT / "README.md").read_text()
MINUTES = list(blocks_of("../README.md", "Five minutes"))


@pytest.fixture
def site(tmp_path):
    """The site that one has after the five minutes, running."""
    site = Runserver("mysite.settings", tmp_path, project=tmp_path)
    plain = {**site.environment, "DJANGO_SETTINGS_MODULE": ""}
    for block in MINUTES:
        if block.path:
            block.write_into(tmp_path)
            continue
        commands = re.findall(r"^(?:django-admin|python manage\.py) (.*)$", block.text, re.MULTILINE)
        for command in commands:
            if command != "runserver":
                module = [sys.executable, "-m", "django", *command.split()]
                environment = site.environment if (tmp_path / "board/views.py").exists() else plain
                subprocess.run(module, cwd=tmp_path, env=environment, check=True)
    assert commands[-1] == "runserver"
    site.start()
    yield site
    site.kill()


@pytest.mark.needs("chromium")
def test_after_five_minutes_a_comment_appears_in_the_other_window(site, chromium):
    pages = [chromium.new_context(base_url=site.url).new_page() for _ in range(2)]
    for page in pages:
        page.goto("/")
        page.locator("sse-live[state=connected]").wait_for()
    pages[0].fill("[name=text]", "It took five minutes.")
    pages[0].click("button")
    for page in pages:
        page.locator("li", has_text="It took five minutes.").wait_for()
        assert page.locator("li").count() == 1
        page.context.close()


def test_the_first_screen_shows_what_the_five_minutes_write():
    """But for `share`, which is explained there."""
    written = "\n".join(block.text for block in MINUTES if block.path).replace(" share=True", "")
    shown = [block for block in blocks_of("../README.md") if block.language in ("python", "html")][:3]
    for block in shown:
        assert block.path is None
        for line in block.text.splitlines():
            assert line in written, line


def test_the_lines_that_make_it_live_are_as_many_as_it_says():
    """Those with a word of this package or of the server."""
    files = [block for block in MINUTES if block.path]
    lines = [line for block in files for line in block.text.splitlines()[1:]]
    live = re.compile(r"sse|live|daphne|ASGI|import include")
    counted = sum(bool(live.search(line)) for line in lines)
    for page in (README, (ROOT / "docs/compared.md").read_text()):
        row = re.search(r"^\| \*\*django-sse-live\*\*[^|]*\| (\d+) (?:\(0\)|\| 0) \|", page, re.MULTILINE)
        assert row and int(row[1]) == counted


def test_readme_is_short():
    assert len(README.splitlines()) <= 175
