"""The README's five minutes, taken from the README and followed to the letter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runserver import ROOT, Runserver

README = (ROOT / "README.md").read_text()
TUTORIAL = README.partition("## Five minutes")[2].partition("\n## ")[0]

# A block that opens with a comment which is a path is that file; these two are added to, as the text says.
FILE = re.compile(r"```(?:python|html|js)\n(?:#|//|<!--) ([\w./]+)(?: -->)?\n(.*?)```", re.DOTALL)
ADDED_TO = {"mysite/settings.py", "mysite/asgi.py"}


@pytest.fixture
def tutorial(tmp_path):
    """The site that one has after the five minutes, running."""
    commands = re.findall(r"^(?:django-admin|python manage\.py) (.*)$", TUTORIAL, re.MULTILINE)
    assert commands.pop() == "runserver"
    site = Runserver("mysite.settings", tmp_path, project=tmp_path)
    for number, command in enumerate(commands):
        if number == 2:
            write_files(tmp_path)
        module = [sys.executable, "-m", "django", *command.split()]
        environment = site.environment if number >= 2 else {**site.environment, "DJANGO_SETTINGS_MODULE": ""}
        environment = {**environment, "PYTHONPATH": f"{tmp_path}:{environment['PYTHONPATH']}"}
        subprocess.run(module, cwd=tmp_path, env=environment, check=True)
    site.start()
    yield site
    site.kill()


def write_files(directory: Path) -> None:
    for name, text in FILE.findall(TUTORIAL):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if name in ADDED_TO else ""
        path.write_text(before + text)


@pytest.mark.needs("chromium")
def test_after_five_minutes_a_comment_appears_in_the_other_window(tutorial, chromium):
    pages = [chromium.new_context(base_url=tutorial.url).new_page() for _ in range(2)]
    for page in pages:
        page.goto("/")
        page.locator("sse-live[state=connected]").wait_for()
    pages[0].fill("[name=text]", "It took five minutes.")
    pages[0].click("button")
    for page in pages:
        page.locator("li", has_text="It took five minutes.").wait_for()
        assert page.locator("li").count() == 1
        page.context.close()


def test_the_settings_table_is_complete():
    from dataclasses import fields

    from django_sse_live.conf import LiveSettings

    table = README.partition("## Settings")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([A-Z_]+)`", "\n".join(line.partition(" | ")[0] for line in table.splitlines())))
    assert named == {field.name.upper() for field in fields(LiveSettings)}
