"""Which caches may keep the answers."""

from __future__ import annotations

from typing import Any

import pytest

from django_sse_live.backends.memory import MemoryBackend
from django_sse_live.checks import check_messages_cache, check_settings

DJANGO = "django.core.cache.backends"


def _ids(settings: Any, backend: str, **options: Any) -> list[str | None]:
    settings.CACHES = {
        "default": {"BACKEND": f"{DJANGO}.locmem.LocMemCache"},
        "messages": {"BACKEND": f"{DJANGO}.{backend}", "LOCATION": "/tmp/x", "OPTIONS": options},
    }
    settings.SSE_LIVE = {"MESSAGES_CACHE": "messages"}
    return [message.id for message in check_messages_cache(None)]


@pytest.mark.parametrize("backend", ["dummy.DummyCache", "filebased.FileBasedCache"])
def test_caches_that_keep_nothing_or_write_what_they_have_read(settings: Any, backend: str) -> None:
    assert _ids(settings, backend) == ["sse_live.E007"]


def test_local_memory_beside_other_workers(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _ids(settings, "locmem.LocMemCache") == []
    monkeypatch.setattr(MemoryBackend, "reaches_other_processes", True)
    assert _ids(settings, "locmem.LocMemCache") == ["sse_live.E008"]


def test_a_database_cache_needs_room(settings: Any) -> None:
    assert _ids(settings, "db.DatabaseCache") == ["sse_live.W016"]
    for number in (None, "many", 9_999):  # Django takes 300 for what is no number
        assert _ids(settings, "db.DatabaseCache", MAX_ENTRIES=number) == ["sse_live.W016"]
    assert _ids(settings, "db.DatabaseCache", MAX_ENTRIES=100_000) == []
    assert _ids(settings, "db.DatabaseCache", MAX_ENTRIES="100000") == []


def test_nothing_to_check(settings: Any) -> None:
    settings.SSE_LIVE = {}
    assert check_messages_cache(None) == []


def test_an_alias_that_is_no_cache_is_named(settings: Any) -> None:
    settings.SSE_LIVE = {"MESSAGES_CACHE": "nowhere"}
    assert "nowhere" in check_settings(None)[0].msg and check_messages_cache(None) == []
