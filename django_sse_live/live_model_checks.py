"""What can be seen of a @live_model at start-up: fields that can never be sent, templates that cannot be right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import FieldDoesNotExist
from django.db.models import BinaryField, Field, Model
from django.db.models.manager import BaseManager
from django.template import TemplateDoesNotExist, TemplateSyntaxError
from django.template.loader import get_template

from .callables import signature_of
from .conf import live_settings
from .live_models import LiveModel
from .model_broadcasts import live_model
from .patches import root_elements
from .wire import encode_json


def check_live_models(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    for live in live_model.registrations:
        found += [message for name in live.fields or () for message in _check_field(live, name)]
        if live.template is not None:
            found += _check_template(live, live.template)
    found += _check_names(live_model.registrations)
    return found


def _check_field(live: LiveModel, name: str) -> Iterator[checks.CheckMessage]:
    model = live.model
    field: Any = None
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        if not hasattr(model, name):
            yield checks.Error(
                f"@live_model names the field {name!r}, which {model.__name__} does not have.",
                hint="Each of fields is the name of a model field, of an attribute or of a method.",
                obj=model,
                id="sse_live.E002",
            )
            return
    reason = _why_never(model, name, field)
    if reason:
        yield checks.Error(
            f"@live_model names the field {name!r} of {model.__name__}, which can never be sent: {reason}.",
            hint='Send it with payload=…, or name a method that gives plain values, such as "tag_names".',
            obj=model,
            id="sse_live.E003",
        )


def _why_never(model: type[Model], name: str, field: Any) -> str | None:
    """``field``: None for an attribute that is no field."""
    if any(name == relation.get_accessor_name() for relation in model._meta.related_objects):
        return "it is the other end of a relation"
    if field is None:
        if isinstance(getattr(model, name), (type, BaseManager)):
            return "it belongs to the class"
        return _why_not_called(inspect.getattr_static(model, name, None))
    if field.many_to_many:
        return "it is many-to-many"
    if field.is_relation and not (isinstance(field, Field) and field.concrete):
        return "it is the other end of a relation" if field.auto_created else "it is a generic relation"
    if isinstance(field, BinaryField):
        try:
            encode_json(b"", live_settings().json_encoder)
        except Exception:
            return 'SSE_LIVE["JSON_ENCODER"] does not encode bytes'
    return None


def _why_not_called(attribute: Any) -> str | None:
    if not inspect.isfunction(attribute):
        return None
    if getattr(attribute, "alters_data", False):  # as Django's templates have it
        return "it is a method that changes the row"
    signature = signature_of(attribute)
    assert signature is not None
    arguments = list(signature.parameters.values())[1:]
    needed = [
        argument.name
        for argument in arguments
        if argument.default is argument.empty and argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]
    if needed:
        return f"it is a method that needs {', '.join(needed)}"
    return "it is a coroutine" if inspect.iscoroutinefunction(attribute) else None


def _check_template(live: LiveModel, name: str) -> Iterator[checks.CheckMessage]:
    try:
        template: Any = get_template(name)
    except (TemplateDoesNotExist, TemplateSyntaxError) as error:
        what = f"{error}" if isinstance(error, TemplateSyntaxError) else f"there is no template {str(error)!r}"
        yield checks.Error(
            f"The template {name!r} of @live_model on {live.model.__name__} cannot be loaded: {what}.",
            hint='Give its name as {% include %} has it, such as template="board/_comment.html".',
            obj=live.model,
            id="sse_live.E004",
        )
        return
    problem = _problem_of_root(getattr(getattr(template, "template", None), "source", None), name)
    if problem:
        yield checks.Error(
            f"The template {name!r} of @live_model on {live.model.__name__} must draw one element, with an id: "
            f"{problem}.",
            hint=f'Write <li id="{{{{ {live.model._meta.model_name}|live_id }}}}">…</li> around all of it.',
            obj=live.model,
            id="sse_live.E005",
        )


_SILENT = re.compile(r"\{#.*?#\}|\{% *(?:comment\b.*?%\}.*?\{% *endcomment|load\b.*?) *%\}", re.DOTALL)
_DRAWS = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_MARK = "\N{BLACK SQUARE}"  # stands for what only a rendering knows


def _problem_of_root(source: str | None, name: str) -> str | None:
    """As far as it can be known: what tags draw at the root, or into the root's tag, cannot."""
    if not source or "#" in name:
        return None
    try:
        roots = root_elements(_DRAWS.sub(_MARK, _SILENT.sub("", source)).strip())
    except ValueError as error:
        return None if _MARK in source else str(error)
    if any(tag == "text" and id is None for tag, id in roots):
        return None
    if len(roots) != 1:
        return f"it has {len(roots)} roots"
    tag, id = roots[0]
    if id is None:
        start_tag = _QUOTED.sub("", _DRAWS.sub(_MARK, source)).partition(f"<{tag}")[2].partition(">")[0]
        return None if _MARK in start_tag else f"its <{tag}> has no id"
    return f"the id is {id!r} for every instance" if id and _MARK not in id else None


def _check_names(lives: Sequence[LiveModel]) -> Iterator[checks.CheckMessage]:
    known: dict[str, LiveModel] = {}
    for live in lives:
        if live.template is None:
            continue
        other = known.setdefault(live.name, live)
        if other is not live:
            yield checks.Error(
                f"Two registrations of @live_model, on {other.model._meta.label} and on {live.model._meta.label}, both "
                f'call their elements "{live.name}-<key>".',
                hint=f'Give one of them a name of its own: @live_model(…, element_id="{live.model._meta.app_label}-'
                f'{live.name}"), and {{{{ {live.model._meta.model_name}|live_id:"…" }}}} in its template.',
                obj=live.model,
                id="sse_live.E006",
            )
