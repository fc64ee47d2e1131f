"""Hears of saves, deletes and changes of relations, for the models that @live_model has registered."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, NamedTuple

from django.db import Error
from django.db.models import Manager, Model, QuerySet
from django.db.models.signals import class_prepared, m2m_changed, post_delete, post_save, pre_delete, pre_save

from .live_models import Action, LiveModel, Place
from .model_broadcasts import concerned, live_model
from .row_events import tell
from .rows import read_rows
from .savepoints import undone_if_it_fails

SAVES_IN_SAVES_MAX: Final = 8  # of one instance: what was before each is kept


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
        if through is not None:  # as of a model that was swapped out; None would be every relation of the site
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
_BEFORE = "_sse_live_before"  # the row as it was before an update; of each save, where a receiver saves once more
_RAW = "_sse_live_raw"  # a fixture has loaded it, and its relations come next
_DYING = "_sse_live_dying"  # the row that a delete finds, and where each registration shows it
_RELATED = "_sse_live_related"  # what a change of a many-to-many relation concerns, by the table of that
# One delete can send its signals twice for one row: as its model and as a proxy. What the pre_delete signals, which all
# come first, put on the delete's origin, the first post_delete takes away. Ids only: the origin may be pickled.
_BEING_DELETED = "_sse_live_being_deleted"


def _may_move(sender: type[Model]) -> bool:
    return any(live.may_move for live in concerned(sender))


def _on_pre_save(*, sender: type[Model], instance: Model, raw: bool, using: str, **_: Any) -> None:
    if raw:
        return
    vars(instance).pop(_RAW, None)
    if _may_move(sender):
        is_update = _may_be_an_update(instance)
        before = _read(concerned(sender), "updated", instance, sender, using, lock=True) if is_update else None
        # A save that fails leaves its own here.
        vars(instance)[_BEFORE] = (*vars(instance).get(_BEFORE, ()), before)[-SAVES_IN_SAVES_MAX:]


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
    """A look at rows runs code of the project's: fields, models, a base manager. What fails costs the place where a row
    was, and nobody the save. With Django's own manager it is one plain query, and needs no savepoint: where the
    database refuses that, the transaction is broken, and whoever opened it has to know."""
    is_plain = type(model._base_manager) is Manager and model._meta.managed
    try:
        with nullcontext() if is_plain else undone_if_it_fails():
            yield
    except Exception as error:
        if is_plain and isinstance(error, Error):
            raise
        lives[0].log_failure(model, action)


def _on_save(
    *,
    sender: type[Model],
    instance: Model,
    created: bool,
    raw: bool,
    using: str,
    update_fields: Collection[str] | None = None,
    **_: Any,
) -> None:
    if raw:
        vars(instance)[_RAW] = True
        return
    before = None
    if _may_move(sender):
        *of_outer_saves, before = vars(instance).pop(_BEFORE, (None,))
        if of_outer_saves:
            vars(instance)[_BEFORE] = tuple(of_outer_saves)
    for live in concerned(sender):
        then = before if live.may_move else None
        tell(live, "created" if created else "updated", instance, using, before=then, update_fields=update_fields)


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
    """An instance whose relations change, and where each registration that they concern showed it before."""

    instance: Model
    places: list[Place | None]


def _on_m2m_changed(
    *,
    sender: type[Model],
    instance: Model,
    action: str,
    reverse: bool,
    model: type[Model],
    pk_set: set[Any] | None,
    using: str,
    raw: bool | None = None,  # Django has it from 6.1 on
    **_: Any,
) -> None:
    if vars(instance).get(_RAW, False) if raw is None else raw:
        return
    if action.startswith("pre_"):
        source = model if reverse else type(instance)
        lives = _concerned_by_relations(source)
        found: list[Model] = []
        if lives and pk_set != set():
            try:
                found = list(_instances_of_relation(lives, source, sender, instance, reverse, pk_set, using))
            except Error:  # the transaction is broken, and whoever opened it has to know
                raise
            except Exception:  # a field of another package may be many-to-many in a way of its own
                lives[0].log_failure(source, "updated")
        vars(instance).setdefault(_RELATED, {})[sender] = [
            _Related(each, [live.place_before(each, "updated") for live in _concerned_by_relations(type(each))])
            for each in found
        ]
        return
    of_tables = vars(instance).get(_RELATED, {})
    changed = of_tables.pop(sender, ())
    if not of_tables:
        vars(instance).pop(_RELATED, None)
    for related in changed:
        for live, before in zip(_concerned_by_relations(type(related.instance)), related.places, strict=True):
            tell(live, "updated", related.instance, using, before=before, is_relation=True)


def _concerned_by_relations(model: type[Model]) -> list[LiveModel]:
    return [live for live in concerned(model) if live.shows_relations or live.may_move]


def _instances_of_relation(
    lives: Sequence[LiveModel],
    source: type[Model],
    through: type[Model],
    instance: Model,
    reverse: bool,
    pk_set: set[Any] | None,
    using: str,
) -> Iterator[Model]:
    """Those on the side that declares the field; on both, where it is symmetrical."""
    field: Any = next(field for field in source._meta.many_to_many if field.remote_field.through is through)
    if not reverse:
        moves = any(live.may_move for live in lives)
        yield (_read(lives, "updated", instance, source, using) if moves else None) or instance
    # Asked of the models too: django-taggit's field says of itself that it is symmetrical.
    is_symmetrical = field.remote_field.symmetrical and issubclass(source, field.related_model)
    if reverse or is_symmetrical:
        found: list[Model] = []
        with _logged(lives, "updated", source):
            rows = source._base_manager.using(using)
            # What Django calls their primary keys are values of what the table in between refers to.
            name = field.m2m_target_field_name() if reverse else field.m2m_reverse_target_field_name()
            found += rows.filter(**({field.name: instance} if pk_set is None else {f"{name}__in": pk_set}))
        yield from found
