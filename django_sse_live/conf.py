"""The SSE_LIVE setting: its defaults, its validation, and the one place where it is read.

Nothing here knows what the values are used for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from json import JSONEncoder
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

from .callables import takes

SECRET_MIN_LENGTH = 16
MEMORY_BACKEND = "django_sse_live.backends.memory.MemoryBackend"


def option_place(name: str) -> str:
    """How errors name one of the OPTIONS."""
    return f'SSE_LIVE["OPTIONS"]["{name}"]'


_PASSWORDS: Final = (
    re.compile(r"(?<=password=)[^&\s'\"]+", re.IGNORECASE),  # in a url's query
    re.compile(r"(?<=://).*(?=@)", re.DOTALL),
)


def without_passwords(value: object) -> str:
    """repr() of a bad value, without the passwords of urls in it: an error stands in logs and reports."""
    text = repr(value)
    for pattern in _PASSWORDS:
        text = pattern.sub("…", text)
    return text


def refuse(place: str, value: object, wanted: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f"{place} is {without_passwords(value)}; it must be {wanted}.")


def number(minimum: float, *, whole: bool = False, optional: bool = False) -> Callable[[str, Any], Any]:
    wanted = f"a {'whole ' if whole else ''}number of at least {minimum:g}" + (" or None" if optional else "")
    kinds = (int,) if whole else (int, float)

    def check(place: str, value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, kinds) or not minimum <= value < float("inf"):
            raise refuse(place, value, wanted)
        return value

    return check


def _strings(example: str) -> Callable[[str, Any], tuple[str, ...]]:
    def check(place: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set)) or not all(isinstance(item, str) and item for item in value):
            raise refuse(place, value, f'a list of strings, such as ["{example}"]')
        return tuple(value)

    return check


_DOTTED_PATH = re.compile(r"\w+(\.\w+)+")


def _dotted_path(place: str, value: Any) -> str:
    if not isinstance(value, str) or not _DOTTED_PATH.fullmatch(value):
        raise refuse(place, value, f'a dotted path such as "{MEMORY_BACKEND}"')
    return value


def _options(place: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise refuse(place, value, "a dict")
    return value


def _imported(place: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ImproperlyConfigured(f"{place} is {value!r}, which cannot be imported: {error}") from error


def _callable(*arguments: str, returns: str) -> Callable[[str, Any], Callable[..., Any] | None]:
    wanted = f'None, a callable ({", ".join(arguments)}) -> {returns}, or its dotted path "app.module.function"'

    def check(place: str, value: Any) -> Callable[..., Any] | None:
        value = _imported(place, value)
        if value is not None and not (callable(value) and takes(value, *arguments)):
            raise refuse(place, value, wanted)
        return value  # type: ignore[no-any-return]

    return check


def _cache_alias(place: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or value not in settings.CACHES):
        raise refuse(place, value, f"None, or one of the caches in CACHES: {', '.join(settings.CACHES)}")
    return value


def truth(place: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise refuse(place, value, "True or False")
    return value


def _json_encoder(place: str, value: Any) -> type[JSONEncoder]:
    value = _imported(place, value)
    if not (isinstance(value, type) and issubclass(value, JSONEncoder)):
        raise refuse(place, value, "the dotted path of a subclass of json.JSONEncoder")
    return value


def _secret(place: str, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) >= SECRET_MIN_LENGTH and value.isascii()):
        # Its value must stand in no message and no log.
        raise ImproperlyConfigured(
            f"{place} must be None or a secret of at least {SECRET_MIN_LENGTH} ASCII characters, such as "
            'python -c "import secrets; print(secrets.token_urlsafe())" prints.'
        )
    return value


# An app of a phone or a browser has a scheme of its own: "capacitor://localhost".
_ORIGIN = re.compile(r"(?!ftp:|wss?:)[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")


def _origins(place: str, value: Any) -> tuple[str, ...]:
    origins = _strings("https://app.example.com")(place, value)
    for origin in origins:
        usual_port = ":443" if origin.startswith("https:") else ":80"
        if not _ORIGIN.fullmatch(origin) or origin.endswith(usual_port):
            raise refuse(
                place,
                value,
                'a list of origins as browsers write them, each "https://host" or "https://host:port", in small '
                "letters, without the scheme's usual port, a path or *",
            )
    return origins


def _setting(default: Any, check: Callable[[str, Any], Any]) -> Any:
    """A key of SSE_LIVE: its default, and what validates a given value: (place, value) -> the value in force."""
    factory = {"default_factory": lambda: default} if isinstance(default, dict) else {"default": default}
    return field(metadata={"check": check}, **factory)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """The validated values of ``settings.SSE_LIVE``; each key there is an attribute here, in small letters."""

    backend: str = _setting(MEMORY_BACKEND, _dotted_path)  # dotted path of the bus between workers, as in CACHES
    options: Mapping[str, Any] = _setting({}, _options)  # given to the backend; it says which it knows
    # every client hears one this often, unless it asks for another interval …
    heartbeat_seconds: float = _setting(30, number(0.1))
    heartbeat_min_seconds: float = _setting(5, number(0.1))  # … which is held between these two
    heartbeat_max_seconds: float = _setting(120, number(0.1))
    retry_ms: int = _setting(2000, number(1, whole=True))  # the browser's first wait before it reconnects
    # pages that all fetch for one event spread that over so long for each: four times what drawing one takes, so that
    # a quarter of a core draws them and the rest is for other views
    refresh_cost_ms: int = _setting(30, number(0, whole=True))
    # a worker's log ends at whichever of the three bounds is reached first
    history_events: int = _setting(10_000, number(1, whole=True))
    history_seconds: float = _setting(600, number(0))
    history_bytes: int = _setting(16 * 1024 * 1024, number(1024, whole=True))
    # data and markup of one event, as UTF-8; a larger one is refused at the call
    event_max_bytes: int = _setting(1024 * 1024, number(1024, whole=True))
    max_clients: int = _setting(20_000, number(0, whole=True))  # open streams per worker
    # per worker; None is no limit
    max_clients_per_user: int | None = _setting(20, number(1, whole=True, optional=True))
    # per worker; behind a proxy, of use only with PROXY_COUNT
    max_clients_per_address: int | None = _setting(None, number(1, whole=True, optional=True))
    # proxies that each append to X-Forwarded-For; 0: the address is the connection's own
    proxy_count: int = _setting(0, number(0, whole=True))
    max_channels: int = _setting(50, number(1, whole=True))  # per stream, beside the user's own
    # streams inside Django's request handling at once; each takes a thread for that moment
    max_opening: int = _setting(64, number(1, whole=True))
    send_timeout_seconds: float = _setting(30, number(0.1))  # a send that hangs this long ends the stream
    # a stream older than this (±10 %) is told goodbye and resumes; None for never
    max_age_seconds: float | None = _setting(3600, number(0.1, optional=True))
    # fnmatchcase patterns of channels that anyone may name in ?channel=
    public_channels: tuple[str, ...] = _setting((), _strings("news"))
    # (request, channel) -> bool, sync or async; a dotted path is imported
    authorize: Callable[..., Any] | None = _setting(None, _callable("request", "channel", returns="bool"))
    # (request, or None where something is published) -> str: the tenant; a dotted path is imported
    namespace: Callable[..., Any] | None = _setting(None, _callable("request or None", returns="str"))
    # with NAMESPACE: a primary key is the same user in every namespace, for limits, disconnects and revocations
    shared_users: bool = _setting(False, truth)
    token_max_age_seconds: float = _setting(86_400, number(1))  # life of a signed subscription
    tickets: bool = _setting(True, truth)  # a stream that breaks goes on without new checks, as long as it would have
    # CORS, with credentials, for streams read from other origins
    allowed_origins: tuple[str, ...] = _setting((), _origins)
    json_encoder: type[JSONEncoder] = _setting(DjangoJSONEncoder, _json_encoder)  # a dotted path is imported
    # alias in CACHES: which messages have run, for all workers; None: a table of each process
    messages_cache: str | None = _setting(None, _cache_alias)
    # alias in CACHES: the state of jobs, for all processes; None: the default one
    jobs_cache: str | None = _setting(None, _cache_alias)
    job_text_max_bytes: int = _setting(256 * 1024, number(1, whole=True))  # of one job, as UTF-8
    max_running_messages: int = _setting(64, number(1, whole=True))  # handlers of messages at once, per worker
    # bearer token that opens the status page to users who are not staff
    status_token: str | None = _setting(None, _secret)
    # Of each kind: clients that come, go, fail or do not read, broadcasts. The rest of a second is one line. None: no
    # limit.
    log_lines_per_second: int | None = _setting(100, number(1, whole=True, optional=True))
    # fnmatchcase patterns of the channels whose users are known: presence()
    presence_channels: tuple[str, ...] = _setting((), _strings("room.*"))
    # workers say so often that they live; one that is silent three times as long is dead
    presence_seconds: float = _setting(10, number(0.1))
    presence_grace_seconds: float = _setting(5, number(0))  # who comes back within this time has not left


_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    setting.name.upper(): setting.metadata["check"] for setting in fields(LiveSettings)
}


@cache
def live_settings() -> LiveSettings:
    """The values in force. Cached until ``setting_changed`` says that SSE_LIVE is another (``override_settings``).

    Raises ImproperlyConfigured, naming the key, for one that is unknown or has a bad value.
    """
    given = getattr(settings, "SSE_LIVE", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f"SSE_LIVE must be a dict, not {type(given).__name__}.")
    unknown = sorted(str(key) for key in given.keys() - _CHECKS.keys())
    if unknown:
        near = sorted({key for name in unknown for key in get_close_matches(name.upper(), _CHECKS, 1)})
        hint = f"Did you mean {', '.join(near)}?" if near else f"The keys are: {', '.join(sorted(_CHECKS))}."
        raise ImproperlyConfigured(f"SSE_LIVE has no key {', '.join(map(repr, unknown))}. {hint}")
    values = {key.lower(): _CHECKS[key](f'SSE_LIVE["{key}"]', value) for key, value in given.items()}
    result = LiveSettings(**values)
    if result.heartbeat_min_seconds > result.heartbeat_max_seconds:
        raise refuse('SSE_LIVE["HEARTBEAT_MIN_SECONDS"]', result.heartbeat_min_seconds, "at most HEARTBEAT_MAX_SECONDS")
    return result


def management_command() -> str | None:
    """The command's name in a process of manage.py or django-admin; None in a server, a worker or a run of pytest."""
    program, *arguments = [*sys.argv, ""]
    path = Path(program)
    is_django = path.name in ("manage.py", "django-admin") or path.parts[-2:] == ("django", "__main__.py")
    return arguments[0] if is_django and arguments else None


def is_test_run() -> bool:
    """Whether django.test.utils.setup_test_environment() was called, as every test runner does."""
    return hasattr(mail, "outbox")


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SSE_LIVE":
        live_settings.cache_clear()


def connect() -> None:
    """Called once, when the app is ready."""
    setting_changed.connect(_forget, dispatch_uid="django_sse_live.conf")
