"""The SSE_LIVE setting: its defaults, its validation, and the one place where it is read.

Nothing here knows what the values are used for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from json import JSONEncoder
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.core.signals import setting_changed
from django.utils.module_loading import import_string

SECRET_MIN_LENGTH = 16
MEMORY_BACKEND = "django_sse_live.backends.memory.MemoryBackend"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """The validated values of ``settings.SSE_LIVE``; each key there is an attribute here, in small letters."""

    backend: str = MEMORY_BACKEND  # dotted path of the bus between workers, as in CACHES
    options: Mapping[str, Any] = field(default_factory=dict)  # given to the backend; it says which it knows
    heartbeat_seconds: float = 30  # every client hears one this often, unless it asks for another interval …
    heartbeat_min_seconds: float = 5  # … which is held between these two
    heartbeat_max_seconds: float = 120
    retry_ms: int = 2000  # the browser's first wait before it reconnects
    history_events: int = 10_000  # a worker's log ends at whichever of the three bounds is reached first
    history_seconds: float = 600
    history_bytes: int = 16 * 1024 * 1024
    max_clients: int = 20_000  # open streams per worker
    max_clients_per_user: int | None = 20  # per worker; None is no limit
    max_clients_per_address: int | None = None  # per worker; behind a proxy, of use only with PROXY_COUNT
    proxy_count: int = 0  # proxies that each append to X-Forwarded-For; 0: the address is the connection's own
    max_channels: int = 50  # per stream
    max_opening: int = 64  # streams inside Django's request handling at once; each takes a thread for that moment
    send_timeout_seconds: float = 30  # a send that hangs this long ends the stream
    max_age_seconds: float | None = 3600  # a stream older than this (±10 %) is told goodbye and resumes; None for never
    public_channels: tuple[str, ...] = ()  # fnmatchcase patterns of channels that anyone may name in ?channel=
    authorize: Callable[..., Any] | None = None  # (request, channel) -> bool, sync or async; a dotted path is imported
    token_max_age_seconds: float = 86_400  # life of a signed subscription
    allowed_origins: tuple[str, ...] = ()  # CORS, with credentials, for streams read from other origins
    json_encoder: type[JSONEncoder] = DjangoJSONEncoder  # a dotted path is imported
    status_token: str | None = None  # "Authorization: Bearer …" with it opens the status page to who is not staff
    # Of clients that come, that go, that fail, and of broadcasts; the rest of a second is summed up. None: no limit.
    log_lines_per_second: int | None = 100
    presence_channels: tuple[str, ...] = ()  # fnmatchcase patterns of the channels whose users are known: presence()
    presence_seconds: float = 10  # workers say so often that they live; one that is silent three times as long is dead
    presence_grace_seconds: float = 5  # who comes back within this time has not left


def _refuse(key: str, value: object, wanted: str) -> ImproperlyConfigured:
    return ImproperlyConfigured(f'SSE_LIVE["{key}"] is {value!r}; it must be {wanted}.')


def _number(minimum: float, *, whole: bool = False, optional: bool = False) -> Callable[[str, Any], Any]:
    wanted = f"a {'whole ' if whole else ''}number of at least {minimum:g}" + (" or None" if optional else "")
    kinds = (int,) if whole else (int, float)

    def check(key: str, value: Any) -> Any:
        if value is None and optional:
            return None
        if isinstance(value, bool) or not isinstance(value, kinds) or not minimum <= value < float("inf"):
            raise _refuse(key, value, wanted)
        return value

    return check


def _strings(example: str) -> Callable[[str, Any], tuple[str, ...]]:
    def check(key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, (list, tuple, set)) or not all(isinstance(item, str) and item for item in value):
            raise _refuse(key, value, f'a list of strings, such as ["{example}"]')
        return tuple(value)

    return check


def _dotted_path(key: str, value: Any) -> str:
    if not isinstance(value, str) or "." not in value:
        raise _refuse(key, value, f'a dotted path such as "{MEMORY_BACKEND}"')
    return value


def _options(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(key, value, "a dict")
    return value


def _imported(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return import_string(value)
    except ImportError as error:
        raise ImproperlyConfigured(f'SSE_LIVE["{key}"] is {value!r}, which cannot be imported: {error}') from error


def _authorize(key: str, value: Any) -> Callable[..., Any] | None:
    value = _imported(key, value)
    if value is not None and not callable(value):
        raise _refuse(
            key, value, 'None, a callable (request, channel) -> bool, or its dotted path "app.module.function"'
        )
    return value  # type: ignore[no-any-return]


def _json_encoder(key: str, value: Any) -> type[JSONEncoder]:
    value = _imported(key, value)
    if not (isinstance(value, type) and issubclass(value, JSONEncoder)):
        raise _refuse(key, value, "the dotted path of a subclass of json.JSONEncoder")
    return value


def _secret(key: str, value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and len(value) >= SECRET_MIN_LENGTH and value.isascii()):
        # Its value is nobody's business, also in a log.
        raise ImproperlyConfigured(
            f'SSE_LIVE["{key}"] must be None or a secret of at least {SECRET_MIN_LENGTH} ASCII characters, such as '
            'python -c "import secrets; print(secrets.token_urlsafe())" prints.'
        )
    return value


_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?")


def _origins(key: str, value: Any) -> tuple[str, ...]:
    origins = _strings("https://app.example.com")(key, value)
    for origin in origins:
        usual_port = ":443" if origin.startswith("https:") else ":80"
        if not _ORIGIN.fullmatch(origin) or origin.endswith(usual_port):
            raise _refuse(
                key,
                value,
                'a list of origins as browsers write them, each "https://host" or "https://host:port", in small '
                "letters, without the scheme's usual port, a path or *",
            )
    return origins


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "BACKEND": _dotted_path,
    "OPTIONS": _options,
    "HEARTBEAT_SECONDS": _number(0.1),
    "HEARTBEAT_MIN_SECONDS": _number(0.1),
    "HEARTBEAT_MAX_SECONDS": _number(0.1),
    "RETRY_MS": _number(1, whole=True),
    "HISTORY_EVENTS": _number(1, whole=True),
    "HISTORY_SECONDS": _number(0),
    "HISTORY_BYTES": _number(1024, whole=True),
    "MAX_CLIENTS": _number(0, whole=True),
    "MAX_CLIENTS_PER_USER": _number(1, whole=True, optional=True),
    "MAX_CLIENTS_PER_ADDRESS": _number(1, whole=True, optional=True),
    "PROXY_COUNT": _number(0, whole=True),
    "MAX_CHANNELS": _number(1, whole=True),
    "MAX_OPENING": _number(1, whole=True),
    "SEND_TIMEOUT_SECONDS": _number(0.1),
    "MAX_AGE_SECONDS": _number(0.1, optional=True),
    "PUBLIC_CHANNELS": _strings("news"),
    "AUTHORIZE": _authorize,
    "TOKEN_MAX_AGE_SECONDS": _number(1),
    "ALLOWED_ORIGINS": _origins,
    "JSON_ENCODER": _json_encoder,
    "STATUS_TOKEN": _secret,
    "LOG_LINES_PER_SECOND": _number(1, whole=True, optional=True),
    "PRESENCE_CHANNELS": _strings("room.*"),
    "PRESENCE_SECONDS": _number(0.1),
    "PRESENCE_GRACE_SECONDS": _number(0),
}
assert {key.lower() for key in _CHECKS} == {f.name for f in fields(LiveSettings)}


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
        raise ImproperlyConfigured(
            f"SSE_LIVE has no key {', '.join(map(repr, unknown))}. The keys are: {', '.join(sorted(_CHECKS))}."
        )
    values = {key.lower(): _CHECKS[key](key, value) for key, value in given.items()}
    result = LiveSettings(**values)
    if result.heartbeat_min_seconds > result.heartbeat_max_seconds:
        raise _refuse("HEARTBEAT_MIN_SECONDS", result.heartbeat_min_seconds, "at most HEARTBEAT_MAX_SECONDS")
    return result


def _forget(*, setting: str, **_: Any) -> None:
    if setting == "SSE_LIVE":
        live_settings.cache_clear()


def connect() -> None:
    """Called once, when the app is ready."""
    setting_changed.connect(_forget, dispatch_uid="django_sse_live.conf")
