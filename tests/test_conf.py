"""SSE_LIVE: an unknown key or a bad value fails, with a message that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.test import override_settings

from django_sse_live.backends import get_backend
from django_sse_live.conf import LiveSettings, live_settings


def test_the_defaults_are_those_of_the_documentation() -> None:
    settings = live_settings()
    assert settings == LiveSettings()
    assert settings.heartbeat_seconds == 30
    assert settings.retry_ms == 2000
    assert (settings.history_events, settings.history_seconds, settings.history_bytes) == (10_000, 600, 16 * 2**20)
    assert (settings.max_clients, settings.max_clients_per_user, settings.max_clients_per_address) == (20_000, 20, None)
    assert (settings.max_channels, settings.max_opening) == (50, 64)
    assert (settings.send_timeout_seconds, settings.max_age_seconds) == (30, 3600)
    assert settings.token_max_age_seconds == 86_400
    assert settings.json_encoder is DjangoJSONEncoder


def test_override_settings_works_and_ends() -> None:
    with override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 5}):
        assert live_settings().heartbeat_seconds == 5
    assert live_settings().heartbeat_seconds == 30


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("HEARTBEAT_SECONDS", 0),
        ("HEARTBEAT_SECONDS", "30"),
        ("HEARTBEAT_SECONDS", True),
        ("HEARTBEAT_SECONDS", float("inf")),
        ("RETRY_MS", 1.5),
        ("HISTORY_EVENTS", 0),
        ("MAX_CLIENTS", None),
        ("MAX_CLIENTS_PER_USER", 0),
        ("MAX_AGE_SECONDS", -1),
        ("PUBLIC_CHANNELS", "news"),
        ("PUBLIC_CHANNELS", [7]),
        ("AUTHORIZE", 7),
        ("AUTHORIZE", "no.such.function"),
        ("AUTHORIZE", lambda request: True),
        ("NAMESPACE", 7),
        ("NAMESPACE", lambda: "a"),
        ("SHARED_USERS", 1),
        ("HEARTBEAT_MIN_SECONDS", 121),  # more than HEARTBEAT_MAX_SECONDS
        ("JSON_ENCODER", "django.http.HttpResponse"),
        ("ALLOWED_ORIGINS", ["*"]),
        ("ALLOWED_ORIGINS", ["https://example.com/path"]),
        ("BACKEND", "memory"),
        ("OPTIONS", []),
    ],
)
def test_a_bad_value_is_named(key: str, value: object) -> None:
    with override_settings(SSE_LIVE={key: value}), pytest.raises(ImproperlyConfigured, match=key):
        live_settings()


@pytest.mark.parametrize("key", ["BACKEND", "OPTIONS"])
def test_a_url_at_the_wrong_place_does_not_show_its_password(key: str) -> None:
    with override_settings(SSE_LIVE={key: "redis://:secret@redis.example:6379/0"}):
        with pytest.raises(ImproperlyConfigured, match=key) as error:
            get_backend()
    assert "secret" not in str(error.value)


def test_an_unknown_key_is_named_beside_those_there_are() -> None:
    with override_settings(SSE_LIVE={"HEARTBEET": 1}):
        with pytest.raises(ImproperlyConfigured, match=r"'HEARTBEET'.*HEARTBEAT_SECONDS"):
            live_settings()


def test_it_must_be_a_dict() -> None:
    with override_settings(SSE_LIVE=["BACKEND"]), pytest.raises(ImproperlyConfigured, match="must be a dict"):
        live_settings()


@pytest.mark.parametrize("path", ["no.such.Backend", "django.http.HttpResponse"])
def test_a_backend_that_is_none_is_named(path: str) -> None:
    with override_settings(SSE_LIVE={"BACKEND": path}), pytest.raises(ImproperlyConfigured, match=path):
        get_backend()


def test_an_option_that_the_backend_does_not_know_is_named() -> None:
    with override_settings(SSE_LIVE={"OPTIONS": {"URL": "redis://"}}):
        with pytest.raises(ImproperlyConfigured, match=r"'URL'.*MemoryBackend"):
            get_backend()


def test_another_heartbeat_keeps_the_backend_and_its_history() -> None:
    backend = get_backend()
    with override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 5}):
        assert get_backend() is backend


def test_a_callable_and_its_dotted_path_both_authorize() -> None:
    def authorize(request: Any, channel: str) -> bool:
        return True

    given: list[Callable[..., Any] | str] = [authorize, "tests.test_conf.allow"]
    for value in given:
        with override_settings(SSE_LIVE={"AUTHORIZE": value}):
            assert live_settings().authorize in (authorize, allow)


def allow(request: Any, channel: str) -> bool:
    return True
