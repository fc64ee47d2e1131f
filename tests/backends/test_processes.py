"""What a bus is in processes that Python's hooks or the standard library's threads know nothing of."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_sse_live.backends import get_backend, replace_backend
from django_sse_live.exits import ExitWork
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.registry import forget_hubs
from tests.backends.redis_process import RedisProcess
from tests.clients import make_client
from tests.live.harness import until

ROOT = Path(__file__).resolve().parents[2]

SETUP = """
import json, sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_sse_live"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    **json.loads(sys.argv[1]),
)
django.setup()
from django_sse_live import broadcast
"""


@pytest.fixture(params=["redis", "layer"])
def bus(request: pytest.FixtureRequest, redis: RedisProcess) -> dict[str, Any]:
    """Settings."""
    redis.command("FLUSHALL")
    if request.param == "redis":
        path = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
        return {"SSE_LIVE": {"BACKEND": path, "OPTIONS": {"URL": redis.url}}}
    return layer_on(redis)


def layer_on(redis: RedisProcess) -> dict[str, Any]:
    return {
        "SSE_LIVE": {"BACKEND": "django_sse_live.backends.channel_layer.ChannelLayerBackend"},
        "CHANNEL_LAYERS": {
            "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis.url]}}
        },
    }


def script(body: str, settings: dict[str, Any], *, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", before + SETUP + body, json.dumps(settings)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


async def heard_of(body: str, settings: dict[str, Any], count: int, *, returncode: int = 0) -> tuple[list[Any], bool]:
    """The data that a worker heard of a script, and whether its client was told of a loss."""
    forget_hubs()
    with override_settings(**settings):
        replace_backend(None)
        backend = get_backend()
        try:
            hub = Hub(asyncio.get_running_loop(), EventLog("0"))
            backend.attach(hub)
            await hub.filled()
            client = make_client(hub, ("c",))
            client.open()
            done = await asyncio.to_thread(script, body, settings)
            assert done.returncode == returncode, done.stderr
            await until(lambda: len(hub.log) >= count, say=lambda: str(hub.log.read(("c",), 0)))
            frames = b""
            while (frame := client.take()) is not None:
                frames += frame
            return [event.data for event in hub.log.read(("c",), 0)], b"event: reset" in frames
        finally:
            await asyncio.to_thread(backend.close)
            replace_backend(None)
            forget_hubs()


FORKS = """
import ctypes, os, threading, time
broadcast("c", "t", "parent")
# Threads have to be at rest at such a fork: one that is about to run is copied as one that the interpreter waits for.
from django_sse_live.backends import get_backend
def is_asleep(thread):
    with open(f"/proc/self/task/{thread}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "S"
looks = 0
while looks < 5:
    at_rest = not get_backend().buffered and all(map(is_asleep, {*os.listdir("/proc/self/task")} - {str(os.getpid())}))
    looks = looks + 1 if at_rest else 0
    time.sleep(0.01)
children = []
for name in "ab":
    pid = ctypes.PyDLL(None).fork()
    if pid == 0:
        for number in range(5):
            broadcast("c", "t", [name, number])
        from django_sse_live.backends import get_backend
        get_backend().close()
        os._exit(0)
    children.append(pid)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
broadcast("c", "t", "parent again")
"""


@pytest.mark.needs("redis")
async def test_children_of_a_fork_that_python_is_not_told_of_are_publishers_of_their_own(bus: dict[str, Any]) -> None:
    heard, was_reset = await heard_of(FORKS, bus, 12)
    for name in "ab":
        assert [item for item in heard if item[0] == name] == [[name, number] for number in range(5)]
    assert heard.count("parent") == heard.count("parent again") == 1
    assert not was_reset


ENDED = """
import asyncio, os, signal, time
from django_sse_live.backends import get_backend
from channels.layers import get_channel_layer
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it, as nohup does
broadcast("c", "t", 0)
async def pause():
    await get_channel_layer().connection(0).execute_command("CLIENT PAUSE 3000 WRITE")
asyncio.run(pause())
for number in range(1, 30):
    broadcast("c", "t", number)
assert get_backend().buffered
os.kill(os.getpid(), signal.{})
time.sleep(60)
"""


@pytest.mark.needs("redis")
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
async def test_what_waits_for_a_slow_layer_is_sent_though_a_signal_ends_the_process(
    redis: RedisProcess, ending: signal.Signals
) -> None:
    redis.command("FLUSHALL")
    heard, was_reset = await heard_of(ENDED.format(ending.name), layer_on(redis), 30, returncode=-ending)
    assert heard == [*range(30)] and not was_reset


CELERY = """
import time
from celery import Celery
import redis
app = Celery("tests", broker=%(broker)r, set_as_current=True)
@app.task(name="work")
def work():
    broadcast("c", "t", 0)
    redis.Redis.from_url(%(url)r).execute_command("CLIENT", "PAUSE", 3000)
    for number in range(1, 6):
        broadcast("c", "t", number)
app.conf.worker_max_tasks_per_child = 1
app.worker_main(["worker", "--pool", "prefork", "--concurrency", "1", "--loglevel", "WARNING", "-n", "sse@localhost"])
"""


@pytest.mark.needs("redis")
async def test_what_waits_for_redis_is_sent_though_the_child_of_a_celery_worker_ends(
    redis: RedisProcess, celery: Any
) -> None:
    """It is replaced after its one task, and ends by os._exit()."""
    redis.command("FLUSHALL")
    with RedisProcess() as brokers:
        path = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
        settings = {"SSE_LIVE": {"BACKEND": path, "OPTIONS": {"URL": redis.url}}}
        code = SETUP + CELERY % {"broker": brokers.url, "url": redis.url}
        worker = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", code, json.dumps(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            app = celery.Celery("tests", broker=brokers.url)
            await asyncio.to_thread(app.send_task, "work")
            await until(lambda: redis.command("XLEN", "sse_live") == b":6\r\n")
        finally:
            worker.terminate()
            await asyncio.to_thread(worker.wait, 30)


@pytest.mark.parametrize("is_old", [False, True])
def test_all_that_is_left_to_do_is_done_at_the_end_of_a_celery_child(
    is_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = pytest.importorskip("celery.signals")
    if is_old:  # versions to which one method of two objects is one receiver
        monkeypatch.setattr(
            "celery.utils.dispatch.signal._make_id", lambda target: id(getattr(target, "__func__", target))
        )
    done: list[int] = []
    works = [ExitWork(partial(done.append, number), lambda: True) for number in range(3)]
    signals.worker_process_shutdown.send(None)
    assert done == [0, 1, 2]
    works[2].cancel()
    signals.worker_process_shutdown.send(None)
    assert done == [0, 1, 2, 0, 1]
    for work in works:
        work.cancel()
    signals.worker_process_shutdown.send(None)
    assert len(done) == 5


GEVENT = "from gevent import monkey\nmonkey.patch_all()\n"
SAVES = """
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("migrate", verbosity=0)
for number in range(30):
    broadcast("c", "t", number)
    User.objects.create(username=str(number))
print(User.objects.count())
"""


@pytest.mark.needs("redis")
def test_the_channel_layer_refuses_gevent_at_start(redis: RedisProcess) -> None:
    pytest.importorskip("gevent")
    done = script(SAVES, layer_on(redis), before=GEVENT)
    assert done.returncode == 1
    assert "ImproperlyConfigured: ChannelLayerBackend cannot be used under gevent" in done.stderr
