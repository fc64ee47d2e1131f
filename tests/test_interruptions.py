"""A broadcast that interrupts another one: a finalizer that the garbage collector runs, or a signal handler, may do so
between any two instructions of the same thread. Nothing hangs, nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import django_sse_live
from django_sse_live import broadcast
from django_sse_live.backends import get_backend, replace_backend, running_hub
from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.hub.registry import process_counts

PACKAGE = str(Path(django_sse_live.__file__).parent)


@contextmanager
def interrupted(interruption: Callable[[], None]) -> Iterator[list[tuple[str, int]]]:
    """Calls it before each instruction of the package that runs inside, once for each; gives these instructions."""
    met: list[tuple[str, int]] = []
    known: set[tuple[str, int]] = set()

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        place = (f"{frame.f_code.co_filename}:{frame.f_code.co_name}", frame.f_lasti)
        if what == "opcode" and place not in known:
            known.add(place)
            met.append(place)
            interruption()
        return trace

    # Python 3.12 reports instructions only if a frame has asked for them before settrace().
    sys._getframe().f_trace_opcodes = True
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield met
    finally:
        sys.settrace(before)


def in_time(function: Callable[[], None]) -> None:
    """In a thread of its own: one that hangs fails, and stops nothing else."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    if errors:
        raise errors[0]


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    get_backend()
    made = MemoryBackend({})
    before = replace_backend(made)
    yield made
    replace_backend(before)


def heard(backend: MemoryBackend, channel: str) -> list[Any]:
    data: list[Any] = []
    after = 0
    while events := backend._log.read((channel,), after):
        data += [event.data for event in events]
        after = events[-1].position
    return data


def test_between_any_two_instructions_of_a_broadcast(backend: MemoryBackend) -> None:
    published = process_counts().published
    count = 0

    def interruption() -> None:
        nonlocal count
        broadcast("a", "inner", count)
        count += 1

    def run() -> None:
        with interrupted(interruption) as met:
            broadcast("a", "outer", "outer")
        assert len(met) == count > 300

    in_time(run)
    found = heard(backend, "a")
    assert [data for data in found if data != "outer"] == list(range(count)), "each once, in order"
    assert found.count("outer") == 1
    assert process_counts().published - published == count + 1


def test_at_whichever_one_instruction_of_a_broadcast_both_are_there_when_it_returns(backend: MemoryBackend) -> None:
    def interrupt_at(number: int) -> int:
        """How many instructions the broadcast took."""
        count = 0

        def interruption() -> None:
            nonlocal count
            if count == number:
                broadcast(f"{number}", "inner", 1)
            count += 1

        with interrupted(interruption):
            broadcast(f"{number}", "outer", 2)
        assert sorted(heard(backend, f"{number}")) == ([1, 2] if number < count else [2])
        return count

    def run() -> None:
        number = 0
        while interrupt_at(number) > number:
            number += 1
        assert number > 300

    in_time(run)


async def test_between_any_two_instructions_of_the_making_of_a_hub(backend: MemoryBackend) -> None:
    count = 0

    def interruption() -> None:
        nonlocal count
        broadcast("a", "inner", count)
        count += 1

    async def open_hub() -> list[Any]:
        with interrupted(interruption):
            hub = running_hub()
        done = asyncio.Event()
        hub.deliver(done.set)
        await done.wait()
        data: list[Any] = []
        after = 0
        while events := hub.log.read(("a",), after):
            data += [event.data for event in events]
            after = events[-1].position
        return data

    results: list[list[Any]] = []
    await asyncio.to_thread(in_time, lambda: results.append(asyncio.run(open_hub())))
    assert results == [list(range(count))] and count > 300


def test_between_any_two_instructions_of_the_making_of_a_backend() -> None:
    before = replace_backend(None)
    made: list[Any] = []

    def interrupt_at(number: int) -> int:
        """The making of one backend; how many instructions it took."""
        count = 0

        def interruption() -> None:
            nonlocal count
            if count == number:
                broadcast("a", "inner", 1)
            count += 1

        replace_backend(None)
        with interrupted(interruption):
            made.append(get_backend())
        assert made[-1] is get_backend() and made[-1].position() != "" and len(made[-1]._log) == (number < count)
        return count

    def run() -> None:
        number = 0
        while interrupt_at(number) > number:
            number += 1
        assert number > 50

    try:
        in_time(run)
    finally:
        replace_backend(before)


def test_between_any_two_instructions_of_what_metrics_read() -> None:
    def run() -> None:
        with interrupted(lambda: broadcast("a", "inner", 1)):
            process_counts()

    in_time(run)


class InACycle:
    """Only the garbage collector finds it."""

    def __init__(self) -> None:
        self.myself = self

    def __del__(self) -> None:
        broadcast("a", "finalized", None)


def test_a_finalizer_that_broadcasts(backend: MemoryBackend) -> None:
    def run() -> None:
        before = gc.get_threshold()
        gc.set_threshold(1, 1, 1)  # at nearly every allocation
        try:
            for number in range(300):
                InACycle()
                broadcast("a", "n", number)
        finally:
            gc.set_threshold(*before)
        gc.collect()

    in_time(run)
    assert [data for data in heard(backend, "a") if data is not None] == list(range(300))
    assert heard(backend, "a").count(None) == 300


def test_a_signal_handler_that_broadcasts(backend: MemoryBackend) -> None:
    handled = 0

    def handle(*_: Any) -> None:
        nonlocal handled
        broadcast("a", "signalled", None)
        handled += 1

    before = signal.signal(signal.SIGUSR1, handle)
    stop = threading.Event()

    def bombard() -> None:
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            stop.wait(0.0001)

    thread = threading.Thread(target=bombard)
    thread.start()
    try:
        for number in range(1000):
            broadcast("a", "n", number)
    finally:
        stop.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    found = heard(backend, "a")
    assert [data for data in found if data is not None] == list(range(1000))
    assert found.count(None) == handled > 0
