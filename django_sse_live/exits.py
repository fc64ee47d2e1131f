"""ExitWork: what must be done before this process ends, on every way out that Python is told of.

``atexit`` alone is not enough: a process that SIGTERM ends by its default action never gets there, and Uvicorn raises
the signal again, with that action, once it has shut down. Nor does a child of Celery's pool, which ends by os._exit(),
as after worker_max_tasks_per_child; Celery has a signal before that.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

from django.dispatch import Signal

POLL_SECONDS: Final = 0.05
THREAD_NAME: Final = "sse-live-exit"
THREAD_SECONDS: Final = 10.0  # how long an exit waits for that thread
# The signals by which a supervisor or the end of a terminal (not on Windows) ends a process.
SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

exit_work_done: Final = Signal()  # internal; sent where the process ends without atexit, once its work is done


def is_interpreter_ending(error: RuntimeError) -> bool:
    """Whether that is why a thread could not be started; else the process has as many as it may have, for now."""
    return sys.is_finalizing() or "shutdown" in str(error)


class ExitWork:
    """``end`` is called before this process ends. It must bound its own time.

    ``is_due`` says, from any thread and without waiting, whether there is something to do. A fork inherits nothing.
    """

    def __init__(self, end: Callable[[], None], is_due: Callable[[], bool]) -> None:
        self.end: Callable[[], None] = end
        self._is_due = is_due
        self._pid = os.getpid()
        self._uid = f"django_sse_live.exits:{self._pid}:{id(self)}"
        self._is_watching = False
        atexit.register(self._at_exit)
        celery: Any = sys.modules.get("celery.signals")  # where it is not loaded, no child of its pool is here
        if celery is not None:
            # By a name of its own: to older versions of Celery, one method of two objects is one receiver.
            celery.worker_process_shutdown.connect(self._at_end_of_child, weak=False, dispatch_uid=self._uid)

    @property
    def is_due(self) -> bool:
        return self._pid == os.getpid() and self._is_due()

    def watch_signals(self) -> None:
        """Set the handlers, if this is the main thread: Python lets no other set any. To be called often, as it costs
        nothing."""
        if self._is_watching or threading.current_thread() is not threading.main_thread():
            return
        self._is_watching = True
        for number in SIGNALS:
            before = signal.getsignal(number)
            if isinstance(before, _Termination):
                before.works.append(self)
            elif before is not None and before != signal.SIG_IGN:  # None: set by C code, which is not callable
                signal.signal(number, _Termination(before, self))

    def cancel(self) -> None:
        atexit.unregister(self._at_exit)
        celery: Any = sys.modules.get("celery.signals")
        if celery is not None:
            celery.worker_process_shutdown.disconnect(dispatch_uid=self._uid)
        self._is_due = lambda: False

    def _at_end_of_child(self, **_: Any) -> None:
        if self.is_due:
            self.end()
            exit_work_done.send_robust(sender=None)

    def _at_exit(self) -> None:
        if any(_is_held_back(number) for number in SIGNALS):
            # This would do one work, and let the signal end the process; the thread does all.
            for thread in threading.enumerate():
                if thread.name == THREAD_NAME:
                    thread.join(THREAD_SECONDS)
        if self.is_due:
            self.end()
        for number in SIGNALS:
            if not isinstance(signal.getsignal(number), _Termination):
                _unblock(number)  # a server has raised it again, to end by its default action


class _Termination:
    """A handler of one of SIGNALS: begins the works in a thread, and calls the handler that it replaced."""

    def __init__(self, before: Any, work: ExitWork) -> None:
        self.works = [work]
        self.before: Any = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not any(work.is_due for work in self.works):
            self.works = []
        if self.works:  # also those that are not due yet: the last of a job is work for the bus
            thread = threading.Thread(target=self._end_works, args=(number,), name=THREAD_NAME, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the process may have no more threads: in this one, before the other handlers
                self._do_works()
                self.works = []
        if callable(self.before):
            if self.works and hasattr(signal, "pthread_sigmask"):
                # Held back in this thread: what raises it again ends the process after the works, not before.
                signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            self.before(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            if not self.works:
                signal.raise_signal(number)

    def _end_works(self, number: int) -> None:
        while callable(self.before) and not (signal.getsignal(number) == signal.SIG_DFL and _is_held_back(number)):
            time.sleep(POLL_SECONDS)  # the server shuts down; this thread is a daemon, and ends with the process
        self._do_works()
        exit_work_done.send_robust(sender=None)
        os.kill(os.getpid(), number)

    def _do_works(self) -> None:
        for work in self.works:
            if work.is_due:
                work.end()


def _unblock(number: int) -> None:
    if hasattr(signal, "pthread_sigmask") and threading.current_thread() is threading.main_thread():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def _is_held_back(number: int) -> bool:
    """Whether the signal was raised again in the main thread. Known on Linux; elsewhere the process ends by itself."""
    try:
        status = Path(f"/proc/self/task/{os.getpid()}/status").read_text()
    except OSError:
        return False
    pending = next((line.split()[1] for line in status.splitlines() if line.startswith("SigPnd:")), "0")
    return bool(int(pending, 16) >> (number - 1) & 1)
