"""Templates rendered once, for everybody who hears a channel: nothing that differs from viewer to viewer gets in.

Without a request, in LANGUAGE_CODE and TIME_ZONE, whoever's request it is that the rendering happens in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest
from django.template import Context
from django.template.backends.django import DjangoTemplates
from django.template.loader import get_template
from django.utils import timezone, translation
from django.utils.module_loading import import_string
from django.utils.safestring import mark_safe

from .events import plain_text
from .savepoints import undone_if_it_fails

# Of Django's own context processors; known also to projects that do without them.
VIEWER_NAMES: Final = ("user", "perms", "request", "messages")
# Looked up by template tags, whether there or not.
_NAMES_OF_TAGS: Final = frozenset({"forloop", "block"})


class ViewerDependentError(ValueError):
    """A template for everybody asked for what differs from viewer to viewer."""


def render_for_everyone(template_name: str, values: Mapping[str, Any]) -> str:
    """The template's markup. ViewerDependentError if it asks for the user, the request or the like, unless ``values``
    themselves give that name; and whatever the template raises."""
    template: Any = get_template(template_name)
    noted = _Noted()
    failure: Exception | None = None
    html = ""
    language, zone = settings.LANGUAGE_CODE, timezone.get_default_timezone()
    with undone_if_it_fails(), translation.override(language), timezone.override(zone):
        try:
            if isinstance(template.backend, DjangoTemplates):
                engine = template.template.engine
                context = _SharedContext(_Given(engine.context_processors, noted), noted, autoescape=engine.autoescape)
                context.update(dict(values))
                html = template.template.render(context)
            else:
                given = _Given(getattr(template.backend, "context_processors", ()), noted)
                html = template.render({**given, **values})
        except Exception as error:
            if not noted.names:
                raise
            failure = error
    # Looked at whether something was raised or not: {% if %} goes on to its else where an and, or, == or in raises.
    if noted.names:
        name = next(iter(noted.names))
        raise ViewerDependentError(
            f"The template {template_name!r} is rendered once, for everybody, and asks for {name!r}"
            f"{noted.names[name]}, which differs from viewer to viewer. Nothing is sent. Let each page fetch the "
            'region with the rights of its own visitor, insert="refresh" (or broadcast_patch(…, "refresh", …)), or put '
            f"{name!r} into the context if it is the same for everybody."
        ) from failure
    return plain_text(html)


class _Noted:
    """What a rendering asked for and must not have: names, each with what is known of where it comes from."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}


class _OfTheViewer:
    """Stands for what differs from viewer to viewer: whatever is asked of it is noted, and raises."""

    __slots__ = ("name", "source", "noted")

    def __init__(self, name: str, source: str, noted: _Noted) -> None:
        self.name: str = name
        self.source: str = source
        self.noted: _Noted = noted

    def note(self) -> None:
        self.noted.names.setdefault(self.name, self.source)

    def __getattr__(self, name: str) -> Any:
        return self._refuse()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        self.note()
        raise ViewerDependentError(self.name)

    __bool__ = __str__ = __repr__ = __format__ = __hash__ = __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = (
        _refuse
    )
    __len__ = __iter__ = __contains__ = __getitem__ = __call__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __mod__ = __rmod__ = _refuse


class _RequestOfTheViewer(_OfTheViewer):
    """``context.request``, of which ``{% url %}`` asks for the namespace of the page, and does without."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in ("current_app", "resolver_match"):
            raise AttributeError(name)
        return self._refuse()


class _EmptyToken(str):
    """``{% csrf_token %}`` draws its field, empty: the page fills in its own."""

    def __bool__(self) -> bool:
        return True


class _Given(dict[str, Any]):
    """What a template finds below its own context: stand-ins for what context processors make of a request."""

    def __init__(self, processors: Iterable[str], noted: _Noted) -> None:
        self.processors: _Processors = _processors(tuple(processors))
        super().__init__((name, _OfTheViewer(name, "", noted)) for name in VIEWER_NAMES)
        for name, path in self.processors.of_the_viewer.items():
            if name not in self:
                self[name] = _OfTheViewer(name, f" (of the context processor {path})", noted)
        self["csrf_token"] = _EmptyToken()
        self["csrf_input"] = mark_safe('<input type="hidden" name="csrfmiddlewaretoken" value="">')


class _SharedContext(Context):
    """Notes each name that is looked up and must not be. What the site's context processors give without looking at
    the request is the same for everybody, and is there."""

    def __init__(self, given: _Given, noted: _Noted, *, autoescape: bool) -> None:
        super().__init__(given, autoescape=autoescape)
        self.given: _Given | None = given
        self.noted: _Noted = noted

    def __getitem__(self, name: Any) -> Any:
        try:
            value = super().__getitem__(name)
        except KeyError:
            if self.given is None or name in _NAMES_OF_TAGS:
                raise
            processors = self.given.processors
            if name in processors.of_everybody:
                return processors.value(name, self.noted)
            if path := processors.may_give(name):
                self.noted.names.setdefault(name, f" (not in its context; {path} may give it)")
            raise
        if type(value) is _OfTheViewer:
            value.note()
        return value

    # Django's own look past the method above.

    def get(self, name: Any, otherwise: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return otherwise

    def __contains__(self, name: Any) -> bool:
        try:
            self[name]
        except KeyError:
            return False
        return True

    def flatten(self) -> dict[Any, Any]:
        values: dict[Any, Any] = super().flatten()
        if self.given is None:
            return values
        processors = self.given.processors
        for name in processors.of_everybody:
            values.setdefault(name, processors.value(name, self.noted))
        for name, source in processors.suspicious.items():
            values.setdefault(name, _OfTheViewer(name, source, self.noted))
        if processors.unknown:
            _OfTheViewer("flatten()", f" ({processors.unknown[0]} may give more)", self.noted).note()
        return values

    @property
    def request(self) -> _RequestOfTheViewer:
        return _RequestOfTheViewer("request", "", self.noted)

    def new(self, values: Any = None) -> _SharedContext:
        """For ``{% include … only %}`` and inclusion tags, which context processors have no part in."""
        context: Any = super().new(values)
        context.given = None
        return context  # type: ignore[no-any-return]


class _WatchedRequest(HttpRequest):
    """A visitor's who is not there. Any look at it says that what is made of it differs from viewer to viewer."""

    def __init__(self, touch: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.method = "GET"
        self.path = self.path_info = "/"
        self.META = {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "REMOTE_ADDR": "127.0.0.1"}
        self.session: Any = {}
        if apps.is_installed("django.contrib.auth"):
            from django.contrib.auth.models import AnonymousUser

            self.user: Any = AnonymousUser()
        object.__setattr__(self, "_touch", touch)

    def __getattribute__(self, name: str) -> Any:
        touch = object.__getattribute__(self, "__dict__").get("_touch")
        if touch is not None:
            touch()
        return super().__getattribute__(name)


class _Processors:
    """The site's context processors, each tried once: which names it gives, and whether it looks at the request."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.of_everybody: dict[str, str] = {}  # name → the processor's path
        self.of_the_viewer: dict[str, str] = {}
        self.suspicious: dict[str, str] = {}  # what others may get of a processor that looks at the request
        self.unknown: list[str] = []  # what these give cannot be found out without a real request
        for path in paths:
            try:
                with undone_if_it_fails():
                    self._try(path)
            except Exception:
                self.unknown.append(path)

    def _try(self, path: str) -> None:
        touches: list[bool] = []
        request = _WatchedRequest(lambda: touches.append(True))
        processor = import_string(path)
        values = processor(request)
        is_everybodys = not touches
        if touches:
            words = _words(processor)
            self.suspicious.update((word, path) for word in words)
            if not values and not words:
                self.unknown.append(path)
        for name, value in values.items():
            if is_everybodys and value is not request:
                self.of_everybody[name] = path
            else:
                self.of_the_viewer[name] = path

    def may_give(self, name: Any) -> str | None:
        """The path of a processor that gives this name to some visitors."""
        return self.suspicious.get(name) or (self.unknown[0] if self.unknown else None)

    def value(self, name: str, noted: _Noted) -> Any:
        path = self.of_everybody[name]
        # A lazy value may look at the request only when it is drawn.
        request = _WatchedRequest(lambda: noted.names.update({name: f" (of the context processor {path})"}))
        return import_string(path)(request)[name]


def _words(function: Any) -> set[str]:
    """What a function's code has for constants and can be a name: those that it gives at times are among them."""
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):  # an object that is called
        function = type(function).__call__
    words: set[str] = set()
    constants = [getattr(function, "__code__", None)]
    while constants:
        constant = constants.pop()
        if isinstance(constant, (tuple, frozenset)):
            constants += constant
        elif isinstance(constant, CodeType):
            constants += constant.co_consts
        elif isinstance(constant, str) and constant.isidentifier():
            words.add(constant)
    return words


@lru_cache(maxsize=8)
def _processors(paths: tuple[str, ...]) -> _Processors:
    return _Processors(paths)
