"""What is done before a process ends, and in which order."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.backends.test_processes import script

SERVER = """
import os, signal, time
from django_sse_live.exits import ExitWork

signal.signal(signal.SIGTERM, lambda *_: None)  # as a server that shuts down
due = {"first"}
def first():
    time.sleep(0.2)
    print("first", flush=True)
    due.symmetric_difference_update({"first", "second"})
def second():
    print("second", flush=True)
    due.discard("second")
works = [ExitWork(first, lambda: "first" in due), ExitWork(second, lambda: "second" in due)]
for work in works:
    work.watch_signals()
os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.raise_signal(signal.SIGTERM)  # as Uvicorn does once it has shut down
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not known that the signal was raised again")
def test_a_signal_that_is_raised_again_ends_the_process_once_all_is_done() -> None:
    """Also what is not due before another has been done, such as the last of a job on the bus."""
    done = script(SERVER, {})
    assert (done.stdout.split(), done.returncode) == (["first", "second"], -signal.SIGTERM), done.stderr
