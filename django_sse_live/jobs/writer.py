"""Writer: the producer's side of one job. It collects what is written until the next round.

Who may touch what: see jobs/__init__.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any, Protocol

from ..conf import live_settings
from .records import End, Record, State, units, whole_characters


class Gatherer(Protocol):
    """The gathering thread of a process, as a writer knows it: Writers."""

    def poke(self) -> None: ...

    def end(self, writer: Writer, end: End) -> bool: ...

    def abandon(self, writers: Iterable[Writer] | None = None) -> None: ...


class JobOver(Exception):
    """It is too late to write: the job has ended, or has another writer."""


class Writer:
    """States: writing → over (``over`` says why). New text waits in ``_unsent`` until the next round."""

    def __init__(self, record: Record, lease: str) -> None:
        self.record: Record = record  # take() brings its text, length and n up to date, in rounds alone
        self.lease: str = lease
        self.gatherer: Gatherer  # set by add()
        self.is_cancelled: bool = False  # read by the producer at any time
        self.over: str = ""  # why it is too late to write
        self.end: End | None = None
        self.is_given_up: bool = False  # over, and will have no end: what the cache has counts
        self.stored_length = 0  # of the text that the cache has
        self.stored_n = 0
        self.stored_at: float = 0.0  # monotonic; the first text is stored at once
        self.renewed_at: float = time.monotonic()
        self.alone_at: float = self.renewed_at  # when somebody last watched
        self._lock = threading.RLock()
        self._size = len(record.text.encode())  # bytes of UTF-8
        self._half = ""  # the first half of a character, until its other half is written
        self._unsent: list[str] = []
        self._n = record.n  # copied to the record together with the text that it counts

    def write(self, text: str) -> bool:
        """Append text. True if the thread must be woken."""
        with self._lock:
            self._check()
            if not text or self.over:
                return False
            text, half = whole_characters(self._half + text)
            size, most = len(text) if text.isascii() else len(text.encode()), live_settings().job_text_max_bytes
            if self._size + size + 3 * len(half) > most:
                raise ValueError(
                    f"The text of job {self.record.id} would have {self._size + size:,} bytes; "
                    f'SSE_LIVE["JOB_TEXT_MAX_BYTES"] is {most:,}. Nothing of this was written: finish the job with a '
                    "link to the rest."
                )
            self._size += size
            self._half = half
            self._unsent.append(text)
            self._n += 1
            return True

    def progress(self, progress: float | None, label: str | None) -> None:
        with self._lock:
            self._check()
            self.record.progress = progress
            if label is not None:
                self.record.label = label
            self._n += 1

    def _check(self) -> None:
        if self.over and not self.is_cancelled:
            raise JobOver(self.over)

    @property
    def text(self) -> str:
        with self._lock:
            return self.record.text + "".join(self._unsent)

    def take(self, state: State = "running", *, must: bool = False) -> dict[str, Any] | None:
        """Add the new text to the record and make a frame of it, in a round. None if nothing is new, unless it ``must``
        be sent."""
        with self._lock:
            record = self.record
            if not must and self._n == record.n:
                return None
            offset, text = record.length, "".join(self._unsent)
            if text:
                self._unsent.clear()
                record.text += text
                record.length += units(text)
            record.n = self._n
            said = record.frame(state, offset, text, self.end)
            said.update(namespace=record.namespace, owner=record.owner, stored=self.stored_length)
            if record.alone_seconds is not None:
                said["alone"] = record.alone_seconds
            return said

    def close(self, why: str, *, is_cancelled: bool = False) -> None:
        with self._lock:
            if self._half:
                self._unsent.append(whole_characters(self._half, is_last=True)[0])
                self._half = ""
                self._n += 1
            self.is_cancelled = self.is_cancelled or is_cancelled
            self.over = why

    def give_up(self, why: str, *, is_cancelled: bool = True) -> None:
        """close() without an end: the job is lost, or has another writer."""
        self.close(why, is_cancelled=is_cancelled)
        self.is_given_up = True

    def reopen(self) -> None:
        """Undo close(): the end could not be stored, so the job goes on."""
        self.over, self.end = "", None
