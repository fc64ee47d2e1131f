"""Hears of saves, deletes and changes of relations, for the models that @live_model has registered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db.models import Manager, Model, QuerySet
from django.db.models.signals import class_prepared, m2m_changed, post_delete, post_save, pre_delete, pre_save

from .live_models import Action, LiveModel, Place
from .model_broadcasts import concerned, live_model
from .row_events import tell
from .rows import read_rows
from .savepoints import undone_if_it_fails


def _with_subclasses(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for subclass in model.__subclasses__():
        yield from _with_subclasses(subclass)


def _listen_to(model: type[Model]) -> None:
    """By sender: a receiver for all models would cost every other model of the site its fast deletes."""
    if model._meta.abstract:
        return
    pre_save.connect(_on_pre_save, sender=model, dispatch_uid="django_sse_live.pre_save")
    post_save.connect(_on_save, sender=model, dispatch_uid="django_sse_live.save")
    pre_delete.connect(_on_pre_delete, sender=model, dispatch_uid="django_sse_live.pre_delete")
    post_delete.connect(_on_delete, sender=model, dispatch_uid="django_sse_live.delete")
    for field in model._meta.many_to_many:
        through = field.remote_field.through
        m2m_changed.connect(_on_m2m_changed, sender=through, dispatch_uid="django_sse_live.m2m")


def connect() -> None:
    """Called once, when the app is ready: only now is it known which tables relations go through."""
    live_model.listen = _listen_to_all
    for live in live_model.registrations:
        _listen_to_all(live.model)
    class_prepared.connect(_on_class_prepared, dispatch_uid="django_sse_live.prepared")


def _listen_to_all(model: type[Model]) -> None:
    for each in _with_subclasses(model):
        _listen_to(each)


def _on_class_prepared(*, sender: type[Model], **_: Any) -> None:
    if any(issubclass(sender, live.model) for live in live_model.registrations):
        concerned.cache_clear()
        _listen_to(sender)


# What is to be remembered between two signals is put on the instance that both of them bring.
_BEFORE = "_sse_live_before"  # the row as it was before an update
_DYING = "_sse_live_dying"  # the row that a delete finds, and where each registration shows it
_RELATED = "_sse_live_related"  # what a change of a many-to-many relation concerns
# One delete can send its signals twice for one row: as its model and as a proxy. What the pre_delete signals, which all
# come first, put on the delete's origin, the first post_delete takes away. Ids only: the origin may be pickled.
_BEING_DELETED = "_sse_live_being_deleted"


def _on_pre_save(*, sender: type[Model], instance: Model, raw: bool, using: str, **_: Any) -> None:
    vars(instance).pop(_BEFORE, None)
    if raw or not any(live.may_move for live in concerned(sender)) or not _may_be_an_update(instance):
        return
    before = _read(concerned(sender), "updated", instance, sender, using, lock=True)
    if before is not None:
        vars(instance)[_BEFORE] = before


def _may_be_an_update(instance: Model) -> bool:
    # As Django has it: what is added, with a key that has a default, is inserted.
    key = instance._meta.pk
    parts = instance.pk if isinstance(instance.pk, tuple) else (instance.pk,)
    return None not in parts and not (instance._state.adding and (key.has_default() or key.has_db_default()))


def _read(
    lives: Sequence[LiveModel], action: Action, instance: Model, model: type[Model], using: str, *, lock: bool = False
) -> Model | None:
    with _logged(lives, action, model):
        return next(iter(read_rows(using, model, [instance.pk], lock=lock).values()), None)
    return None


@contextmanager
def _logged(lives: Sequence[LiveModel], action: Action, model: type[Model]) -> Iterator[None]:
    """A look at rows by a base manager of the project's own may fail, or be one that no database locks: it costs the
    place where a row was, and nobody the save. Django's own manager needs no savepoint for that."""
    if type(model._base_manager) is Manager and model._meta.managed:
        yield
        return
    try:
        with undone_if_it_fails():
            yield
    except Exception:
        lives[0].log_failure(model, action)


def _on_save(*, sender: type[Model], instance: Model, created: bool, raw: bool, using: str, **_: Any) -> None:
    before = vars(instance).pop(_BEFORE, None)
    if raw:
        return
    for live in concerned(sender):
        tell(live, "created" if created else "updated", instance, using, before=before if live.may_move else None)


def _on_pre_delete(*, sender: type[Model], instance: Model, using: str, origin: Any = None, **_: Any) -> None:
    lives = tuple(_concerned_by_delete(sender))
    if isinstance(origin, (Model, QuerySet)):
        being_deleted = vars(origin).setdefault(_BEING_DELETED, set())
        being_deleted.update((id(live), instance.pk) for live in lives)
    # What a queryset deletes was read just now; an instance that somebody holds may say something else than its row.
    may_differ = isinstance(origin, sender) or bool(instance.get_deferred_fields())
    vars(instance).pop(_DYING, None)
    row = None
    if may_differ and any(live.may_move or live.has_own_data for live in lives):
        row = _read(lives, "deleted", instance, sender, using)
    row = instance if row is None else row
    # Asked now: what a channel is made of may be gone with the row, such as its many-to-many relations.
    vars(instance)[_DYING] = row, [live.place_before(row, "deleted") for live in lives]


def _on_delete(*, sender: type[Model], instance: Model, using: str, origin: Any = None, **_: Any) -> None:
    being_deleted = vars(origin).get(_BEING_DELETED) if isinstance(origin, (Model, QuerySet)) else None
    row, places = vars(instance).pop(_DYING, (instance, None))
    lives = list(_concerned_by_delete(sender))
    for live, place in zip(lives, places or [None] * len(lives), strict=True):
        if being_deleted is not None:
            if (id(live), instance.pk) not in being_deleted:
                continue
            being_deleted.remove((id(live), instance.pk))
        tell(live, "deleted", row, using, before=place)


def _concerned_by_delete(sender: type[Model]) -> Iterator[LiveModel]:
    # The deletion of a multi-table child sends signals for the child and for each parent: each registration listens to
    # its own table's alone.
    return (live for live in concerned(sender) if sender._meta.concrete_model is live.model._meta.concrete_model)


class _Related(NamedTuple):
    """An instance whose relations change, and where each registration showed it before."""

    instance: Model
    places: list[tuple[LiveModel, Place | None]]


def _on_m2m_changed(
    *,
    sender: type[Model],
    instance: Model,
    action: str,
    reverse: bool,
    model: type[Model],
    pk_set: set[Any] | None,
    using: str,
    **_: Any,
) -> None:
    if action.startswith("pre_"):
        vars(instance)[_RELATED] = [
            _Related(each, _places_before_update(each))
            for each in _instances_of_relation(sender, instance, reverse, model, pk_set, using)
        ]
        return
    for related in vars(instance).pop(_RELATED, ()):
        for live, before in related.places:
            tell(live, "updated", related.instance, using, before=before, is_relation=True)


def _places_before_update(instance: Model) -> list[tuple[LiveModel, Place | None]]:
    lives = [live for live in concerned(type(instance)) if live.shows_relations]
    return [(live, live.place_before(instance, "updated")) for live in lives]


def _instances_of_relation(
    through: type[Model], instance: Model, reverse: bool, model: type[Model], pk_set: set[Any] | None, using: str
) -> Iterator[Model]:
    """Those on the side that declares the field; on both, where it is symmetrical."""
    source = model if reverse else type(instance)
    field = next(field for field in source._meta.many_to_many if field.remote_field.through is through)
    lives = [live for live in concerned(source) if live.shows_relations]
    if not lives or (pk_set is not None and not pk_set):
        return
    if not reverse:
        moves = any(live.may_move for live in lives)
        yield (_read(lives, "updated", instance, source, using) if moves else None) or instance
    if reverse or field.remote_field.symmetrical:
        found: list[Model] = []
        with _logged(lives, "updated", source):
            rows = source._base_manager.using(using)
            found += rows.filter(**({field.name: instance} if pk_set is None else {"pk__in": pk_set}))
        yield from found
