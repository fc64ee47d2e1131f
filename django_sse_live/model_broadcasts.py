"""Saves and deletes become broadcasts: @live_model, and what it has registered.

Signals are heard in model_signals.py; what becomes of them is up to row_events.py. Knows nothing of streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.db.models import Model, QuerySet

from .events import plain_text, validate_type
from .live_models import (
    ACTIONS,
    Action,
    ChannelSource,
    ContextSource,
    Insert,
    LiveModel,
    Payload,
    TargetSource,
    check_patches,
    check_sources,
    element_of,
)
from .row_events import Change
from .rows import QuerySource, Rows

ModelClass = TypeVar("ModelClass", bound=type[Model])

INSTANCES_RENDERED_MAX: Final = 100  # by one live_model.broadcast(): of more, pages fetch their regions anew
APP: Final = "django_sse_live"
_DEFAULT = "\0default"  # no event type can be this


class _LiveModels:
    """The decorator ``live_model``, and what it registered: filled while models are imported, read from any thread."""

    def __init__(self) -> None:
        self.registrations: list[LiveModel] = []
        self.listen: Callable[[type[Model]], None] | None = None  # once the app is ready: hear a model's signals

    def __call__(
        self,
        channel: ChannelSource,
        *,
        created: str | None = _DEFAULT,
        updated: str | None = _DEFAULT,
        deleted: str | None = _DEFAULT,
        fields: Sequence[str] | None = None,
        payload: Payload | None = None,
        template: str | None = None,
        target: TargetSource = None,
        insert: Insert | None = "append",
        element_id: str | None = None,
        context: ContextSource = None,
        queryset: QuerySource | QuerySet[Any] | None = None,
    ) -> Callable[[ModelClass], ModelClass]:
        """Broadcast each save and delete of a model, with its proxies and multi-table children, after the commit.

        ``channel``: a name, several, or a callable that gives them for an instance; None from it is silence. A row
        whose channels change with a save is ``deleted`` where it was and ``created`` where it comes.
        ``created``, ``updated``, ``deleted``: event types, by default ``new_<model_name>``, ``<model_name>_updated``
        and ``<model_name>_deleted``; None is silence.
        ``fields``: names of fields, attributes or methods to send; of a field whose value no JSON encoder knows, such
        as a range, the text that fixtures have. ``payload``: a callable ``(instance, action)`` for the data. Without
        either the data is ``{"id": …, "model": "app.model", "action": "created"}``, of the model that was registered,
        for its proxies and children too.
        ``template``: draws one element, with the id ``{{ <model_name>|live_id }}``, for every page that hears the
        channel: a page shows what is created, changed and deleted without a script. It is rendered once, for everybody.
        ``target``: the id of the element that new ones are inserted into, or a callable of the instance; None is
        nowhere.
        ``insert``: ``"append"``, ``"prepend"``, None for not at all, or ``"refresh"``: each page fetches the element
        ``target`` anew instead, with the rights of its own visitor; that needs no template.
        ``element_id``: what ids begin with instead of the model's name, for a second place of the same rows on a page:
        ``{{ <model_name>|live_id:"side" }}``.
        ``context``: names for the template, beside ``<model_name>`` and ``object``, or a callable of the instance.
        ``queryset``: a callable that gives the queryset from which a row is read for its template.

        Data and markup are those of the row at the commit: it is read anew, once for a transaction. The default data
        needs no look at it. Of a delete they are those of the instance. A save never fails because of its broadcast:
        what goes wrong is logged. So is a save under ``transaction.set_autocommit(False)`` and outside ``atomic()``,
        whose commit nobody is told of: nothing is sent.
        TypeError or ValueError for what cannot be: an abstract model, ``fields`` beside ``payload``, an unknown
        ``insert``, a function that is async or takes other arguments.
        """

        bare: Any = channel
        if isinstance(bare, type) and issubclass(bare, Model):
            raise TypeError(f'@live_model on {bare.__name__} needs a channel: write @live_model(channel="comments").')

        def decorate(model: ModelClass) -> ModelClass:
            self.register(
                model, channel, created=created, updated=updated, deleted=deleted, fields=fields, payload=payload,
                template=template, target=target, insert=insert, element_id=element_id, context=context,
                queryset=queryset,
            )  # fmt: skip
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
        template: str | None = None,
        target: TargetSource = None,
        insert: Insert | None = "append",
        element_id: str | None = None,
        context: ContextSource = None,
        queryset: QuerySource | QuerySet[Any] | None = None,
    ) -> None:
        """The same for a model that one does not own; best called in ``AppConfig.ready()``."""
        if apps.apps_ready and not apps.is_installed(APP):
            raise ImproperlyConfigured(f'@live_model needs "{APP}" in INSTALLED_APPS. Without it no save is heard.')
        if not (isinstance(model, type) and issubclass(model, Model)):
            raise TypeError(f"@live_model goes on a model class, not on {model!r}. Write @live_model(channel=…).")
        if model._meta.abstract:
            raise TypeError(f"{model.__name__} is abstract and is never saved: put @live_model on its concrete models.")
        if not (isinstance(channel, str) or callable(channel)) and isinstance(channel, Iterable):
            channel = tuple(channel)  # one that could be read once only
        if isinstance(fields, Iterable) and not isinstance(fields, str):
            fields = tuple(fields)
        check_sources(model, channel, fields, payload)
        check_patches(model, template, target, insert, element_id, context, queryset)
        name = model._meta.model_name
        given = {"created": created, "updated": updated, "deleted": deleted}
        defaults = {"created": f"new_{name}", "updated": f"{name}_updated", "deleted": f"{name}_deleted"}
        types: dict[Action, str | None] = {}
        for action in ACTIONS:
            type_ = defaults[action] if given[action] is _DEFAULT else given[action]
            if isinstance(type_, bool):
                who = f"@live_model on {model.__name__}"
                raise TypeError(f"{who}: {action} is {type_}; it must be an event type, or None for silence.")
            types[action] = None if type_ is None else validate_type(type_)
        live = LiveModel(
            model, channel, types, fields=fields, payload=payload,
            template=None if template is None else plain_text(template), target=target, insert=insert,
            element_id=None if element_id is None else plain_text(element_id), context=context,
            queryset=queryset.all if isinstance(queryset, QuerySet) else queryset,
        )  # fmt: skip
        self.registrations.append(live)
        self._find_second_places()
        if self.listen is not None:
            self.listen(model)

    def unregister(self, model: type[Model]) -> None:
        """Take back what was registered for this very model."""
        self.registrations = [live for live in self.registrations if live.model is not model]
        self._find_second_places()

    def _find_second_places(self) -> None:
        """A registration with ``element_id`` sends no second event of a type that another one of its model sends."""
        concerned.cache_clear()
        for place, live in enumerate(self.registrations):
            live.is_second = live.element_id is not None and any(
                other.model is live.model and (other.element_id is None or number < place) and _share_types(other, live)
                for number, other in enumerate(self.registrations)
                if other is not live
            )

    def id_of(self, instance: Model, element_id: str | None = None) -> str:
        """The id of the element that shows an instance: of the nearest registration that its class inherits from."""
        lives = [live for parent in type(instance).__mro__ for live in self.registrations if live.model is parent]
        lives.sort(key=lambda live: (element_id not in (None, live.element_id), not live.has_patches, live.is_second))
        if lives:
            return lives[0].id_of(instance, element_id)
        return element_of(instance, type(instance)._meta.concrete_model or type(instance), element_id)

    def broadcast(self, instances: Model | Iterable[Model], action: Action, *, using: str | None = None) -> None:
        """What a save or delete of each instance would have sent: for bulk_create(), bulk_update(), QuerySet.update()
        and raw SQL, which send no Django signals. Of more than 100 instances with a template no markup is sent, nor of
        one without a key, as bulk_create() leaves it on MySQL and with ``ignore_conflicts``: each page fetches the
        target anew, once.

        ``instances``: one, or several.
        ``action``: ``"created"``, ``"updated"`` or ``"deleted"``.
        ``using``: the database whose commit is awaited, by default the one that each instance would be saved to.
        ValueError for an unknown action, or an instance of a model that is not live; TypeError for a class.
        """
        if action not in ACTIONS:
            raise ValueError(f"action is {action!r}; it must be one of {', '.join(map(repr, ACTIONS))}.")
        if isinstance(instances, type):
            every = f"{instances.__name__}.objects.all()"
            raise TypeError(f"live_model.broadcast() takes instances, not a class: {every} is all of them.")
        given = [instances] if isinstance(instances, Model) else list(instances)
        rows_of: dict[str, Rows] = {}
        prepared = []
        for instance in given:
            lives = concerned(type(instance))
            if not lives:
                raise ValueError(f"{type(instance).__name__} is not a live model: register it with @live_model.")
            database = using or router.db_for_write(type(instance), instance=instance)
            rows = rows_of.setdefault(database, Rows.of_transaction(database))
            for live in lives:
                is_drawn = len(given) <= INSTANCES_RENDERED_MAX and live.key(instance) is not None
                refreshes = live.has_patches and not is_drawn
                change = Change(live, action, instance, database, rows, is_batch=True, refreshes=refreshes)
                prepared.append((change, change.events()))
        for change, events in prepared:
            change.send(events)


live_model: _LiveModels = _LiveModels()


def _share_types(one: LiveModel, other: LiveModel) -> bool:
    return bool(set(one.types.values()) & set(other.types.values()) - {None})


@cache
def concerned(sender: type[Model]) -> tuple[LiveModel, ...]:
    """The registrations of a model: its own, and those of the models it inherits from."""
    return tuple(live for live in live_model.registrations if issubclass(sender, live.model))
