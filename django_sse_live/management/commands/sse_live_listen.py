"""manage.py sse_live_listen CHANNEL…: prints events as they come, for debugging. Asks nobody for permission."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from fnmatch import fnmatchcase
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from ...backends import get_backend
from ...events import Event
from ...hub.hub import Hub
from ...hub.log import EventLog
from ..arguments import seconds

# Text that a visitor has written may hold what a terminal obeys, or line breaks that look like another event.
_CONTROL_CHARACTERS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Listener(Hub):
    """A hub that prints what is delivered to it, and has no clients."""

    def __init__(self, loop: asyncio.AbstractEventLoop, channels: list[str], out: OutputWrapper) -> None:
        super().__init__(loop, EventLog("0"))
        self.reader_left: asyncio.Event = asyncio.Event()
        self._wanted = channels
        self._out = out

    def deliver(self, item: Any) -> None:
        if isinstance(item, Event) and not item.is_control:
            if any(fnmatchcase(channel, wanted) for channel in item.names for wanted in self._wanted):
                whose = f"{item.namespace}: " if item.namespace else ""
                patch = "" if item.patch is None else f"  {item.patch}"
                line = f"{item.id}  {whose}{', '.join(item.names)}  {item.type}  {item.payload}{patch}"
                self._print(_CONTROL_CHARACTERS.sub(_escape, line) + "\n")
        super().deliver(item)

    def _print(self, text: str) -> None:
        """In whichever thread the bus delivers. What fails here is no fault of the bus."""
        try:
            try:
                self._out.write(text)
            except UnicodeEncodeError:  # a terminal of another encoding
                self._out.write(text.encode("ascii", "backslashreplace").decode())
            self._out.flush()
        except OSError:  # the reader has left, such as head
            self.loop.call_soon_threadsafe(self.reader_left.set)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class Command(BaseCommand):
    help = "Prints the events of channels as they come, until interrupted."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("channel", nargs="+", help="a name or a pattern, such as comments, 'user:*' or '*'")
        parser.add_argument("--seconds", type=seconds, help="end after that long")

    def handle(self, *args: Any, channel: list[str], seconds: float | None, **options: Any) -> None:
        if not get_backend().reaches_other_processes:
            raise CommandError(
                "The memory backend carries events within one process, and this one is not the one that sends them. "
                'Set SSE_LIVE["BACKEND"] to a bus between processes: see docs/backends.md.'
            )
        try:
            asyncio.run(self._listen(channel, seconds))
        except KeyboardInterrupt:
            pass

    async def _listen(self, channels: list[str], seconds: float | None) -> None:
        hub = Listener(asyncio.get_running_loop(), channels, self.stdout)
        get_backend().attach(hub)
        await hub.filled()
        self.stderr.write(f"Listening to {', '.join(channels)}. Ctrl-C ends.")
        try:
            await asyncio.wait_for(hub.reader_left.wait(), seconds)
            _discard_what_is_left()
        except asyncio.TimeoutError:
            pass


def _discard_what_is_left() -> None:
    """Python flushes its output once more as it ends, and would complain.
    https://docs.python.org/3/library/signal.html#note-on-sigpipe"""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
