"""What the guides promise, seen in the project that their blocks make."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from django_sse_live.conf import LiveSettings
from tests.docs.blocks import DOCS, ROOT, blocks_of

NODE_MODULES = ROOT / "tests" / "js" / "node_modules"

# Runs in a project, with a database in memory, and an async function main() of its own.
SCENE = """
import asyncio, django
from django.conf import settings
settings.DATABASES["default"]["NAME"] = ":memory:"
django.setup()
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.management import call_command
from django.urls import include, path
import mysite.urls
from django_sse_live.testing import StreamClient, StreamRefused, capture_broadcasts
settings.ALLOWED_HOSTS = ["*"]
call_command("migrate", verbosity=0)
"""


def play(project, scene: str) -> None:
    project.run("-c", SCENE + scene)


def test_broadcast(project_of):
    play(
        project_of("howto/broadcast.md"),
        """
from django.contrib.auth.models import Group
from board.bulk import import_comments
from board.models import Comment, Like, Post

with capture_broadcasts() as sent:
    post = Post.objects.create(title="t")
    comment = Comment.objects.create(post=post, author="otter", text="hello")
    comment.save()
    like = Like.objects.create(post=post)
    like.delete()
    comment.delete()
    Group.objects.create(name="g")
    import_comments(post, ["one", "two"])
assert [(b.channels[0], b.type) for b in sent] == [
    ("post.1", "new_comment"), ("likes", "liked"), ("likes", "unliked"), ("post.1", "comment_deleted"),
    ("groups", "new_group"), ("post.1", "new_comment"), ("post.1", "new_comment"),
], sent
assert sent[0].data == {"id": 1, "line": "otter: hello"}
assert sent[3].data == {"id": 1}
""",
    )


@pytest.mark.needs("chromium")
def test_testing(project_of, tools):
    """Its tests are run, by pytest; those of Django's classes by Django's runner too."""
    project = project_of("howto/testing.md")
    names = sorted(path.name for path in (project.directory / "board").glob("test_*.py"))
    assert len(names) == 4
    plugins = ["pytest_django.plugin", "pytest_asyncio.plugin", "django_sse_live.testing.pytest_plugin"]
    said = project.run(
        "-m", "pytest", "-q", *(f"-p{name}" for name in plugins), "-oasyncio_mode=auto",
        *(f"board/{name}" for name in names), CHROMIUM=tools["chromium"],
    )  # fmt: skip
    assert re.search(r"\b8 passed", said), said
    said = project.run("manage.py", "test", "board.test_broadcasts", "board.test_streams")
    assert "Ran 5 tests" in said, said


def test_from_django_eventstream(project_of):
    play(
        project_of("howto/from-django-eventstream.md"),
        """
async def main():
    async with StreamClient().stream("/events/", {"channel": "comments"}) as stream:
        assert stream.channels == ["comments"]
    try:
        async with StreamClient().stream("/events/", {"channel": "staff.1"}):
            raise AssertionError("anybody hears the staff")
    except StreamRefused as refused:
        assert refused.status == 403

async_to_sync(main)()
""",
    )


def test_from_channels(project_of):
    play(
        project_of("howto/from-channels.md"),
        """
from board.models import Comment
from mysite.asgi import application

async def main():
    client = StreamClient(application=application)
    try:
        async with client.stream("/events/", {"channel": "comments"}):
            raise AssertionError("a visitor is let in")
    except StreamRefused as refused:
        assert refused.status == 403
    client = StreamClient()
    await client.aforce_login(await User.objects.acreate_user("otter"))
    async with client.stream("/events/", {"channel": "comments"}) as stream:
        await Comment.objects.acreate(text="hello")
        assert (await stream.next()).data["text"] == "hello"

async_to_sync(main)()
""",
    )


def test_a_view_of_ones_own_and_a_receiver(project_of):
    play(
        project_of("reference/python.md"),
        """
import board.receivers
from board.models import Comment
from board.streams import CommentStream
mysite.urls.urlpatterns.append(path("comments/", CommentStream.as_view()))

async def main():
    await Comment.objects.acreate(text="before")
    async with StreamClient().stream("/comments/") as stream:
        snapshot = await stream.next()
        assert (snapshot.type, snapshot.data) == ("snapshot", [{"id": 1, "text": "before"}])
        while not board.receivers.arrivals:
            await asyncio.sleep(0.01)
        assert board.receivers.arrivals == [(stream.client_id, None, ("comments",))]

async_to_sync(main)()
""",
    )


def test_servers(project_of):
    """The asgi.py that it shows is an application."""
    project_of("deploy/servers.md").run("-c", "from asgi import application; assert callable(application)")


# Runs as a test module in the project: the page in Chromium, on the project's own server.
BROWSER = """
import os
from django.test import override_settings
from django_sse_live.testing import LiveServerTestCase
from playwright.sync_api import expect, sync_playwright

from board.models import Comment

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"


class Tests(LiveServerTestCase):
    def test_in_chromium(self):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
            page = browser.new_page()
            said = []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("console", lambda message: said.append(message.text))
            try:
                self.see(page)
            except BaseException:
                print(said, page.content())
                raise
            finally:
                browser.close()
"""


@pytest.mark.needs("chromium")
def test_htmx(project_of, tools):
    if not NODE_MODULES.exists():
        pytest.skip("needs the packages of tests/js: npm install --prefix tests/js")
    project = project_of("howto/htmx.md")
    static = project.directory / "board" / "static"
    shutil.copy(NODE_MODULES / "htmx.org/dist/htmx.min.js", static)
    shutil.copy(NODE_MODULES / "htmx-ext-sse/dist/sse.min.js", static)
    scene = (
        BROWSER
        + """
    def see(self, page):
        page.goto(self.live_server_url)
        page.locator("sse-live[state=connected]").wait_for()
        comment = Comment.objects.create(text="By htmx")
        expect(page.locator("#comments li")).to_have_text(["By htmx"])
        comment.delete()
        expect(page.locator("#comments li")).to_have_count(0)

        with page.expect_response(lambda answer: "/events/" in answer.url):
            page.goto(self.live_server_url + "/fragments/")
        page.wait_for_timeout(300)  # the extension says nothing when its EventSource is open
        Comment.objects.create(text="As a fragment")
        expect(page.locator("#comments li")).to_have_text(["As a fragment"])
"""
    )
    (project.directory / "board" / "test_htmx.py").write_text(scene)
    project.run("manage.py", "test", "board.test_htmx", CHROMIUM=tools["chromium"])


@pytest.mark.needs("chromium", "node")
def test_react(project_of, tools):
    if not (NODE_MODULES / "react").exists():
        pytest.skip("needs the packages of tests/js: npm install --prefix tests/js")
    project = project_of("howto/react.md")
    static = project.directory / "board" / "static" / "board"
    compiler = ["node", NODE_MODULES / "typescript/bin/tsc", static / "Board.jsx", "--outDir", static / "built"]
    options = (
        "--allowJs --jsx react --module esnext --target esnext --moduleResolution bundler --noCheck --rootDir".split()
    )
    done = subprocess.run([*compiler, *options, static], capture_output=True, text=True, cwd=project.directory)
    built = static / "built" / "Board.js"
    assert built.exists(), done.stdout + done.stderr
    # React is published as CommonJS: these few lines are the bundler.
    for name, file in {
        "react": "react/cjs/react.development.js",
        "react-dom": "react-dom/cjs/react-dom.development.js",
        "scheduler": "scheduler/cjs/scheduler.development.js",
        "client": "react-dom/cjs/react-dom-client.development.js",
    }.items():
        shutil.copy(NODE_MODULES / file, static / f"{name}.cjs.js")
    (static / "react.mjs").write_text(BUNDLER)
    for path in (built, static / "built" / "useLive.js"):
        text = path.read_text().replace('from "react"', 'from "/static/board/react.mjs"')
        path.write_text('import React from "/static/board/react.mjs";\n' + text)
    page = project.directory / "board" / "templates" / "board" / "board.html"
    page.write_text(
        '<!doctype html><title>Board</title><div id="root"></div><script type="module">'
        'import React, { createRoot } from "/static/board/react.mjs";'
        'import { Board } from "/static/board/built/Board.js";'
        'createRoot(document.getElementById("root")).render(React.createElement(Board, { initial: [] }));</script>'
    )
    scene = (
        BROWSER
        + """
    def see(self, page):
        page.goto(self.live_server_url)
        expect(page.locator("[role=status]")).to_have_text("connected")
        comment = Comment.objects.create(text="By React")
        expect(page.locator("li")).to_have_text(["By React"])
        comment.delete()
        expect(page.locator("li")).to_have_count(0)
"""
    )
    (project.directory / "board" / "test_react.py").write_text(scene)
    project.run("manage.py", "test", "board.test_react", CHROMIUM=tools["chromium"])


BUNDLER = """
globalThis.process = { env: { NODE_ENV: "development" } };
const modules = {};
async function load(name, file) {
  const source = await (await fetch(`/static/board/${file}.cjs.js`)).text();
  const module = { exports: {} };
  new Function("module", "exports", "require", source)(module, module.exports, (wanted) => modules[wanted]);
  modules[name] = module.exports;
}
await load("react", "react");
await load("scheduler", "scheduler");
await load("react-dom", "react-dom");
await load("react-dom/client", "client");
export default modules.react;
export const { useEffect, useState } = modules.react;
export const { createRoot } = modules["react-dom/client"];
"""


def test_every_page_with_files_has_its_test():
    tested = set(re.findall(r'project_of\("([\w/.-]+)"\)', Path(__file__).read_text())) | {"tutorial.md"}
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).as_posix()
        if any(block.path for block in blocks_of(page)):
            assert page in tested, f"{page} has files, and no test looks at what they do"


# The reference says all there is


def test_every_setting_has_its_row():
    readme = (ROOT / "README.md").read_text()
    assert 'start-after: "## Settings"' in (DOCS / "reference/settings.md").read_text()
    table = readme.partition("## Settings")[2].partition("\n## ")[0]
    assert {field.name.upper() for field in fields(LiveSettings)} <= set(re.findall(r"`([A-Z_]+)`", table))


def test_every_option_of_the_browser_client_has_its_row():
    declared = (ROOT / "django_sse_live/static/django_sse_live/sse-live.d.ts").read_text()
    page = (DOCS / "reference/javascript.md").read_text()
    options = re.findall(
        r"^    (\w+)\?:", declared.partition("export type Options = {")[2].partition("};")[0], re.MULTILINE
    )
    assert options
    for name in options:
        assert f"`{name}`" in page, name
    live = declared.partition("export declare class SSELive extends")[2].partition("\n}")[0]
    for name in re.findall(r"^    (?:get )?(\w+)\(", live, re.MULTILINE):
        assert name == "constructor" or f"`{name}" in page, name


def test_every_attribute_of_the_element_has_its_row():
    template = (ROOT / "django_sse_live/templates/django_sse_live/sse_live.html").read_text()
    page = (DOCS / "reference/javascript.md").read_text()
    for name in re.findall(r'([\w-]+)="', template.partition("</sse-live>")[0]):
        assert f"`{name}`" in page, name


def test_every_system_check_has_its_row():
    declared = set(re.findall(r'id="(sse_live\.\w+)"', (ROOT / "django_sse_live/checks.py").read_text()))
    assert declared == set(re.findall(r"`(sse_live\.\w+)`", (DOCS / "reference/checks.md").read_text()))


def test_everything_public_is_in_the_reference():
    import django_sse_live
    from django_sse_live import testing

    page = (DOCS / "reference/python.md").read_text()
    for name in django_sse_live.__all__:
        assert f":: {name}\n" in page, name
    for name in testing.__all__:
        assert f":: django_sse_live.testing.{name}\n" in page, name
