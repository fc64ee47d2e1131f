from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import OutputWrapper
from django.test import override_settings

from django_sse_live import checks
from django_sse_live.events import Event, make_position
from django_sse_live.management.commands.sse_live_listen import Listener
from django_sse_live.testing import capture_broadcasts
from tests.backends.redis_process import RedisProcess

ROOT = Path(__file__).resolve().parents[2]
REDIS = "django_sse_live.backends.redis_streams.RedisStreamsBackend"


@pytest.fixture
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


def manage(*arguments: str, redis: RedisProcess | None = None) -> list[str]:
    """The command line of a process that is none of the test's."""
    backend = {} if redis is None else {"BACKEND": REDIS, "OPTIONS": {"URL": redis.url}}
    return [
        *(sys.executable, "-c"),
        "import sys; from django.conf import settings; import django; from django.core.management import call_command; "
        f"settings.configure(SSE_LIVE={backend!r}, SECRET_KEY='x', INSTALLED_APPS=['django.contrib.contenttypes', "
        "'django.contrib.auth', 'django_sse_live']); django.setup(); call_command(*sys.argv[1:])",
        *arguments,
    ]


def run(*arguments: str, redis: RedisProcess | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        manage(*arguments, redis=redis), env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@contextmanager
def listening(channels: str, redis: RedisProcess, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """``sse_live_listen`` in a process of its own, which listens already."""
    listener = subprocess.Popen(
        manage("sse_live_listen", channels, redis=redis),
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stderr is not None
        assert f"Listening to {channels}" in listener.stderr.readline()
        yield listener
    finally:
        listener.kill()
        listener.wait()


def test_send_broadcasts_json_and_text() -> None:
    with capture_broadcasts() as broadcasts:
        call_command("sse_live_send", "comments", "new_comment", '{"id": 7}', stdout=StringIO())
        call_command("sse_live_send", "comments", "ping", stdout=StringIO())
        call_command("sse_live_send", "comments", "html", "<li>7</li>", "--text", stdout=StringIO())
    assert [(b.channels, b.type, b.data) for b in broadcasts] == [
        (("comments",), "new_comment", {"id": 7}),
        (("comments",), "ping", None),
        (("comments",), "html", "<li>7</li>"),
    ]


def test_send_says_what_is_wrong() -> None:
    with pytest.raises(CommandError, match="not JSON"):
        call_command("sse_live_send", "comments", "new_comment", "{id: 7}")
    with pytest.raises(CommandError, match="reserved"):
        call_command("sse_live_send", "comments", "heartbeat")


def test_listen_refuses_a_backend_that_reaches_no_other_process() -> None:
    with pytest.raises(CommandError, match="memory backend"):
        call_command("sse_live_listen", "comments")


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e300", "soon"])
@pytest.mark.parametrize("command", [["sse_live_listen", "comments"], ["sse_live_status"], ["sse_live_doctor"]])
def test_seconds_that_cannot_be_waited_for_are_refused(command: list[str], seconds: str) -> None:
    with pytest.raises(CommandError, match=f"--seconds: invalid seconds value: '{seconds}'"):
        call_command(*command, f"--seconds={seconds}")


@pytest.mark.needs("redis")
def test_what_one_process_sends_another_prints(redis: RedisProcess) -> None:
    with listening("comm*", redis, PYTHONUNBUFFERED="1") as listener:
        assert listener.stdout is not None
        run("sse_live_send", "other", "x", redis=redis)
        sent = run("sse_live_send", "comments", "new_comment", '{"id": 7}', redis=redis)
        if "does not answer" not in sent.stderr:  # a slow machine's Redis: the event waits for it
            assert sent.stdout == "Sent 'new_comment' on 'comments'.\n", sent.stderr
        line = listener.stdout.readline()
        assert line.split("  ")[1:] == ["comments", "new_comment", '{"id":7}\n']
        run("sse_live_send", "comments", "note", "first\nsecond \x1b[2J \x9b", "--text", redis=redis)
        line = listener.stdout.readline()
        assert line.split("  ")[1:] == ["comments", "note", "first\\nsecond \\x1b[2J \\x9b\n"]


async def test_what_changes_a_page_is_printed_too() -> None:
    out = StringIO()
    hub = Listener(asyncio.get_running_loop(), ["*"], OutputWrapper(out))
    event = Event(("comments",), "patch", "null", patch='{"action":"remove","target":"comment-7"}')
    event.stamp("e", make_position(1, 0))
    hub.deliver(event)
    assert out.getvalue() == 'e:1-0  comments  patch  null  {"action":"remove","target":"comment-7"}\n'


@pytest.mark.needs("redis")
def test_it_ends_when_its_reader_leaves_and_writes_what_the_terminal_cannot_show(redis: RedisProcess) -> None:
    with listening("*", redis, PYTHONIOENCODING="ascii") as listener:
        assert listener.stdout is not None and listener.stderr is not None
        run("sse_live_send", "comments", "new_comment", '"\N{OTTER}"', redis=redis)
        assert listener.stdout.readline().split("  ")[3:] == ['"\\U0001f9a6"\n']
        listener.stdout.close()
        run("sse_live_send", "comments", "new_comment", redis=redis)
        assert listener.wait(60) == 0
        assert listener.stderr.read() == ""


@pytest.mark.needs("redis")
def test_what_a_short_process_sent_while_redis_was_paused_gets_out_at_its_end(redis: RedisProcess) -> None:
    redis.pause()
    sender = subprocess.Popen(
        manage("sse_live_send", "comments", "new_comment", "1", redis=redis),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sender.stderr is not None
    assert "does not answer" in sender.stderr.readline()
    redis.resume()
    assert sender.wait(60) == 0
    assert b"new_comment" in redis.command("XRANGE", "sse_live", "-", "+")


@pytest.mark.needs("redis")
def test_send_fails_where_the_bus_stays_away(redis: RedisProcess) -> None:
    redis.pause()
    sent = run("sse_live_send", "comments", "new_comment", "1", redis=redis)
    assert sent.returncode == 1 and sent.stdout == ""
    assert "'new_comment' was not sent: the bus does not answer." in sent.stderr


def test_a_broadcast_that_nobody_can_hear_is_told_once() -> None:
    sent = run("sse_live_send", "comments", "new_comment", "1")
    assert sent.returncode == 0
    assert sent.stderr.count("with the memory backend nobody hears it") == 1
    assert '"django_sse_live.backends.redis_streams.RedisStreamsBackend"' in sent.stderr  # as BACKEND takes it
    assert "Nobody hears 'new_comment' on 'comments': MemoryBackend reaches no other process." in sent.stderr
    assert sent.stdout == ""


def test_several_workers_and_the_memory_backend_do_not_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    assert checks.check_workers(None) == []
    assert [message.id for message in checks.check_workers_of_deployment(None)] == ["sse_live.W005"]
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert [message.id for message in checks.check_workers(None)] == ["sse_live.W005"]
    assert checks.check_workers_of_deployment(None) == []
    with override_settings(SSE_LIVE={"BACKEND": REDIS}):
        assert checks.check_workers(None) == []
