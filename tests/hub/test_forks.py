"""A fork that Python is not told of, as when uWSGI loads the app and then forks in C: a process is known by its pid."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.live.harness.servers import ROOT

SCRIPT = """
import asyncio, ctypes, json, os, sys, threading
import django; django.setup()
from django_sse_live import broadcast, presence
from django_sse_live.backends import get_backend, running_hub
from django_sse_live.hub.registry import count_refused, find_hub, open_hubs, process_counts

ready, stop = threading.Event(), threading.Event()

async def serve():
    hub = running_hub()
    hub.counts.opened += 3
    count_refused("full")
    ready.set()
    while not stop.is_set():
        await asyncio.sleep(0.01)
    return len(hub.log)

served = []
thread = threading.Thread(target=lambda: served.append(asyncio.run(serve())))
thread.start()
ready.wait()
broadcast("a", "before")
parents = get_backend()
read, write = os.pipe()
child = ctypes.PyDLL(None).fork()
if not child:
    hubs, counts = open_hubs(), process_counts()
    broadcast("a", "in the child")
    said = {
        "hubs": len(hubs), "opened": counts.opened, "refused": dict(counts.refused), "published": counts.published,
        "then": process_counts().published, "same": get_backend() is parents,
        "epoch": get_backend().position().split(":")[0] == parents.position().split(":")[0],
    }
    os.write(write, json.dumps(said).encode())
    os._exit(0)
os.waitpid(child, 0)
broadcast("a", "after")
stop.set()
thread.join()
counts = process_counts()
print(json.dumps([json.loads(os.read(read, 10_000)), served, counts.published, counts.opened]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_a_fork_in_c_begins_without_hubs_counts_or_backend() -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    child, served, published, opened = json.loads(done.stdout)
    assert child == {
        "hubs": 0, "opened": 0, "refused": {}, "published": 0, "then": 1, "same": False, "epoch": False,
    }  # fmt: skip
    assert (served, published, opened) == ([2], 2, 3)
