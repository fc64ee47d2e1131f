"""A project's own code inside a transaction that somebody else has opened: if it fails, only what it did is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

# Django 6.1 has given it another name.
_create: Callable[[str], str | None] = getattr(transaction, "savepoint_create", transaction.savepoint)


def is_in_transaction(connection: Any) -> bool:
    """Whether it is in a transaction that may be committed. Those of TestCase itself never are."""
    return bool(connection.in_atomic_block) and not all(
        getattr(block, "_from_testcase", False) for block in connection.atomic_blocks
    )


@contextmanager
def undone_if_it_fails() -> Iterator[None]:
    """Run a payload, a channel callable, a template … so that the transactions around it stay usable whatever it does.

    A savepoint is set before the code's first query on a database, so that code without queries costs none.
    """
    with ExitStack() as stack:
        guards = []
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block and not connection.needs_rollback:
                guard = _Savepoint(connection)
                guards.append(guard)
                stack.enter_context(connection.execute_wrapper(guard))
        try:
            yield
        except BaseException:
            for guard in guards:
                guard.undo()
            raise
        for guard in guards:
            guard.end()


class _Savepoint:
    """Set on one database, before the first query that goes through this wrapper."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._callbacks = len(connection.run_on_commit)
        self._is_set = False
        self._id: str | None = None  # None: not set, or a database without savepoints

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if not self._is_set:
            self._is_set = True  # first, as the savepoint is a query too
            self._id = _create(self._connection.alias)
        return execute(sql, params, many, context)

    def end(self) -> None:
        if self._connection.needs_rollback:  # something failed inside, and the code caught it
            self.undo()
        elif self._id is not None:
            try:
                transaction.savepoint_commit(self._id, self._connection.alias)
            except Error:  # the same outside of atomic(): PostgreSQL takes nothing more until it is undone
                self.undo()

    def undo(self) -> None:
        connection = self._connection
        if self._is_set and self._id is None:
            return  # nothing can be undone: the transaction is what the failed query made of it
        transaction.set_rollback(False, connection.alias)  # first, as the next line is a query
        try:
            if self._id is not None:
                transaction.savepoint_rollback(self._id, connection.alias)
        except Error:  # the connection itself is gone
            transaction.set_rollback(True, connection.alias)
        # Django drops by itself only what was registered inside of atomic().
        del connection.run_on_commit[self._callbacks :]
