"""Renders a template once, for all clients of a channel. The markup must be the same for every viewer.

There is no request. Language and time zone are LANGUAGE_CODE and TIME_ZONE, in whichever request the code runs. Names
whose values differ from viewer to viewer get stand-ins, which record their use. A template that uses one is refused.
"""

from __future__ import annotations

import inspect
import secrets
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

# Names that Django's own context processors set. They are refused also if a project does not use these processors.
VIEWER_NAMES: Final = ("user", "perms", "request", "messages")
# Names that Django's template tags look up in every context, set or not.
_NAMES_OF_TAGS: Final = frozenset({"forloop", "block"})


class ViewerDependentError(ValueError):
    """A template that is rendered for all viewers has used a value that differs from viewer to viewer."""


def render_for_everyone(template_name: str, values: Mapping[str, Any]) -> str:
    """Render a template and return its markup.

    ``values``: the template's context. They may set any name, also ``user`` or ``request``.
    ViewerDependentError for a template that uses the user, the request or another such name that ``values`` do not set.
    Other exceptions of the template are raised as they are.
    """
    template: Any = get_template(template_name)
    noted: _Noted = {}
    failure: Exception | None = None
    html = ""
    names: dict[str, Any] = {}
    token = secrets.token_hex(16)
    language, zone = settings.LANGUAGE_CODE, timezone.get_default_timezone()
    with undone_if_it_fails(), translation.override(language), timezone.override(zone):
        try:
            if isinstance(template.backend, DjangoTemplates):
                engine = template.template.engine
                names = _ProcessorNames(engine.context_processors, noted, token)
                context = _SharedContext(names, noted, autoescape=engine.autoescape)
                context.update(dict(values))
                html = template.template.render(context)
            else:
                processors = getattr(template.backend, "context_processors", ())
                names = {**_ProcessorNames(processors, noted, token), **values}
                html = template.render(names)
        except Exception as error:
            if not noted:
                raise
            failure = error
        finally:
            names.clear()  # Django's test client and django-debug-toolbar keep contexts, and look into them later
    # A field is drawn empty, and each page fills in its own token.
    for before in ('value="', "value='", "value="):
        html = html.replace(before + token, before)
    if token in html:
        noted["csrf_token"] = " (outside of a form's field)"
    # Checked even if nothing was raised: {% if %} drops an exception inside of and, or, == and in, and draws its else.
    if noted:
        name = next(iter(noted))
        raise ViewerDependentError(
            f"The template {template_name!r} is rendered once, for everybody, and asks for {name!r}"
            f"{noted[name]}, which differs from viewer to viewer. Nothing is sent. Let each page fetch the "
            'region with the rights of its own visitor, insert="refresh" (or broadcast_patch(…, "refresh", …)), or put '
            f"{name!r} into the context if it is the same for everybody."
        ) from failure
    return plain_text(html)


# The refused names that a rendering has used, each with a remark on where it comes from, in brackets, or "".
_Noted = dict[str, str]


class _ViewerValue:
    """The stand-in for a value that differs from viewer to viewer. Each use is noted, and raises.

    Tools that keep contexts, such as django-debug-toolbar, compare values and ask them for attributes after the
    rendering: that must not fail in ways of its own."""

    __slots__ = ("name", "source", "noted")

    def __init__(self, name: str, source: str, noted: _Noted) -> None:
        self.name: str = name
        self.source: str = source
        self.noted: _Noted = noted

    def note(self) -> None:
        self.noted.setdefault(self.name, self.source)

    def __getattr__(self, name: str) -> Any:
        self.note()
        raise AttributeError(name)

    def __eq__(self, other: object) -> bool:
        self.note()
        return self is other

    def _refuse(self, *_: Any, **__: Any) -> Any:
        self.note()
        raise ViewerDependentError(self.name)

    __bool__ = __str__ = __repr__ = __format__ = __hash__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __len__ = __iter__ = __contains__ = __getitem__ = __call__ = __int__ = __float__ = __index__ = _refuse
    __add__ = __radd__ = __mod__ = __rmod__ = _refuse


class _ViewerRequest(_ViewerValue):
    """The stand-in for ``context.request``. ``{% url %}`` asks it for the page's url namespace, and needs none."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name in ("current_app", "resolver_match"):
            raise AttributeError(name)
        return super().__getattr__(name)


class _ProcessorNames(dict[str, Any]):
    """The lowest level of a template's context: stand-ins for the names that context processors set."""

    def __init__(self, processors: Iterable[str], noted: _Noted, token: str) -> None:
        self.processors: _Processors = _processors(tuple(processors))
        super().__init__((name, _ViewerValue(name, "", noted)) for name in VIEWER_NAMES)
        for name, path in self.processors.of_viewers.items():
            if name not in self:
                self[name] = _ViewerValue(name, f" (of the context processor {path})", noted)
        self["csrf_token"] = token
        self["csrf_input"] = mark_safe('<input type="hidden" name="csrfmiddlewaretoken" value="">')


class _SharedContext(Context):
    """A context that notes each lookup of a refused name. Values that the site's context processors return without
    reading the request are the same for all viewers, and can be used."""

    def __init__(self, given: _ProcessorNames, noted: _Noted, *, autoescape: bool) -> None:
        super().__init__(given, autoescape=autoescape)
        self.given: _ProcessorNames | None = given
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
                self.noted.setdefault(name, f" (not in its context; {path} may give it)")
            raise
        if type(value) is _ViewerValue:
            value.note()
        return value

    # Django's versions of these methods do not call __getitem__().

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
            values.setdefault(name, _ViewerValue(name, source, self.noted))
        if processors.unknown:
            _ViewerValue("flatten()", f" ({processors.unknown[0]} may give more)", self.noted).note()
        return values

    @property
    def request(self) -> _ViewerRequest:
        return _ViewerRequest("request", "", self.noted)

    def new(self, values: Any = None) -> _SharedContext:
        """The context of ``{% include … only %}`` and of inclusion tags, which has no names of context processors."""
        context: Any = super().new(values)
        context.given = None
        return context  # type: ignore[no-any-return]


class _WatchedRequest(HttpRequest):
    """A request of no visitor, to try context processors with. ``touch``: called at each access to an attribute, since
    what is made of the request differs from viewer to viewer."""

    def __init__(self, touch: Callable[[], None]) -> None:
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
    """The names that the site's context processors set. Each processor is called once, to learn whether it reads the
    request; again at the next rendering, if it failed before it did."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        # Each name with the path of its processor.
        self.of_everybody: dict[str, str] = {}  # from processors that do not read the request
        self.of_viewers: dict[str, str] = {}  # from processors that do
        self.suspicious: dict[str, str] = {}  # names that a processor which reads the request may set for some visitors
        self.unknown: list[str] = []  # paths of processors whose names only a real request would show
        self.is_whole: bool = True  # False: one failed without the request's part, as where its database was away
        for path in paths:
            touches: list[bool] = []
            try:
                with undone_if_it_fails():
                    self._try(path, touches)
            except Exception:
                self.unknown.append(path)
                self.is_whole = self.is_whole and bool(touches)

    def _try(self, path: str, touches: list[bool]) -> None:
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
                self.of_viewers[name] = path

    def may_give(self, name: Any) -> str | None:
        """The path of a processor that may set this name for some visitors."""
        return self.suspicious.get(name) or (self.unknown[0] if self.unknown else None)

    def value(self, name: str, noted: _Noted) -> Any:
        path = self.of_everybody[name]
        # A lazy value may read the request only when it is drawn.
        request = _WatchedRequest(lambda: noted.update({name: f" (of the context processor {path})"}))
        return import_string(path)(request)[name]


def _words(function: Any) -> set[str]:
    """The string constants in a function's code that could be names. The names that it sets for some requests only are
    among them."""
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
def _tried(paths: tuple[str, ...]) -> _Processors:
    return _Processors(paths)


def _processors(paths: tuple[str, ...]) -> _Processors:
    found = _tried(paths)
    if not found.is_whole:
        _tried.cache_clear()  # the next rendering tries again
    return found
