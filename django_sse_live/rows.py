"""Rows as of the commit: each is read anew once for a transaction, and what was made of it is kept while that is told.

Knows databases and models; nothing of channels or patches.
"""

from __future__ import annotations

import copy
import functools
import inspect
import weakref
from collections.abc import Callable, Collection, Hashable, Iterable
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import django
from django.db import connections
from django.db.models import Model, QuerySet
from django.utils.functional import cached_property

QuerySource = Callable[[], QuerySet[Any]]

BATCH_ROWS: Final = 100  # read by one query, where many instances are broadcast by hand
IS_GENERATED_READ_BACK: Final = django.VERSION >= (6, 0)  # what an UPDATE makes of a GeneratedField
_ROW_KNOWS: Final = object()
_ATTRIBUTE: Final = "_sse_live_rows"  # of a database connection, which is one thread's alone


class Row:
    """One row. ``saved`` is a copy of the instance that was saved last, and all there is if the row is gone."""

    __slots__ = ("saved", "key", "kept", "is_read", "_using", "_model", "_queryset", "_batch", "_place", "_fresh")

    def __init__(
        self, saved: Model, using: str, model: type[Model], key: Any, queryset: QuerySource | None, batch: list[Row]
    ) -> None:
        self.saved: Model = copy.copy(saved)
        self.key: Any = model._meta.pk.to_python(key)  # as the database gives it: "7" is 7
        self.kept: dict[Hashable, Any] = {}  # what was made of it
        self._using = using
        self._model = model
        self._queryset = queryset
        self.is_read: bool = False
        self._batch = batch  # rows of the same kind that are read by the same queries; this one is among them
        self._place = len(batch)
        self._fresh: Model | None = None
        batch.append(self)

    def read(self) -> Model | None:
        """The instance as the database has it, with the attributes that were set by hand; None if there is no row."""
        if not self.is_read:
            rows = [row for row in self._batch[self._place : self._place + BATCH_ROWS] if not row.is_read]
            found = read_rows(self._using, self._model, [row.key for row in rows], self._queryset)
            for row in rows:
                row.is_read = True
                # Of one key asked for there is one row, however the database writes it.
                row._fresh = found.get(row.key) if len(rows) > 1 else next(iter(found.values()), None)
                if row._fresh is not None:
                    _set_by_hand(row._fresh, row.saved)
        return self._fresh

    def forget(self) -> None:
        """Have it read anew, and what was made of it made anew. Not one of a batch, which would be read alone."""
        if len(self._batch) == 1:
            self.is_read = False
            self.kept.clear()


class Rows:
    """The rows of one transaction, and what its events have told of them: each is told once."""

    def __init__(self, transaction: object = None) -> None:
        self.is_committed: bool = False  # from then on nothing is added
        self.token: Final = object()  # stands for it in RowTurns
        self._transaction = transaction
        self._told: dict[Hashable, set[Hashable]] = {}  # what its events have said already
        self._rows: dict[Hashable, Row] = {}
        self._batches: dict[Hashable, list[Row]] = {}

    @classmethod
    def of_transaction(cls, using: str) -> Rows:
        """Of the transaction that is open on a database; new ones where none is."""
        connection = connections[using]
        if not connection.in_atomic_block:
            return cls()
        known: weakref.ref[Rows] | None = vars(connection).get(_ATTRIBUTE)  # kept alive by events alone
        rows = None if known is None else known()
        # Its list of callbacks stands for the transaction: each commit and each rollback begins another.
        if rows is None or rows.is_committed or rows._transaction is not connection.run_on_commit:
            rows = cls(connection.run_on_commit)
            setattr(connection, _ATTRIBUTE, weakref.ref(rows))
        return rows

    def told_of(self, what: Hashable) -> set[Hashable]:
        return self._told.setdefault(what, set())

    def tell(self, of: Hashable, what: Hashable) -> bool:
        """Whether that was not told before."""
        told = self.told_of(of)
        is_new = what not in told
        told.add(what)
        return is_new

    def row(
        self, saved: Model, using: str, model: type[Model], key: Any, queryset: QuerySource | None, is_batch: bool
    ) -> Row:
        name = (model, key, queryset)
        row = self._rows.get(name)
        if row is None or row.is_read or key is None:  # without a key, two instances may be two rows
            batch = self._batches.setdefault((model, queryset), []) if is_batch else []
            row = self._rows[name] = Row(saved, using, model, key, queryset, batch)
        else:
            row.saved = copy.copy(saved)
        return row


def read_rows(
    using: str, model: type[Model], keys: Iterable[Any], queryset: QuerySource | None = None, *, lock: bool = False
) -> dict[Any, Model]:
    """Instances by key, as the database has them: by the primary key of ``model``."""
    rows = model._base_manager.all() if queryset is None else queryset()
    rows = rows.using(using)
    if lock and connections[using].in_atomic_block:
        # As the UPDATE that follows will lock it: else two transactions could both think that they move it.
        features = connections[using].features
        of: dict[str, Any] = {"of": ("self",)} if features.has_select_for_update_of else {}
        rows = rows.select_for_update(no_key=features.has_select_for_no_key_update, **of)
    # Of the model's own key: a child of two tables has another.
    return {getattr(row, model._meta.pk.attname): row for row in rows.filter(pk__in=list(keys))}


def with_values(instance: Model, using: str, *, is_update: bool) -> Model:
    """An instance that was just saved, with values as its row has them. A copy, where it has a text for a number, a
    float for a decimal, a time of another zone. Its row, where only that can tell, as of an expression such as F():
    Django reads that back only on some databases and from 6.0 on."""
    read = {}
    for field in instance._meta.concrete_fields:
        value = vars(instance).get(field.attname)
        if field.generated and is_update and not IS_GENERATED_READ_BACK:
            as_read = _ROW_KNOWS
        elif value is None:
            continue
        else:
            as_read = _as_read(field, value, using)
        if as_read is _ROW_KNOWS:
            for row in read_rows(using, type(instance), [instance.pk]).values():
                _set_by_hand(row, instance)
                return row
        elif as_read is not value:
            read[field.attname] = as_read
    if read:
        instance = copy.copy(instance)
        vars(instance).update(read)
    return instance


def _as_read(field: Any, value: Any, using: str) -> Any:
    """A value as a query would give it; the same object, if it is that already."""
    if hasattr(value, "resolve_expression"):
        return _ROW_KNOWS
    try:
        read = field.to_python(value.value if isinstance(value, Enum) else value)
        if isinstance(read, Decimal) and read.as_tuple().exponent != -field.decimal_places:
            rounded = round(read, field.decimal_places)
            return rounded if rounded == read else _ROW_KNOWS  # databases round in ways of their own
        if isinstance(read, datetime) and (zone := connections[using].timezone) is not None:
            if read.tzinfo is None:
                return _ROW_KNOWS
            there = read.astimezone(zone)
            return read if there.utcoffset() == read.utcoffset() else there
    except Exception:  # whatever a field says of what is none of its values
        return value
    return read


def without_unsaved_values(instance: Model, update_fields: Collection[str], before: Model) -> Model:
    """An instance of which only some fields were saved, as its row is now: the others are as they were before."""
    saved = copy.copy(instance)
    field: Any
    for field in instance._meta.concrete_fields:
        was = vars(before).get(field.attname)
        if field.generated or field.attname not in vars(before) or {field.name, field.attname} & set(update_fields):
            continue
        if vars(saved).get(field.attname) != was or field.attname not in vars(saved):
            vars(saved)[field.attname] = was
            if field.is_relation and field.is_cached(saved):
                field.delete_cached_value(saved)
    return saved


def _set_by_hand(fresh: Model, saved: Model) -> None:
    """What the database does not know: an attribute that the view set. No field's value, and nothing computed from one
    and kept."""
    fields = {name for field in saved._meta.get_fields() for name in (field.name, getattr(field, "attname", ""))}
    for name, value in vars(saved).items():
        if name in vars(fresh) or name in fields or name.startswith("_"):
            continue
        if not isinstance(
            inspect.getattr_static(type(saved), name, None), (cached_property, functools.cached_property)
        ):
            setattr(fresh, name, value)
