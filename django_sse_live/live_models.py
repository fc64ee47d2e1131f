"""What one @live_model says of a row: where it is shown, what is sent of it, how it is drawn.

Calls the project's code (channels, targets, payloads, templates), each in a savepoint; knows nothing of events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from json import JSONEncoder
from typing import Any, Final, Literal, NamedTuple, get_args

from django.core.exceptions import FieldDoesNotExist
from django.db.models import BinaryField, Model, QuerySet
from django.db.models.fields.files import FieldFile

from .callables import check_sync
from .conf import live_settings
from .events import refuse_reserved, validate_channels
from .patches import PATCH_TYPE, root_elements, validate_target
from .rendering import render_for_everyone
from .rows import QuerySource
from .savepoints import undone_if_it_fails
from .wire import encode_json

logger: logging.Logger = logging.getLogger("django_sse_live")

Action = Literal["created", "updated", "deleted"]
Insert = Literal["append", "prepend", "refresh"]
ChannelSource = str | Iterable[str] | Callable[[Any], "str | Iterable[str] | None"]
TargetSource = str | Callable[[Any], "str | None"] | None
ContextSource = Mapping[str, Any] | Callable[[Any], Mapping[str, Any]] | None
Payload = Callable[[Any, Action], Any]

ACTIONS: Final[tuple[Action, ...]] = ("created", "updated", "deleted")
NULL: Final = "null"


class Place(NamedTuple):
    """Where a row is shown."""

    channels: tuple[str, ...]
    target: str | None


@dataclass(slots=True, eq=False, repr=False)
class LiveModel:
    """What one registration says: which channels, which event types, which data, which patches."""

    model: type[Model]
    channel: ChannelSource
    types: dict[Action, str | None]
    _: KW_ONLY
    fields: Sequence[str] | None = None
    payload: Payload | None = None
    template: str | None = None
    target: TargetSource = None
    insert: Insert | None = None
    element_id: str | None = None
    context: ContextSource = None
    queryset: QuerySource | None = None
    is_second: bool = False  # another place of the same rows: its events are patches, and have no data

    def __repr__(self) -> str:
        template = f", template={self.template!r}" if self.template else ""
        return f"<live_model {self.model._meta.label}{template}>"

    # What it needs

    @property
    def refreshes(self) -> bool:
        """No markup travels: each page fetches the region anew."""
        return self.insert == "refresh"

    @property
    def has_patches(self) -> bool:
        return self.template is not None or self.refreshes

    @property
    def has_own_data(self) -> bool:
        return not self.is_second and (self.fields is not None or self.payload is not None)

    @property
    def may_move(self) -> bool:
        """Whether a save can change where a row is shown."""
        return callable(self.channel) or (self.has_patches and callable(self.target))

    @property
    def shows_relations(self) -> bool:
        """Whether what it sends may depend on many-to-many relations, as far as can be known."""
        concrete = {name for field in self.model._meta.concrete_fields for name in (field.name, field.attname)}
        named = self.fields is not None and not concrete.issuperset(self.fields)
        return self.has_patches or self.payload is not None or named

    @property
    def name(self) -> str:
        """What the ids of its elements begin with."""
        return self.element_id or str(self.model._meta.model_name)

    def key(self, instance: Model) -> Any:
        """Of the registered model: a child may have another, and a delete of its parent knows this one alone."""
        return getattr(instance, self.model._meta.pk.attname)

    def id_of(self, instance: Model, element_id: str | None = None) -> str:
        """The id of the element that shows an instance."""
        return element_of(instance, self.model, element_id or self.element_id)

    def type_of(self, action: Action) -> str | None:
        return PATCH_TYPE if self.is_second and self.types[action] is not None else self.types[action]

    # The project's code, each in a savepoint

    def channels_of(self, instance: Model) -> tuple[str, ...]:
        if not callable(self.channel):
            return validate_channels(self.channel)
        with undone_if_it_fails():
            channel = self.channel(instance)
            if channel is None:
                return ()
            if not isinstance(channel, str) and isinstance(channel, Iterable):
                channel = tuple(channel)
        return validate_channels(channel) if channel != () else ()

    def target_of(self, instance: Model) -> str | None:
        target = self.target
        if not self.has_patches or target is None:
            return None
        if callable(target):
            with undone_if_it_fails():
                target = target(instance)
        try:
            return None if target is None else validate_target(target)
        except (TypeError, ValueError) as error:
            raise type(error)(f"target of {self!r}: {error}") from None

    def place_of(self, instance: Model) -> Place:
        return Place(self.channels_of(instance), self.target_of(instance))

    def place_before(self, instance: Model, action: Action) -> Place | None:
        """Where an instance is shown, if that may change. Where it cannot be told, a delete is not told either."""
        try:
            return self.place_of(instance) if self.may_move else None
        except Exception:
            self.log_failure(instance, action)
            return Place((), None) if action == "deleted" else None

    def data(self, instance: Model, action: Action) -> str:
        """The data as JSON text."""
        if self.is_second:
            return NULL
        with undone_if_it_fails():
            encoder = live_settings().json_encoder
            if self.payload is not None:
                return encode_json(self.payload(instance, action), encoder)
            if self.fields is None:
                return self.plain_data(instance, action)
            values = {name: _field_value(instance, name) for name in self.fields}
            try:
                return encode_json(values, encoder)
            except TypeError:
                return encode_json(
                    {name: _as_serialized(instance, name, value, encoder) for name, value in values.items()}, encoder
                )

    def plain_data(self, instance: Model, action: Action) -> str:
        """The data where nothing else is said."""
        if self.is_second:
            return NULL
        value = {"id": self.key(instance), "model": self.model._meta.label_lower, "action": action}
        return encode_json(value, live_settings().json_encoder)

    def render(self, instance: Model) -> str:
        assert self.template is not None
        with undone_if_it_fails():
            context = self.context(instance) if callable(self.context) else self.context
            names = {str(self.model._meta.model_name): instance, "object": instance, **(context or {})}
            html = render_for_everyone(self.template, names)
        expected = self.id_of(instance)
        try:
            roots = root_elements(html)
        except ValueError as error:
            raise ValueError(f"The template {self.template!r} of {self.model._meta.label}: {error}") from None
        if len(roots) != 1 or roots[0][1] != expected:
            found = ", ".join(f"<{tag} id={id!r}>" if id else tag for tag, id in roots) or "nothing"
            argument = f':"{self.element_id}"' if self.element_id else ""
            raise ValueError(
                f"The template {self.template!r} of {self.model._meta.label} must draw one element, with the id "
                f"{expected!r}; it drew {found}. "
                f'Write <li id="{{{{ {self.model._meta.model_name}|live_id{argument} }}}}">…</li>.'
            )
        return html

    def log_failure(self, instance: Model | type[Model], action: Action, what: str = "broadcast") -> None:
        """A failure is logged with model and action: it must not fail the save that has happened."""
        template = f" with template {self.template!r}" if what == "patch" and self.template else ""
        logger.exception(
            "The %s of %s (%s)%s failed; the save itself is not affected.",
            what,
            instance._meta.label_lower,
            action,
            template,
        )


def check_sources(model: type[Model], channel: object, fields: object, payload: object) -> None:
    """TypeError or ValueError for what no save could be told with."""
    who = f"@live_model on {model.__name__}"
    if fields is not None and payload is not None:
        raise TypeError(f"{who} has both fields and payload; one of them says what to send.")
    if isinstance(fields, str):
        raise TypeError(f'fields must be a list of names, such as ["{fields}"], not a str.')
    if fields is not None and not (isinstance(fields, tuple) and all(isinstance(name, str) for name in fields)):
        raise TypeError(f'{who}: fields must be a list of names, such as ["id"]; not {fields!r}.')
    if payload is not None:
        check_sync(f"{who}: payload", payload, "instance", "action")
    if callable(channel):
        check_sync(f"{who}: channel", channel, "instance")
        return
    try:
        refuse_reserved(validate_channels(channel))  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise type(error)(f"{who}: {error}") from None


def check_patches(
    model: type[Model],
    template: object,
    target: object,
    insert: object,
    element_id: object,
    context: object,
    queryset: object,
) -> None:
    who = f"@live_model on {model.__name__}"
    if insert not in (*get_args(Insert), None):
        choices = ", ".join(map(repr, get_args(Insert)))
        raise ValueError(f"{who}: insert is {insert!r}; it must be one of {choices}, or None for not at all.")
    if template is not None and not isinstance(template, str):
        raise TypeError(f"{who}: template must be the name of a template, not {template.__class__.__name__}.")
    if callable(target):
        check_sync(f"{who}: target", target, "instance")
    elif target is not None:
        try:
            validate_target(target)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{who}: {error}") from None
    if element_id is not None and (not isinstance(element_id, str) or element_id.split() != [element_id]):
        raise ValueError(f'{who}: element_id is {element_id!r}; it must be a word that ids begin with, such as "side".')
    if callable(context):
        check_sync(f"{who}: context", context, "instance")
    elif context is not None and not isinstance(context, Mapping):
        raise TypeError(f"{who}: context must be a dict, or a callable that gives one for an instance.")
    if callable(queryset):
        check_sync(f"{who}: queryset", queryset)
    elif queryset is not None and not isinstance(queryset, QuerySet):
        raise TypeError(
            f"{who}: queryset must be a callable such as lambda: {model.__name__}.objects.select_related(…)."
        )
    if insert == "refresh":
        if target is None:
            raise TypeError(f'{who}: insert="refresh" needs target=…, the id of the element that pages fetch anew.')
    elif template is None:
        for name, value in (
            ("target", target),
            ("element_id", element_id),
            ("context", context),
            ("queryset", queryset),
        ):
            if value is not None:
                raise TypeError(f'{who}: {name} is for patches; give template=… too, or target=… and insert="refresh".')


def element_of(instance: Model, model: type[Model], element_id: str | None = None) -> str:
    """The id of the element that shows an instance of a model: a name, and the key; never localized."""
    key = getattr(instance, model._meta.pk.attname)
    parts = key if isinstance(key, (tuple, list)) else (key,)
    return "-".join([element_id or str(model._meta.model_name), *map(str, parts)])


def _field_value(instance: Model, name: str) -> Any:
    """A foreign key is its key, a file its name; anything that is not a field is an attribute, and called if it is a
    method."""
    try:
        field = instance._meta.get_field(name)
    except FieldDoesNotExist:
        value = getattr(instance, name)
        return value() if callable(value) else value
    value = getattr(instance, getattr(field, "attname", name))
    return value.name if isinstance(value, FieldFile) else value


def _as_serialized(instance: Model, name: str, value: Any, encoder: type[JSONEncoder]) -> Any:
    """The text that Django's serializers have for a field's value that is not JSON-able, such as a range."""
    try:
        encode_json(value, encoder)
    except TypeError:
        field: Any = next((field for field in instance._meta.concrete_fields if name == field.name), None)
        if field is None or isinstance(field, BinaryField) or hasattr(value, "resolve_expression"):
            raise
        return field.value_to_string(instance)
    return value
