"""What a backend must do that takes part in the transactions of a database, as tests."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from django.db import connections, transaction

from ..backends.base import Backend
from ..callables import in_thread
from ..events import Event
from .backend_processes import BackendProcesses


class TransactionSuite(BackendProcesses):
    """A part of BackendSuite; skipped where ``database`` is None."""

    async def test_an_event_is_committed_with_its_transaction_or_not_at_all(self) -> None:
        backend, alias = self.process(), self._transactions()
        hub = await self.open_hub(self.process())

        def roll_back(data: str) -> None:
            try:
                with transaction.atomic(using=alias):
                    self._enlist(backend, data)
                    raise LookupError
            except LookupError:
                pass

        def publish() -> None:
            with transaction.atomic(using=alias):
                self._enlist(backend, "committed")
                roll_back("rolled back to a savepoint")
            roll_back("rolled back")
            with transaction.atomic(using=alias):
                self._enlist(backend, "last")

        await in_thread(publish)
        await self.until(lambda: self.heard(hub)[-1:] == ["last"], lambda: self.heard(hub))
        self.assertEqual(self.heard(hub), ["committed", "last"])

    async def test_an_event_is_sent_though_its_process_ends_at_the_commit(self) -> None:
        backend, alias = self.process(), self._transactions()
        hub = await self.open_hub(self.process())

        def publish() -> None:
            with transaction.atomic(using=alias):
                backend.enlist(self.event("orphan"), alias)

        await in_thread(publish)
        await self.until(lambda: self.heard(hub) == ["orphan"])

    async def test_nobody_hears_an_event_before_the_commit_and_others_do_not_wait_for_it(self) -> None:
        backend, alias = self.process(), self._transactions()
        hub = await self.open_hub(self.process())
        is_open, may_commit = threading.Event(), threading.Event()

        def publish() -> None:
            with transaction.atomic(using=alias):
                self._enlist(backend, "slow")
                is_open.set()
                may_commit.wait(self.within_seconds)

        if connections[alias].vendor == "sqlite":
            self.skipTest("there is one writer")
        slow = asyncio.ensure_future(in_thread(publish))
        await asyncio.to_thread(is_open.wait, self.within_seconds)
        await backend.apublish(self.event("quick"))
        await self.until(lambda: self.heard(hub) == ["quick"])
        may_commit.set()
        await slow
        await self.until(lambda: self.heard(hub) == ["quick", "slow"], lambda: self.heard(hub))

    async def test_an_event_is_completed_after_the_commit_and_sent_as_it_is_then(self) -> None:
        backend, alias = self.process(), self._transactions()
        hub = await self.open_hub(self.process())

        def finish(event: Event) -> bool:
            event.payload = '"complete"'
            return True

        def publish() -> None:
            with transaction.atomic(using=alias):
                event = Event(("c",), "t", '"as of the save"', finish=finish)
                self._enlist(backend, event)
                self._enlist(backend, Event(("c",), "t", '"taken back"', finish=lambda event: False))
                self._enlist(backend, "behind it")

        await in_thread(publish)
        await self.until(lambda: self.heard(hub)[-1:] == ["behind it"], lambda: self.heard(hub))
        self.assertEqual(self.heard(hub), ["complete", "behind it"])

    async def test_an_event_that_nobody_completes_is_sent_as_it_stands(self) -> None:
        backend, alias = self.process(), self._transactions()
        hub = await self.open_hub(self.process())

        def publish() -> None:
            with transaction.atomic(using=alias):
                backend.enlist(Event(("c",), "t", '"as of the save"', finish=lambda event: True), alias)
                self._enlist(backend, "behind it")

        await in_thread(publish)
        await self.until(lambda: len(self.heard(hub)) == 2, lambda: self.heard(hub))
        self.assertEqual(self.heard(hub), ["as of the save", "behind it"])

    def _transactions(self) -> str:
        alias = self.database
        if alias is None:
            self.skipTest("this backend has no part in transactions")
        return alias

    def _enlist(self, backend: Backend, data: Any) -> None:
        """As broadcast() does it."""
        alias = self._transactions()
        after_commit = backend.enlist(data if isinstance(data, Event) else self.event(data), alias)
        if after_commit is None:
            raise AssertionError("the backend has no part in the transaction")
        transaction.on_commit(after_commit, using=alias)
