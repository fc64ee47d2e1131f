"""Every block of every page is run. A block of a kind that nothing here can run fails."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
from fnmatch import fnmatchcase

import pytest

from django_sse_live.backends import running_hub
from django_sse_live.testing import StreamClient
from django_sse_live.testing.parsers import EventParser
from tests.docs.blocks import PAGES, ROOT, Block, blocks_of

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
STATIC = ROOT / "django_sse_live" / "static" / "django_sse_live"
# The other pages' files are run by test_pages.py, the tutorial by the newcomer of tests/packaging.
DIRECTIVES = re.compile(
    r"\{(toctree|image|figure|include|literalinclude|note|warning|tip|important|math|grid|grid-item-card)\}.*"
)  # Sphinx runs these
# Configurations of proxies that no machine here has, which the page itself says.
UNTRIED = {"deploy/proxies.md"}
FILES = {"python", "html", "js", "jsx", "css", "ini", "nginx", "ts", "tsx"}


def loose(language: str) -> list[object]:
    return [pytest.param(block, id=str(block)) for block in BLOCKS if block.language == language and block.path is None]


def test_no_block_is_left_out():
    runnable = {"py", "python", "html", "js", "css", "console", "sh", "text", "json"}
    for block in BLOCKS:
        if block.path is not None:
            assert block.language in FILES, block
        elif not DIRECTIVES.fullmatch(block.language) and block.page not in UNTRIED:
            assert block.language in runnable, f"nothing can run {block}"
    assert len(BLOCKS) > 50


# What a block needs that the text around it has, or that the reader brings.
PRELUDE = """
import django
django.setup()
from django.test import override_settings
from typing import Any
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, JsonResponse
from django_sse_live import *
from django_sse_live.http.views import EventStreamView
from django.urls import include, path
from board.models import *
user = User.objects.filter(username="reader").first() or User.objects.create_user("reader")
"""

# A block that says SSE_LIVE = {…} must be settings that start.
RUN = """
names = dict(globals())
exec(compile(open(source).read(), source, "exec"), names)
if "SSE_LIVE" in names:
    from django_sse_live.backends import get_backend
    from django_sse_live.conf import live_settings
    layers = names.get("CHANNEL_LAYERS", {"default": {"BACKEND": "channels_redis.core.RedisChannelLayer"}})
    with override_settings(SSE_LIVE=names["SSE_LIVE"], CHANNEL_LAYERS=layers):
        live_settings()
        get_backend()
"""


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(b.language == "python" and not b.path for b in blocks_of(page))]
)
def test_python(page, project_of, tmp_path):
    """Each page's blocks, one after the other, in a process of that page's project."""
    script = [PRELUDE]
    for number, block in enumerate(b for b in blocks_of(page) if b.language == "python" and not b.path):
        source = tmp_path / f"block_{number}_of_line_{block.line}.py"
        source.write_text(block.text)
        ast.parse(block.text, str(block))
        script.append(f"source = {str(source)!r}\n{RUN}")
    (tmp_path / "run.py").write_text("\n".join(script))
    project_of(page).run(tmp_path / "run.py")


@pytest.mark.parametrize("block", loose("html"))
def test_html(block: Block, project_of, tmp_path):
    """A template of Django's that draws something."""
    (tmp_path / "block.html").write_text(block.text)
    script = """
import django, sys
django.setup()
from django.contrib.auth.models import AnonymousUser
from django.template import Context, Template
from django.test import RequestFactory
from board.models import Comment
from django_sse_live import stream_position
request = RequestFactory().get("/")
request.user = AnonymousUser()
comment = Comment(pk=7, text="By otter")
context = Context({"request": request, "position": stream_position(), "comment": comment, "comments": [comment]})
assert Template(open(sys.argv[1]).read()).render(context).strip()
"""
    project_of("tutorial.md").run("-c", script, tmp_path / "block.html")


@pytest.mark.needs("node")
@pytest.mark.parametrize("block", loose("js"))
def test_javascript(block: Block, tmp_path):
    """It runs, with a browser's globals that do nothing, and the client itself."""
    shutil.copytree(STATIC, tmp_path / "static")
    source = block.text.replace("/static/django_sse_live/", "./static/")
    world = """
import { install } from "./world.mjs";
install();
globalThis.SSELive = (await import("./static/sse-live.js")).SSELive;
globalThis.live = new SSELive("/events/");
"""
    (tmp_path / "world.mjs").write_text(WORLD)
    (tmp_path / "block.mjs").write_text(source)
    (tmp_path / "run.mjs").write_text(world + 'await import("./block.mjs");\nprocess.exit(0);\n')
    done = subprocess.run(["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


WORLD = """
export class EventSource extends EventTarget { constructor(url) { super(); this.url = url; } close() {} }
export function install() {
  const page = { visibilityState: "visible", hidden: false, baseURI: "http://localhost/" };
  globalThis.EventSource = EventSource;
  globalThis.document = Object.assign(new EventTarget(), page);
  const element = () => Object.assign(new EventTarget(), { setAttribute() {}, getAttribute: () => null, append() {} });
  const nodes = { createElement: element, querySelectorAll: () => [], documentElement: element() };
  Object.assign(globalThis.document, nodes);
  globalThis.document.querySelector = () => Object.assign(element(), { live: {}, send: async () => {} });
  globalThis.form = new EventTarget(); // a page's own
  globalThis.window = globalThis;
  globalThis.addEventListener = () => {};
  globalThis.removeEventListener = () => {};
  globalThis.location = new URL("http://localhost/");
  globalThis.token = globalThis.id = globalThis.url = globalThis.position = "";
  globalThis.show = () => {};
}
"""


@pytest.mark.parametrize("block", loose("css"))
def test_css(block: Block):
    """It names properties and parts that the element has."""
    client = "".join(file.read_text() for file in STATIC.glob("*.js"))
    for name in re.findall(r"--sse-live-[\w-]+", block.text):
        assert f"var({name}," in client, name
    for name in re.findall(r"::part\((\w+)\)", block.text):
        assert f'"{name}"' in client, name


def test_json():
    for block in BLOCKS:
        if block.language == "json":
            json.loads(block.text)


@pytest.fixture
async def control_frames(settings):
    """What the server says of itself, by type."""
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"], "HEARTBEAT_SECONDS": 0.1}
    async with StreamClient().stream("/events/", {"channel": "news"}, last_id="dead:1-1") as stream:
        frames = [stream.connected, await stream.next("reset"), await stream.next("heartbeat")]
        running_hub().shut_down()
        frames.append(await stream.next("goodbye"))
    return {frame.type: frame for frame in frames}


async def test_wire(control_frames):
    """What a page shows as text of the wire is an event stream, whose control frames say what the server's do."""
    shown = [block for block in BLOCKS if block.language == "text" and "\ndata: " in "\n" + block.text]
    assert shown
    for block in shown:
        events = EventParser().feed((block.text + "\n").encode())
        assert events, block
        for event in events:
            assert isinstance(event.data, dict), f"{block}: {event}"
            if event.type in control_frames:
                assert event.data.keys() == control_frames[event.type].data.keys(), f"{block}: {event}"


# Commands that only others' machines can run; what the server's own files say is run by tests/live/deploy.
PROGRAMS = {
    "mkdir",  # of what the newcomer of tests/packaging types
    "cp",
    "cd",
    "seq",
    "curl",
    "redis-cli",
    "redis-server",
    "docker",
    "systemctl",
    "nginx",
    "caddy",
    "haproxy",
    "sysctl",
    "ss",
    "npm",
    "npx",
    "sudo",
    "set",
    "apt-get",
    "useradd",
    "install",
    "journalctl",
}
SERVERS = {"daphne", "uvicorn", "hypercorn", "granian", "gunicorn"}


@pytest.mark.parametrize("block", [b for b in loose("console") + loose("sh") if b.values[0].page != "tutorial.md"])
def test_console(block: Block, project_of):
    """Commands that exist, with options that they know where they are ours."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words = [
            word for word in shlex.split(line, comments=True) if "=" not in word.partition("/")[0] or word[0] == "-"
        ]
        program, *arguments = words
        if program == "make":
            targets = [a for a in arguments if "=" not in a]
            makefile = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE) for target in targets), line
        elif program in ("python", "python3") and arguments[0].endswith("manage.py"):
            project_of(block.page).run("manage.py", arguments[1], "--help")
        elif program in ("python", "python3") and arguments[0] == "-m":
            module = ROOT.joinpath(*arguments[1].split("."))
            known = (
                module.is_dir()
                or module.with_suffix(".py").exists()
                or arguments[1] in {"pip", "venv", "pytest", "build"}
            )
            assert known, line
        elif program in ("python", "python3") and arguments[0] == "-c":
            compile(arguments[1], str(block), "exec")
        elif program == "pip":
            assert arguments[0] == "install", line
        else:
            assert program in PROGRAMS | SERVERS, f"{block}: nothing knows {program}"


def test_every_page_can_be_reached():
    """Sphinx says so too, but its word is only heard where it is installed."""
    index = (ROOT / "docs" / "index.md").read_text()
    patterns = [line.strip().replace("**", "*") for line in index.splitlines()]
    for page in PAGES:
        stem = page.removesuffix(".md")
        assert page == "index.md" or any(fnmatchcase(stem, pattern) for pattern in patterns), page
