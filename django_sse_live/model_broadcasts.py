"""Saves and deletes become broadcasts: @live_model.

Listens to post_save and post_delete; hands over to broadcast(). Knows nothing of streams.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models import Model, QuerySet
from django.db.models.fields.files import FieldFile
from django.db.models.signals import class_prepared, post_delete, post_save, pre_delete

from .broadcasting import broadcast
from .events import validate_type

logger: logging.Logger = logging.getLogger("django_sse_live")

Action = Literal["created", "updated", "deleted"]
ChannelSource = str | Iterable[str] | Callable[[Any], "str | Iterable[str] | None"]
Payload = Callable[[Any, Action], Any]
ModelClass = TypeVar("ModelClass", bound=type[Model])

ACTIONS: tuple[Action, ...] = ("created", "updated", "deleted")
_DEFAULT = "\0default"  # no event type can be this


class LiveModel:
    """What one registration says: which channel, which event types, which payload."""

    __slots__ = ("model", "channel", "types", "fields", "payload")

    def __init__(
        self,
        model: type[Model],
        channel: ChannelSource,
        types: dict[Action, str | None],
        fields: Sequence[str] | None,
        payload: Payload | None,
    ) -> None:
        self.model: type[Model] = model
        self.channel: ChannelSource = channel
        self.types: dict[Action, str | None] = types
        self.fields: Sequence[str] | None = fields
        self.payload: Payload | None = payload

    def broadcast(self, instance: Model, action: Action, using: str | None) -> None:
        """A failure is logged with model and action: it must not fail the save that has happened."""
        type = self.types[action]
        if type is None:
            return
        try:
            channel = self.channel(instance) if callable(self.channel) else self.channel
            if channel is not None:
                broadcast(channel, type, self.data(instance, action), using=using)
        except Exception:
            logger.exception(
                "The broadcast of %s (%s) failed; the save itself is not affected.", instance._meta.label_lower, action
            )

    def data(self, instance: Model, action: Action) -> Any:
        if self.payload is not None:
            return self.payload(instance, action)
        if self.fields is not None:
            return {name: _field_value(instance, name) for name in self.fields}
        # Of the registered model: a child has a name, and may have a key, that a delete of its parent does not know.
        registered = self.model._meta
        return {"id": getattr(instance, registered.pk.attname), "model": registered.label_lower, "action": action}


def _field_value(instance: Model, name: str) -> Any:
    """A foreign key is its key, a file its name; anything that is not a field is an attribute."""
    try:
        field = instance._meta.get_field(name)
    except FieldDoesNotExist:
        return getattr(instance, name)
    value = getattr(instance, getattr(field, "attname", name))
    return value.name if isinstance(value, FieldFile) else value


class _LiveModels:
    """The decorator ``live_model``, and what it registered: filled while models are imported, read from any thread."""

    def __init__(self) -> None:
        self.registrations: list[LiveModel] = []

    def __call__(
        self,
        channel: ChannelSource,
        *,
        created: str | None = _DEFAULT,
        updated: str | None = _DEFAULT,
        deleted: str | None = _DEFAULT,
        fields: Sequence[str] | None = None,
        payload: Payload | None = None,
    ) -> Callable[[ModelClass], ModelClass]:
        """Broadcast each save and delete of a model, with its proxies and multi-table children, after the commit.

        ``channel``: a name, several, or a callable that gives them for an instance; None from it is silence.
        ``created``, ``updated``, ``deleted``: event types, by default ``new_<model_name>``, ``<model_name>_updated``
        and ``<model_name>_deleted``; None is silence.
        ``fields``: names of fields or attributes to send. ``payload``: a callable ``(instance, action)`` for the data.
        Without either the data is ``{"id": …, "model": "app.model", "action": "created"}``, of the model that was
        registered, for its proxies and children too.
        A save never fails because of its broadcast: what goes wrong is logged. So is a save under
        ``transaction.set_autocommit(False)`` and outside ``atomic()``, whose commit nobody is told of: nothing is sent.
        TypeError for an abstract model, and for ``fields`` beside ``payload``.
        """

        def decorate(model: ModelClass) -> ModelClass:
            self.register(
                model, channel, created=created, updated=updated, deleted=deleted, fields=fields, payload=payload
            )
            return model

        return decorate

    def register(
        self,
        model: type[Model],
        channel: ChannelSource,
        *,
        created: str | None = _DEFAULT,
        updated: str | None = _DEFAULT,
        deleted: str | None = _DEFAULT,
        fields: Sequence[str] | None = None,
        payload: Payload | None = None,
    ) -> None:
        """The same for a model that one does not own; best called in ``AppConfig.ready()``."""
        if not (isinstance(model, type) and issubclass(model, Model)):
            raise TypeError(f"@live_model goes on a model class, not on {model!r}. Write @live_model(channel=…).")
        if model._meta.abstract:
            raise TypeError(f"{model.__name__} is abstract and is never saved: put @live_model on its concrete models.")
        if fields is not None and payload is not None:
            raise TypeError(
                f"@live_model on {model.__name__} has both fields and payload; one of them says what to send."
            )
        if isinstance(fields, str):
            raise TypeError(f'fields must be a list of names, such as ["{fields}"], not a str.')
        name = model._meta.model_name
        types: dict[Action, str | None] = {
            "created": f"new_{name}" if created is _DEFAULT else created,
            "updated": f"{name}_updated" if updated is _DEFAULT else updated,
            "deleted": f"{name}_deleted" if deleted is _DEFAULT else deleted,
        }
        for type_ in types.values():
            if type_ is not None:
                validate_type(type_)
        self.registrations.append(LiveModel(model, channel, types, fields, payload))
        _concerned.cache_clear()
        for subclass in _with_subclasses(model):
            _listen_to(subclass)
        class_prepared.connect(_on_class_prepared, dispatch_uid="django_sse_live.prepared")

    def unregister(self, model: type[Model]) -> None:
        """Take back what was registered for this very model."""
        self.registrations = [live for live in self.registrations if live.model is not model]
        _concerned.cache_clear()

    def broadcast(self, instances: Model | Iterable[Model], action: Action, *, using: str | None = None) -> None:
        """What a save or delete of each instance would have sent: for bulk_create(), bulk_update(), QuerySet.update()
        and raw SQL, which send no Django signals. ``using``: the database whose commit is awaited, by default the one
        that each instance would be saved to."""
        if action not in ACTIONS:
            raise ValueError(f"action is {action!r}; it must be one of {', '.join(map(repr, ACTIONS))}.")
        for instance in [instances] if isinstance(instances, Model) else instances:
            lives = _concerned(type(instance))
            if not lives:
                raise ValueError(f"{type(instance).__name__} is not a live model: register it with @live_model.")
            for live in lives:
                live.broadcast(instance, action, using or router.db_for_write(type(instance), instance=instance))


live_model: _LiveModels = _LiveModels()


@cache
def _concerned(sender: type[Model]) -> tuple[LiveModel, ...]:
    """The registrations of a model: its own, and those of the models it inherits from."""
    return tuple(live for live in live_model.registrations if issubclass(sender, live.model))


def _with_subclasses(model: type[Model]) -> Iterator[type[Model]]:
    yield model
    for subclass in model.__subclasses__():
        yield from _with_subclasses(subclass)


def _listen_to(model: type[Model]) -> None:
    """By sender: a receiver for all models would cost every other model of the site its fast deletes."""
    if model._meta.abstract:
        return
    post_save.connect(_on_save, sender=model, dispatch_uid="django_sse_live.save")
    pre_delete.connect(_on_pre_delete, sender=model, dispatch_uid="django_sse_live.pre_delete")
    post_delete.connect(_on_delete, sender=model, dispatch_uid="django_sse_live.delete")


def _on_class_prepared(*, sender: type[Model], **_: Any) -> None:
    if any(issubclass(sender, live.model) for live in live_model.registrations):
        _concerned.cache_clear()
        _listen_to(sender)


def _on_save(*, sender: type[Model], instance: Model, created: bool, raw: bool, using: str, **_: Any) -> None:
    if raw:
        return
    for live in _concerned(sender):
        live.broadcast(instance, "created" if created else "updated", using)


# One delete can send its signals twice for one row: as its model and as a proxy. What the pre_delete signals, which all
# come first, put on the delete's origin, the first post_delete takes away. Ids only: the origin may be pickled.
_DOOMED = "_sse_live_doomed"


def _on_pre_delete(*, sender: type[Model], instance: Model, origin: Any = None, **_: Any) -> None:
    if isinstance(origin, (Model, QuerySet)):
        doomed = vars(origin).setdefault(_DOOMED, set())
        doomed.update((id(live), instance.pk) for live in _concerned_by_delete(sender))


def _on_delete(*, sender: type[Model], instance: Model, using: str, origin: Any = None, **_: Any) -> None:
    doomed = vars(origin).get(_DOOMED) if isinstance(origin, (Model, QuerySet)) else None
    for live in _concerned_by_delete(sender):
        if doomed is not None:
            if (id(live), instance.pk) not in doomed:
                continue
            doomed.remove((id(live), instance.pk))
        live.broadcast(instance, "deleted", using)


def _concerned_by_delete(sender: type[Model]) -> Iterator[LiveModel]:
    # The deletion of a multi-table child sends signals for the child and for each parent: each registration listens to
    # its own table's alone.
    return (live for live in _concerned(sender) if sender._meta.concrete_model is live.model._meta.concrete_model)
