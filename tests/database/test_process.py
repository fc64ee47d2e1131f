"""What a process is to the bus: forks, short lives, both drivers of PostgreSQL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_sse_live.database.session import Waker

ROOT = Path(__file__).parents[2]
SET_UP = """
import asyncio, ctypes, gc, os, sys, threading, time
if os.environ.get("WITHOUT"):
    sys.modules[os.environ["WITHOUT"]] = None
import django
django.setup()
from django.db import connection, transaction
import django_sse_live.database.thread
from django_sse_live import abroadcast, broadcast
from django_sse_live.backends import get_backend, running_hub

def session_id():
    # Of the bus thread's connection, by what the server says.
    return get_backend().thread.ask(lambda session, status: session.query(SESSION_ID)[0][0]).result(10)

SESSION_ID = {
    "postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()", "sqlite": "SELECT 1"
}[connection.vendor]
if "fork" in sys.argv:
    django_sse_live.database.thread.LINGER_SECONDS = 60
"""


@pytest.fixture(params=["postgresql", "psycopg2", "mariadb", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    from tests.conftest import find_program, how_to_get

    kind = "postgresql" if request.param == "psycopg2" else request.param
    if kind != "sqlite" and find_program(kind) is None:
        pytest.skip(how_to_get(kind))
    return str(kind)


@pytest.fixture
def without(request: pytest.FixtureRequest) -> str:
    """The module that is not there."""
    return "psycopg" if "psycopg2" in request.node.name else ""


@pytest.fixture
def run(bus: str, without: str) -> Any:
    given = connections[bus].settings_dict
    settings = {key: given[key] for key in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")}
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.database.run.settings",
        "PYTHONPATH": str(ROOT),
        "RUN_DATABASES": json.dumps({"default": settings}),
        "WITHOUT": without,
    }
    connections[bus].close()

    def run(code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", SET_UP + textwrap.dedent(code), *(["fork"] if "os.fork" in code else [])],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run


def types(bus: str) -> list[str]:
    """Of the events that have a position, in their order."""
    with connections[bus].cursor() as cursor:
        position = "id" if connections[bus].vendor == "sqlite" else "position"
        cursor.execute(f"SELECT body FROM sse_live_event WHERE {position} IS NOT NULL ORDER BY {position}")
        return [json.loads(bytes(body).partition(b"\n")[0])["type"] for (body,) in cursor.fetchall()]


def test_which_driver_it_is(run: Any, without: str, kind: str) -> None:
    if kind == "postgresql":
        module = "psycopg2" if without else "psycopg"
        code = "connection.ensure_connection(); print(type(connection.connection).__module__.split('.')[0])"
        assert run(code).strip() == module


def test_a_command_that_ends_at_once_is_heard_at_once(run: Any, bus: str) -> None:
    run("broadcast('c', 'plain')")
    run(
        """
        with transaction.atomic():
            broadcast('c', 'committed')
        """
    )
    run("asyncio.run(abroadcast('c', 'from_a_coroutine'))")
    assert types(bus) == ["plain", "committed", "from_a_coroutine"]


def test_a_fork_leaves_its_parent_s_connection_alone(run: Any, bus: str) -> None:
    told = run(
        """
        broadcast('c', 'before')
        mine = session_id()
        pid = os.fork()
        if pid == 0:
            connection.connection = None  # Django's own, which is the project's business
            broadcast('c', 'child')
            assert SESSION_ID == "SELECT 1" or session_id() != mine
            gc.collect()
            get_backend().close()
            gc.collect()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(session_id() == mine)
        broadcast('c', 'after')
        """
    )
    assert told.strip() == "True"
    assert types(bus) == ["before", "child", "after"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
def test_a_fork_waits_until_the_bus_thread_holds_no_lock(run: Any, bus: str) -> None:
    """SQLite's notes of its locks would be in the child, and the file locked there for ever."""
    run(
        """
        def write(session, status):
            session.run("BEGIN IMMEDIATE")
            has_begun.set()
            time.sleep(0.3)
            session.run("ROLLBACK")

        has_begun = threading.Event()
        get_backend().thread.ask(write)
        has_begun.wait()
        pid = os.fork()
        if pid == 0:
            connection.connection = None
            broadcast('c', 'child')
            get_backend().close()
            os._exit(0)
        os.waitpid(pid, 0)
        """
    )
    assert types(bus) == ["child"]


def test_a_call_while_the_one_before_is_read_silences_none_after_it() -> None:
    waker = Waker()
    inner: Any = waker._inner

    class CalledWhileRead:
        def recv(self, size: int) -> bytes:
            waker.wake()
            return bytes(inner.recv(size))

        def fileno(self) -> int:
            return int(inner.fileno())

    waker._inner = CalledWhileRead()
    waker.wait(0)
    waker._inner = inner
    waker.wake()
    began = time.monotonic()
    waker.wait(60)
    assert time.monotonic() < began + 30


def test_what_the_database_does_not_take_before_the_end_is_told(run: Any, bus: str, kind: str) -> None:
    connections[bus].cursor().execute("DROP TABLE sse_live_event")
    run(
        """
        import logging
        lines = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())
        logging.getLogger('django_sse_live').addHandler(handler)
        broadcast('c', 'lost')
        get_backend().close()
        assert any(line.startswith('1 SSE events are lost') for line in lines), lines
        """
    )


def test_a_fork_that_python_is_not_told_of_has_a_thread_of_its_own(run: Any, bus: str) -> None:
    run(
        """
        broadcast('c', 'before')
        while any(thread.name == 'sse-live-database' for thread in threading.enumerate()):
            time.sleep(0.05)  # with threads at work, no such fork is safe in Python
        pid = ctypes.PyDLL(None)['fork']()
        if pid == 0:
            connection.connection = None
            broadcast('c', 'child')
            get_backend().close()
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        broadcast('c', 'after')
        """
    )
    assert types(bus) == ["before", "child", "after"]


def test_a_fork_that_ends_in_good_order_leaves_it_alone_too(run: Any, bus: str) -> None:
    told = run(
        """
        broadcast('c', 'before')
        mine = session_id()
        pid = os.fork()
        if pid == 0:
            connection.connection = None
            sys.exit()  # without a word of the bus, but with all that an exit does
        os.waitpid(pid, 0)
        print(session_id() == mine)
        """
    )
    assert told.strip() == "True"


def test_loops_that_come_and_go_leave_nothing_behind(run: Any, bus: str) -> None:
    told = run(
        """
        async def serve(number):
            hub = running_hub()
            await hub.filled()
            await abroadcast('c', f't{number}')
            while not hub.log.last_position('c'):
                await asyncio.sleep(0.01)

        for number in range(3):
            asyncio.run(serve(number))
        end = time.monotonic() + 90
        while any(thread.name == 'sse-live-database' for thread in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.05)
        print('none')
        """
    )
    assert told.strip() == "none"
    assert types(bus) == ["t0", "t1", "t2"]


def test_threads_publish_in_the_order_of_their_own(run: Any, bus: str) -> None:
    run(
        """
        def publish(name):
            for number in range(20):
                with transaction.atomic():
                    broadcast('c', f'{name}{number}')
            connection.close()

        threads = [threading.Thread(target=publish, args=[name]) for name in 'abc']
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """
    )
    found = types(bus)
    for name in "abc":
        assert [each for each in found if each.startswith(name)] == [f"{name}{number}" for number in range(20)]


NO_THREAD = """
        start = threading.Thread.start
        def fails(thread):
            raise RuntimeError("can't start new thread")
        threading.Thread.start = fails
        broadcast('c', 'first')
        with transaction.atomic():
            broadcast('c', 'second')
"""


def test_where_no_thread_can_be_started_for_now_what_waits_is_sent_later(run: Any, bus: str) -> None:
    told = run(
        NO_THREAD
        + """
        print(get_backend().is_available)
        threading.Thread.start = start
        broadcast('c', 'third')
        while get_backend().thread.parcels or not get_backend().is_available:
            time.sleep(0.01)
        print('all are sent')
        """
    )
    assert told.split("\n")[:2] == ["False", "all are sent"]
    assert sorted(types(bus)) == ["first", "second", "third"]


def test_a_worker_that_only_reads_goes_on_once_a_thread_can_be_started(run: Any, bus: str) -> None:
    told = run(
        """
        start = threading.Thread.start
        def fails(thread):
            raise RuntimeError("can't start new thread")
        async def main():
            threading.Thread.start = fails
            hub = running_hub()
            threading.Thread.start = start
            while not hub.is_ready:
                await asyncio.sleep(0.01)
            print('ready')
            await abroadcast('c', 'first')
            while not len(hub.log):
                await asyncio.sleep(0.01)
        asyncio.run(main())
        """
    )
    assert told.strip() == "ready"


def test_where_none_can_be_until_the_end_it_is_done_there(run: Any, bus: str) -> None:
    run(NO_THREAD)
    assert sorted(types(bus)) == ["first", "second"]
