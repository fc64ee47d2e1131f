"""prometheus-client's multiprocess mode: what is left in the files by processes that end, in whatever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from django_sse_live.metrics import GAUGES
from tests.docs.blocks import blocks_of
from tests.live.harness import Crowd, Server, until
from tests.live.harness.servers import ROOT
from tests.operating.load import SITE, Samples, parse


def scraped(directory: Path) -> Samples:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))
    return parse(generate_latest(registry).decode())


@pytest.mark.parametrize("name", ["daphne", "uvicorn", "uvicorn-2", "hypercorn", "granian"])
async def test_a_server_that_stops_has_counted_its_goodbyes_and_has_no_streams(name: str, tmp_path: Path) -> None:
    environment = {**SITE, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    async with Server(name, app="tests.operating.site.asgi:application", environment=environment) as server:
        await Crowd.open(server, 6)
        await until(lambda: scraped(tmp_path).get("sse_live_streams") == 6)
        assert scraped(tmp_path)["sse_live_bus_up"] == 1
        await server.stop()
    left = scraped(tmp_path)
    assert left["sse_live_streams_closed_total{shutdown}"] == left["sse_live_streams_opened_total"] == 6
    assert not GAUGES.keys() & left.keys()


async def test_one_that_never_had_a_stream_leaves_nothing_that_was_only_so_then(tmp_path: Path) -> None:
    environment = {**SITE, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    async with Server("uvicorn", app="tests.operating.site.asgi:application", environment=environment) as server:
        await server.get("/events/health/")
        await until(lambda: "sse_live_log_events" in scraped(tmp_path))
        await server.stop()
    assert not GAUGES.keys() & scraped(tmp_path).keys()


def test_what_only_publishes_is_counted_though_it_serves_nothing_and_ends_at_once(tmp_path: Path) -> None:
    code = (
        "import django, os; django.setup()\n"
        "from django_sse_live import broadcast\n"
        "for _ in range(5): broadcast('a', 'tick')\n"
        "child = os.fork()\n"
        "if child: os.waitpid(child, 0)\n"
        "for _ in range(2): broadcast('a', 'tick')\n"
        "os._exit(0)\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    left = scraped(tmp_path)
    assert left["sse_live_events_published_total"] == 5 + 2 + 2
    assert not GAUGES.keys() & left.keys(), "of a bus that it may or may not reach it says nothing"


def test_a_job_that_is_lost_with_its_process_has_ended(tmp_path: Path) -> None:
    code = (
        "import django, os, signal, time; django.setup()\n"
        "from django_sse_live import start_job\n"
        "start_job(run=lambda job: time.sleep(60))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
    }
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment).returncode == -signal.SIGTERM
    left = scraped(tmp_path)
    assert left["sse_live_jobs_started_total"] == left["sse_live_jobs_ended_total{lost}"] == 1


async def test_the_view_that_the_documentation_shows_buries_those_that_were_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (view,) = (block for block in blocks_of("operating.md") if "mark_process_dead(pid)" in block.text)
    names: dict[str, Any] = {"HttpResponse": HttpResponse}
    exec(compile(view.text, str(view), "exec"), names)
    environment = {**SITE, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    async with Server("uvicorn", app="tests.operating.site.asgi:application", environment=environment) as server:
        await Crowd.open(server, 3)
        await until(lambda: scraped(tmp_path).get("sse_live_streams") == 3)
        assert parse(names["metrics"](None).content.decode())["sse_live_streams"] == 3
    assert scraped(tmp_path)["sse_live_streams"] == 3, "it was killed"
    left = parse(names["metrics"](None).content.decode())
    assert left["sse_live_streams_opened_total"] == 3 and not GAUGES.keys() & left.keys()


def run(code: str, directory: Path) -> str:
    """What a process of the multiprocess mode prints."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PROMETHEUS_MULTIPROC_DIR": str(directory),
    }
    done = subprocess.run(
        [sys.executable, "-c", "import django, os, sys; django.setup()\n" + code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return str(done.stdout + done.stderr)


def test_a_directory_that_goes_away_costs_a_line_and_no_stream(tmp_path: Path) -> None:
    directory = tmp_path / "metrics"
    directory.mkdir()
    said = run(
        """
import asyncio, shutil
from django_sse_live import metrics
from django_sse_live.backends import running_hub
from django_sse_live.hub.registry import find_hub
from django_sse_live.workers import Worker
from tests.clients import make_client

metrics.WRITE_SECONDS = 0.01
shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"])

async def serve():
    hub = running_hub()
    assert find_hub(asyncio.get_running_loop()) is hub and Worker in hub.parts
    client = make_client(hub)
    client.open()
    assert client.is_open
    await asyncio.sleep(0.1)
    os.mkdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    await asyncio.sleep(0.1)
    print("streams", sum("gauge" in name for name in os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])) > 0)
    client.leave()

asyncio.run(serve())
""",
        directory,
    )
    assert said.count("cannot be written") == 1
    assert "streams True" in said, "it goes on where it can"


def test_a_broadcast_that_interrupts_a_write_is_counted_by_it(tmp_path: Path) -> None:
    run(
        """
import prometheus_client, sys
from pathlib import Path
from django_sse_live import broadcast
import tests.test_interruptions as interruptions

interruptions.PACKAGE = (interruptions.PACKAGE, str(Path(prometheus_client.__file__).parent))
count = 0

def interruption():
    global count
    count += 1
    broadcast("a", "inner")

def run():
    with interruptions.interrupted(interruption):
        broadcast("a", "outer")

interruptions.in_time(run)
print(count)
open(os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], "count"), "w").write(str(count))
""",
        tmp_path,
    )
    count = int((tmp_path / "count").read_text())
    (tmp_path / "count").unlink()
    assert count > 300
    assert scraped(tmp_path)["sse_live_events_published_total"] == count + 1


def test_a_fork_in_c_counts_from_nothing(tmp_path: Path) -> None:
    run(
        """
import ctypes
from django_sse_live import broadcast
for _ in range(5): broadcast("a", "tick")
child = ctypes.PyDLL(None).fork()
if child: os.waitpid(child, 0)
for _ in range(2): broadcast("a", "tick")
os._exit(0)
""",
        tmp_path,
    )
    assert scraped(tmp_path)["sse_live_events_published_total"] == 5 + 2 + 2
