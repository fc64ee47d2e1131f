"""How a save, a delete or a change of relations of one row becomes events of one @live_model.

Where the row is shown is asked at the save, what it looks like after the commit. What fails is logged, and costs nobody
but its own event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from django.db import connections, transaction
from django.db.models import Model

from .broadcasting import send_event
from .events import Event
from .hub.registry import process_part
from .identity import plain_name
from .live_models import NULL, Action, LiveModel, Place
from .namespaces import scope_event
from .patches import PATCH_TYPE, encode_patch
from .rendering import ViewerDependentError
from .row_turns import RowTurns
from .rows import Row, Rows, with_values, without_unsaved_values
from .savepoints import undone_if_it_fails


def tell(
    live: LiveModel,
    action: Action,
    instance: Model,
    using: str,
    *,
    before: Model | Place | None = None,
    update_fields: Collection[str] | None = None,
    is_relation: bool = False,
) -> None:
    """Broadcast what has happened to an instance.

    ``before``: the row as it was before an update, or where it was shown before that or a delete.
    ``update_fields``: those of the instance that were saved; None for all.
    ``is_relation``: a many-to-many relation has changed; no need to tell where a save of the same row is told.
    """
    rows = Rows.of_transaction(using)
    change = Change(live, action, instance, using, rows, is_relation=is_relation, update_fields=update_fields)
    change.send(change.events(before))


@dataclass(slots=True, eq=False)
class Change:
    """What happened to one instance, from which events are made."""

    live: LiveModel
    action: Action
    instance: Model
    using: str
    rows: Rows
    _: KW_ONLY
    is_relation: bool = False
    is_batch: bool = False  # its row is read together with those of other instances
    refreshes: bool = False  # pages fetch their regions anew, though there is a template
    update_fields: Collection[str] | None = None
    _row: Row | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.refreshes = self.refreshes or self.live.refreshes

    def events(self, before: Model | Place | None = None) -> list[Event]:
        """The events, which are still to be completed and sent."""
        try:
            if self.update_fields is not None and isinstance(before, Model):
                self.instance = without_unsaved_values(self.instance, self.update_fields, before)
            events = list(self._events(before))
            for event in events:
                scope_event(event)
            return events
        except Exception:
            self.live.log_failure(self.instance, self.action)
            return []

    def send(self, events: list[Event]) -> None:
        for event in events:
            try:
                send_event(event, using=self.using)
            # The event is too large, or waits for a commit that nobody is told of: the bus has done nothing yet.
            except (ValueError, transaction.TransactionManagementError):
                self.live.log_failure(self.instance, self.action)
            except Exception:
                if connections[self.using].in_atomic_block:
                    raise  # the bus has a part in the transaction, and has broken it: silence would lose the save
                self.live.log_failure(self.instance, self.action)

    def _events(self, before: Model | Place | None) -> Iterator[Event]:
        live, action = self.live, self.action
        now = before if action == "deleted" and isinstance(before, Place) else self._place(self.instance)
        is_shown = not self.is_relation or live.shows_relations  # else a relation changes only where the row is
        if action != "updated" or before is None:
            if now.channels and is_shown:
                yield from self._told(action, self.instance, now.channels, now.target, None)
            return
        then = before if isinstance(before, Place) else self._place(before, is_row=True)
        old = self.instance if isinstance(before, Place) else before
        left = tuple(channel for channel in then.channels if channel not in now.channels)
        come = tuple(channel for channel in now.channels if channel not in then.channels)
        stayed = tuple(channel for channel in now.channels if channel in then.channels)
        # A client may hear both a channel that the row has left and one where it stays: a refresh is right for all.
        is_partial = bool(stayed) and bool(then.target or now.target)
        if left:
            yield from self._told("deleted", old, left, then.target, None, is_partial)
        if come:
            yield from self._told("created", self.instance, come, now.target, None, is_partial)
        if stayed and is_shown:
            moved = then if then.target != now.target else None
            if moved and moved.target and self.refreshes and live.types["updated"] is not None:
                yield Event(stayed, PATCH_TYPE, NULL, patch=encode_patch("refresh", moved.target))
            yield from self._told("updated", self.instance, stayed, now.target, moved)

    def _place(self, instance: Model, is_row: bool = False) -> Place:
        if self.live.may_move and not is_row:
            with undone_if_it_fails():  # it may ask a manager of the project's own
                instance = with_values(instance, self.using, is_update=self.action == "updated")
        try:
            return self.live.place_of(instance)
        except Exception:
            if not callable(self.live.target):
                raise
            self.live.log_failure(instance, self.action, "patch")
            return Place(self.live.channels_of(instance), None)

    def _told(
        self,
        action: Action,
        instance: Model,
        channels: tuple[str, ...],
        target: str | None,
        moved: Place | None,
        refreshes: bool = False,
    ) -> Iterator[Event]:
        live = self.live
        type = live.type_of(action)
        if type is None:
            return
        refreshes = live.refreshes or ((self.refreshes or refreshes) and target is not None)
        patch = encode_patch("refresh", target) if live.has_patches and target is not None else None
        if action == "deleted":
            if live.template is not None and not refreshes:
                patch = encode_patch("remove", live.id_of(instance), id=live.id_of(instance))
            event = Event(channels, type, NULL, patch=patch)
            try:
                event.payload = live.data(instance, action)
            except Exception:
                live.log_failure(instance, action)
                if patch is None:
                    return
            if live.has_patches:
                key = live.model._meta.pk.to_python(live.key(instance))
                event.finish = _Gone(self.rows, live, key, target if refreshes else None)
            yield event
            return
        event = Event(channels, type, live.plain_data(instance, action), patch=patch)
        if live.has_own_data or live.has_patches:
            event.finish = _Shown(self, action, self._row_of(instance), moved, refreshes)
        yield event

    def _row_of(self, instance: Model) -> Row:
        """Where there is a template, as the registered model: as the page has it, whatever it was saved as."""
        if self._row is None:
            live = self.live
            model, key = (live.model, live.key(instance)) if live.template else (type(instance), instance.pk)
            self._row = self.rows.row(instance, self.using, model, key, live.queryset, self.is_batch)
        return self._row


def _turn(live: LiveModel, key: Any, rows: Rows) -> AbstractContextManager[bool]:
    return process_part(RowTurns).turn((live.model._meta.concrete_model, key), rows.token)


@dataclass(slots=True, eq=False)
class _Gone:
    """Completes the event of a delete: what earlier events told of the row no longer holds."""

    rows: Rows
    live: LiveModel
    key: Any
    target: str | None  # to be refreshed; None: the element is removed

    def turn(self) -> AbstractContextManager[bool]:
        return _turn(self.live, self.key, self.rows)

    def __call__(self, event: Event) -> bool:
        self.rows.is_committed = True
        self.rows.told_of((self.live, self.key)).clear()
        if self.target is not None and not self.rows.tell(self.live, (event.channels, self.target)):
            event.patch = None
        return True


@dataclass(slots=True, eq=False)
class _Shown:
    """Completes the event of a save after its commit: data and markup of the row as it is then."""

    change: Change
    action: Action
    row: Row
    moved: Place | None  # where it was shown until this save, if somewhere else
    refreshes: bool

    @property
    def live(self) -> LiveModel:
        return self.change.live

    @property
    def rows(self) -> Rows:
        return self.change.rows

    @contextmanager
    def turn(self) -> Iterator[None]:
        with _turn(self.live, self.row.key, self.rows) as is_after_another:
            if is_after_another:
                self.row.forget()
            yield

    def __call__(self, event: Event) -> bool:
        self.rows.is_committed = True
        live = self.live
        instance: Model | None = self.row.saved
        if live.has_own_data or not self.refreshes:
            try:
                instance = self.row.read()
                if instance is not None and callable(live.channel):
                    # Who has moved the row since then has said so.
                    heard = live.channels_of(instance)
                    event.channels = tuple(channel for channel in event.channels if plain_name(channel) in heard)
                    if not event.channels:
                        return False
            except Exception:
                live.log_failure(self.row.saved, self.action)
                return event.patch is not None
        is_first = self.rows.tell((live, self.row.key), (event.channels, "told"))
        if self.change.is_relation and not is_first:
            return False
        has_data = self._fill_data(event, instance)
        try:
            event.patch = self._patch(event, instance)
        except ViewerDependentError:
            live.log_failure(self.row.saved, self.action, "patch")
            return False
        except Exception:  # the event keeps its refresh, so that no page stays wrong
            live.log_failure(self.row.saved, self.action, "patch")
        return has_data or event.patch is not None

    def _fill_data(self, event: Event, instance: Model | None) -> bool:
        live = self.live
        if not live.has_own_data:
            return True
        name = (live, self.action)
        try:
            if name not in self.row.kept:
                self.row.kept[name] = None
                if instance is not None:
                    self.row.kept[name] = live.data(instance, self.action)
                elif live.queryset is None:
                    self.row.kept[name] = live.data(self.row.saved, self.action)  # gone since; this is what was saved
        except Exception:
            if instance is not None:
                live.log_failure(self.row.saved, self.action)
        event.payload = self.row.kept[name] or NULL
        return self.row.kept[name] is not None

    def _patch(self, event: Event, instance: Model | None) -> str | None:
        live, channels = self.live, event.channels
        if not live.has_patches:
            return None
        if self.refreshes:
            target = live.target_of(self.row.saved if instance is None else instance)
            is_new = target is not None and self.rows.tell(live, (channels, target))
            return encode_patch("refresh", target) if target is not None and is_new else None
        if instance is None:
            id = live.id_of(self.row.saved)
            return encode_patch("remove", id, id=id) if self.row.key is not None else None
        id, target = live.id_of(instance), live.target_of(instance)
        moved_from = self.moved.target if self.moved and self.moved.target != target else None
        is_inserted = self.action == "created" or (self.moved is not None and self.moved.target != target)
        if is_inserted and (live.insert is None or target is None):
            if self.action == "created":
                return None
            if target is None:
                return encode_patch("remove", id, id=id)
            is_inserted = False
        told = self.rows.told_of((live, self.row.key))
        inserted, replaced = (channels, "inserted", target), (channels, "replaced")
        if inserted in told or (replaced in told and not is_inserted):
            return None
        html = self._render(instance)
        told.add(inserted if is_inserted else replaced)
        if not is_inserted:
            return encode_patch("replace", id, id=id, html=html)
        assert live.insert is not None and target is not None
        return encode_patch(live.insert, target, id=id, html=html, moved_from=moved_from)

    def _render(self, instance: Model) -> str:
        """The markup, rendered once for each row and transaction. A failure counts: it is raised again."""
        name = (self.live, "html")
        if name not in self.row.kept:
            try:
                self.row.kept[name] = self.live.render(instance)
            except Exception as error:
                self.row.kept[name] = error
        kept = self.row.kept[name]
        if isinstance(kept, Exception):
            raise kept
        return str(kept)
