"""What the guides promise, seen in the project that their blocks make."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import get_args

import httpx
import pytest

from django_sse_live.conf import LiveSettings
from django_sse_live.hub.reading import CloseReason
from tests.docs.blocks import DOCS, ROOT, blocks_of
from tests.docs.scenes import GUIDES
from tests.live.harness import free_port

NODE_MODULES = ROOT / "tests" / "js" / "node_modules"
README = (ROOT / "README.md").read_text()

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
        "-m", "pytest", "-q", *(f"-p{name}" for name in plugins),
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


def test_multi_tenant(project_of):
    """A save on one tenant's host is heard on it, and not on the other's."""
    play(
        project_of("howto/multi-tenant.md"),
        """
from asgiref.sync import sync_to_async
from board.middleware import TenantMiddleware
from board.models import Comment
from django.http import HttpResponse
from django.test import RequestFactory
from django_sse_live.conf import live_settings

settings.SSE_LIVE = {"NAMESPACE": "board.tenants.namespace", "PUBLIC_CHANNELS": ["comments"]}
live_settings.cache_clear()

def save(request):
    Comment.objects.create(text=request.get_host())
    return HttpResponse()

async def main():
    async with StreamClient().stream("/events/", {"channel": "comments"}) as stream:  # its host is testserver
        handle = sync_to_async(TenantMiddleware(save))
        for host in ("other.localhost", "testserver"):
            await handle(RequestFactory(headers={"host": host}).get("/"))
        assert (await stream.next()).data["text"] == "testserver"

async_to_sync(main)()
""",
    )


def test_two_way(project_of):
    project_of("howto/two-way.md").run("manage.py", "test", "board.test_messages")


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
    project_of("deploy/servers.md").run("-c", "from mysite.asgi import application; assert callable(application)")


def test_develop(project_of):
    """Under Uvicorn the page's script is there, with a type that browsers run."""
    project = project_of("howto/develop.md")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "mysite.asgi:application", "--port", str(port), "--log-level", "error"]
    with subprocess.Popen(command, cwd=project.directory, env=project.environment) as server:
        try:
            url = f"http://127.0.0.1:{port}/static/django_sse_live/sse-live.js"
            answer = until_answered(url, server)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript")
            with httpx.stream("GET", f"http://127.0.0.1:{port}/events/?channel=comments", timeout=60) as stream:
                lines = stream.iter_lines()
                assert "event: connected" in lines
                server.send_signal(signal.SIGTERM)
                assert "event: goodbye" in lines
        finally:
            server.kill()


def until_answered(url, server):
    while True:
        assert server.poll() is None
        try:
            return httpx.get(url, timeout=60)
        except httpx.TransportError:
            time.sleep(0.05)


# Runs as a test module in the project: the page in Chromium, on the project's own server.
BROWSER = """
import os
import re
from django.test import override_settings
from django_sse_live.testing import LiveServerTestCase
from playwright.sync_api import expect, sync_playwright

from board.models import Comment

os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
expect.set_options(timeout=60_000)  # a slow machine's


def between(page, save, place=None):
    # Once, after the page is drawn and before its stream is opened; at another place of the log, if one is given.
    def go_on(route):
        save()
        url = route.request.url
        route.continue_(url=re.sub("last_event_id=[^&]*", f"last_event_id={place}", url) if place else url)

    page.route("**/events/**", go_on, times=1)


class Tests(LiveServerTestCase):
    def test_in_chromium(self):
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
            page = browser.new_page()
            said = []
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("console", lambda message: said.append(message.text))
            try:
                self.errors = []
                page.on("pageerror", lambda error: self.errors.append(str(error)))
                page.on("dialog", lambda dialog: self.errors.append(dialog.message))
                self.see(page)
                self.assertEqual(self.errors, [])
            except BaseException:
                print(said, page.content())
                raise
            finally:
                browser.close()
"""


@pytest.mark.needs("chromium")
def test_live_pages(project_of, tools):
    project = project_of("howto/pages.md")
    play_in_browser(
        project,
        tools,
        "pages",
        """
    def see(self, page):
        post = Post.objects.create(title="One")
        for number in range(20):
            Comment.objects.create(post=post, text=f"{number}")
        page.goto(f"{self.live_server_url}/posts/{post.pk}/")
        page.locator("sse-live[state=connected]").wait_for()
        page.fill("[name=text]", "half a thought")
        comment = Comment.objects.create(post=post, text="new")
        rows = page.locator("#comments li:not([hidden])")
        expect(rows.first).to_have_text("new (on One)")
        expect(rows).to_have_count(20)
        expect(page.locator("#count")).to_have_text("20 of 21 comments")
        detail = page.context.browser.new_page()
        detail.goto(f"{self.live_server_url}/comments/{comment.pk}/")
        detail.locator("sse-live[state=connected]").wait_for()
        comment.text = "newer"
        comment.save()
        expect(rows.first).to_have_text("newer (on One)")
        expect(detail.locator("li")).to_have_text("newer (on One)")
        comment.delete()
        expect(detail.locator("#comment li")).to_have_count(0)
        expect(rows.last).to_have_text("0 (on One)")
        Comment.objects.first().delete()
        Comment.objects.update(text="by hand")
        for each in Comment.objects.all():
            each.delete()
        expect(page.get_by_text("Nothing yet.")).to_be_visible()
        expect(page.locator("#count")).to_have_text("0 of 0 comments")
        assert page.input_value("[name=text]") == "half a thought"
""",
        models="Comment, Post",
    )


@pytest.mark.needs("chromium")
def test_tutorial(project_of, tools):
    project = project_of("tutorial.md")
    play_in_browser(
        project,
        tools,
        "tutorial",
        """
    def see(self, page):
        other = page.context.browser.new_page()
        for each in (page, other):
            each.goto(self.live_server_url)
            each.locator("sse-live[state=connected]").wait_for()
        page.fill("[name=text]", "Hello")
        page.click("button")
        row = other.locator("#comments > li")
        expect(row).to_contain_text("Hello")
        page.fill("#comments [name=text]", "Hello again")
        page.get_by_role("button", name="Save").click()
        expect(row).to_contain_text("Hello again")
        expect(row.locator("[name=csrfmiddlewaretoken]")).not_to_have_value("")
        other.get_by_role("button", name="Delete").click()
        expect(page.locator("#comments > li")).to_have_count(0)
""",
    )


def play_in_browser(project, tools, name, *scene, models="Comment"):
    """A test of the project's own, ``see()``, that a browser plays."""
    start = BROWSER.replace("import Comment", f"import {models}")
    (project.directory / "board" / f"test_{name}.py").write_text(start + "".join(scene))
    # In a file: of a database in memory, which its threads share, SQLite locks whole tables and waits for none.
    with (project.directory / "mysite" / "settings.py").open("a") as settings:
        settings.write('\nDATABASES["default"]["TEST"] = {"NAME": BASE_DIR / "test.sqlite3"}\n')
    project.run("manage.py", "test", "--noinput", f"board.test_{name}", CHROMIUM=tools["chromium"])


LOG_IN = """
    def log_in(self, page):
        from django.contrib.auth.models import User

        self.client.force_login(User.objects.create_user("otter"))
        value = self.client.cookies["sessionid"].value
        page.context.add_cookies([{"name": "sessionid", "value": value, "url": self.live_server_url}])
"""


@pytest.mark.needs("chromium")
def test_stream_an_answer(project_of, tools):
    project = project_of("howto/stream-an-answer.md")
    play_in_browser(
        project,
        tools,
        "answers",
        LOG_IN,
        """
    def see(self, page):
        import threading
        import board.answers

        whole = board.answers.pieces
        steps = threading.Semaphore(3)

        def pieces(text):
            for piece in whole(text):
                assert steps.acquire(timeout=60)
                yield piece

        board.answers.pieces = pieces
        self.log_in(page)
        page.goto(self.live_server_url)
        page.fill("[name=text]", "<b>Why</b> <script>alert(1)</script>")
        page.click("button")
        text = page.locator("pre")
        expect(text).to_have_text("Otters **hold hands** ")
        page.reload()
        cookies = page.context.storage_state()
        other = page.context.browser.new_context(storage_state=cookies).new_page()
        other.goto(page.url)
        for each in (page, other):
            expect(each.locator("pre")).to_have_text("Otters **hold hands** ")
            expect(each.get_by_role("button", name="Stop")).to_be_visible()
        steps.release(10)
        for each in (page, other):
            expect(each.locator("article strong")).to_have_text("hold hands")
            expect(each.locator("article")).to_contain_text("<script>alert(1)</script>")
            expect(each.locator("sse-live-job")).to_have_count(0)
        page.reload()
        expect(page.locator("article strong")).to_have_text("hold hands")
""",
        models="Question",
    )


@pytest.mark.needs("chromium")
def test_progress(project_of, tools):
    project = project_of("howto/progress.md")
    play_in_browser(
        project,
        tools,
        "progress",
        LOG_IN,
        """
    def see(self, page):
        self.log_in(page)
        page.goto(self.live_server_url)
        file = {"name": "lines.txt", "mimeType": "text/plain", "buffer": b"one\\ntwo\\nthree"}
        page.set_input_files("[name=file]", file)
        page.click("button")
        expect(page.locator("sse-live-job")).to_have_attribute("state", "finished")
        expect(page.locator("#comments li")).to_have_count(3)
        page.reload()
        expect(page.get_by_role("status").get_by_text("Finished")).to_be_visible()

        from board.tasks import import_task
        from django.contrib.auth.models import User
        from django_sse_live import find_job, start_job

        user = User.objects.get()
        job = start_job(owner=user, key="import")
        page.reload()
        expect(page.get_by_role("status").get_by_text("Running…")).to_be_visible()
        import_task(job.id, ["four"])
        expect(page.locator("sse-live-job")).to_have_attribute("state", "finished")
        assert find_job(owner=user, key="import").result == {"count": 1}
        import_task(job.id, ["five"])
        assert Comment.objects.count() == 4
""",
    )


def vendor(project, *files):
    """Put these files of npm's packages where the project's pages look for them; what is missing is a skip, by name."""
    static = project.directory / "board" / "static"
    static.mkdir(exist_ok=True)
    for file in files:
        if not (NODE_MODULES / file).exists():
            pytest.skip(f"needs {file} of the packages of tests/js: npm install --prefix tests/js")
        shutil.copy(NODE_MODULES / file, static)


def version_of(package):
    version = json.loads((NODE_MODULES / package / "package.json").read_text())["version"]
    return version.rpartition(".")[0]


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(
    ("version", "package", "extension", "said"),
    [
        (4, "htmx4", "htmx4/dist/ext/hx-sse.min.js", "htmx {}"),
        (2, "htmx.org", "htmx-ext-sse/dist/sse.min.js", "and {}, from npm"),
    ],
)
def test_htmx(project_of, tools, version, package, extension, said):
    project = project_of("howto/htmx.md")
    vendor(project, f"{package}/dist/htmx.min.js", extension)
    assert said.format(version_of(package)) in (DOCS / "howto/htmx.md").read_text()
    play_in_browser(
        project,
        tools,
        "htmx",
        f"\n    version = {version}\n",
        """
    def see(self, page):
        page.goto(self.live_server_url)
        page.locator("sse-live[state=connected]").wait_for()
        rows = page.locator("#comments span")
        comment = Comment.objects.create(text="By htmx")
        expect(rows).to_have_text(["By htmx"])
        comment.text = "By htmx, again"
        comment.save()
        expect(rows).to_have_text(["By htmx, again"])
        page.evaluate("document.querySelector('#comments').replaceChildren()")
        page.evaluate("document.dispatchEvent(new CustomEvent('sse:reset'))")
        expect(rows).to_have_text(["By htmx, again"])
        comment.delete()
        expect(rows).to_have_count(0)

        between(page, lambda: Comment.objects.create(text="Before the stream"))
        page.goto(f"{self.live_server_url}/fragments/{self.version}/")
        expect(rows).to_have_text(["Before the stream"])
        Comment.objects.create(text="<img src=x onerror=alert(1)>")
        expect(rows).to_have_text(["Before the stream", "<img src=x onerror=alert(1)>"])

        between(page, lambda: Comment.objects.update(text="Fetched after a reset"), place="gone:1-0")
        page.reload()
        expect(rows).to_have_text(["Fetched after a reset"] * 2)
        Comment.objects.create(text="And on")
        expect(rows.last).to_have_text("And on")
        comment = Comment.objects.first()
        comment.text = "Changed"
        comment.save()
        expect(rows).to_have_text(["Changed", "Fetched after a reset", "And on"])
        comment.delete()
        expect(rows).to_have_text(["Fetched after a reset", "And on"])
""",
    )


@pytest.mark.needs("chromium")
@pytest.mark.parametrize("path", ["/", "/source/"])
def test_turbo(project_of, tools, path):
    project = project_of("howto/turbo.md")
    vendor(project, "@hotwired/turbo/dist/turbo.es2017-umd.js")
    assert f"Turbo {version_of('@hotwired/turbo')}, from npm" in (DOCS / "howto/turbo.md").read_text()
    play_in_browser(
        project,
        tools,
        "turbo",
        f"\n    path = {path!r}\n",
        """
    def see(self, page):
        from django_sse_live import broadcast_text

        between(page, lambda: Comment.objects.create(text="Before the stream"))
        url = self.live_server_url + self.path
        page.goto(url)
        rows = page.locator("#comments span")
        expect(rows).to_have_text(["Before the stream"])
        other = page.context.browser.new_page()
        other.goto(url)
        page.fill("[name=text]", "<img src=x onerror=alert(1)>")
        page.click("text=Send")
        for each in (page, other):
            expect(each.locator("#comments span")).to_have_text(["Before the stream", "<img src=x onerror=alert(1)>"])
        page.fill("[name=text]", "half a thought")
        comment = Comment.objects.first()
        comment.text = "Changed"
        comment.save()
        expect(rows.first).to_have_text("Changed")
        Comment.objects.update(text="By hand")
        broadcast_text("turbo", "message", '<turbo-stream action="refresh"></turbo-stream>')
        for each in (page, other):
            expect(each.locator("#comments span")).to_have_text(["By hand", "By hand"])
        comment.delete()
        for each in (page, other):
            expect(each.locator("#comments span")).to_have_count(1)
        expect(page.locator("turbo-stream-source, sse-live[state=connected]")).to_have_count(1)  # after the morph, too
""",
    )


def test_every_page_with_files_has_its_test():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    tested = set(re.findall(r'(?:project_of\(|PAGE = )"([\w/.-]+)"', tests)) | {"tutorial.md"}
    tested |= {guide.page for guide in GUIDES.values()}  # by the newcomer of tests/packaging
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).as_posix()
        if any(block.path for block in blocks_of(page)):
            assert page in tested, f"{page} has files, and no test looks at what they do"


# The reference says all there is


def test_every_setting_has_its_row():
    table = (DOCS / "reference/settings.md").read_text()
    named = {
        name for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`([A-Z_]+)`", row)
    }
    assert named == {field.name.upper() for field in fields(LiveSettings)}


def test_every_default_is_right():
    """`10 000` is a number, `16 MiB` too; a class stands for its path."""
    table = (DOCS / "reference/settings.md").read_text()
    settings = LiveSettings()
    for names, values in re.findall(r"^\| (`[A-Z_]+`[^|]*) \| ([^|]+) \|", table, re.MULTILINE):
        keys = re.findall(r"`([A-Z_]+)`", names)
        shown = values.split(", ") if len(keys) > 1 else [values]
        assert len(keys) == len(shown), names
        for key, text in zip(keys, shown, strict=True):
            value = getattr(settings, key.lower())
            number = text.replace("\N{NO-BREAK SPACE}", "").replace(" ", "").removesuffix("MiB")
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                assert float(number) * (1 << 20 if "MiB" in text else 1) == value, key
            else:
                plain = (
                    {(): "[]", None: "None"}.get(value, getattr(value, "__name__", str(value)))
                    if not isinstance(value, dict)
                    else "{}"
                )
                assert text.strip("`") == plain or ("…" in text and plain.endswith(text.strip("`…"))), key


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
    sources = "".join(path.read_text() for path in (ROOT / "django_sse_live").rglob("*.py"))
    declared = set(re.findall(r'id="(sse_live\.\w+)"', sources))
    declared |= {f"sse_live.{number}" for number in re.findall(r'\("([EW]\d{3})", ', sources)}
    assert declared == set(re.findall(r"`(sse_live\.\w+)`", (DOCS / "reference/checks.md").read_text()))


def test_every_reason_of_an_end_has_its_word():
    signals = (DOCS / "reference/python.md").read_text().partition("| `close_reason` | ")[2].partition("\n")[0]
    wire = (DOCS / "reference/wire.md").read_text()
    goodbyes = wire.partition("| `reason` of a `goodbye` |")[2].partition("\n\n")[0]
    assert set(get_args(CloseReason)) <= set(re.findall(r"`(\w+)`", signals + goodbyes))


def test_everything_public_is_in_the_reference():
    import django_sse_live
    from django_sse_live import testing

    shown = set(re.findall(r"^<!-- api ([\w.]+)", (DOCS / "reference/python.md").read_text(), re.MULTILINE))
    for name in django_sse_live.__all__:
        assert f"django_sse_live.{name}" in shown
    for name in testing.__all__:
        assert f"django_sse_live.testing.{name}" in shown


def test_the_reference_says_what_the_docstrings_say():
    done = subprocess.run([sys.executable, DOCS / "reference/make.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_figures_have_one_home():
    """The table in compared.md: `python docs/images/make.py bars` draws it, and README repeats it."""
    make = {"__name__": "make", "__file__": str(DOCS / "images/make.py")}
    exec((DOCS / "images/make.py").read_text(), make)
    assert (DOCS / "images/benchmark.svg").read_text() == make["bars"]()
    row = re.search(r"^\| \*\*django-sse-live\*\* \| ([^|]+) \| ([^|]+) \|", (DOCS / "compared.md").read_text(), re.M)
    cpu, memory = row[1].replace("–", " to "), row[2]
    assert f"costs the server {cpu} × " in README and f"an idle stream {memory}:" in README


def test_every_link_leads_somewhere_and_has_a_text():
    """As the code host shows them, too: files, and headings of theirs."""
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        if "_build" in page.parts:
            continue
        text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for words, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            there = (page.parent / name) if name else page
            assert words and there.exists(), f"{page.name}: [{words}]({target})"
            if anchor:
                assert anchor in anchors_of(there), f"{page.name}: {target}"


def anchors_of(page):
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_page_needs_sphinx_to_say_something():
    """But for the index, which is the site's front page as README is the code host's."""
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "index.md" and "_build" not in page.parts:
            assert not re.search(r"^```\{(eval-rst|include|toctree)", page.read_text(), re.MULTILINE), page
