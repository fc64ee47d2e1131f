"""What was revoked is a row of the table, in the transaction that it tells of: a worker that begins later reads it."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async
from django.db import connections, transaction

from django_sse_live.database import reader
from django_sse_live.database.rows import NUMBER_MASK
from django_sse_live.events import DISCONNECT, REVOKE, Event, control_event
from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from tests.database.conftest import Make, event, hub_of, until


def revocation(**conditions: str) -> Event:
    return control_event(REVOKE, conditions)


ADA = ClientInfo(("a",), user_pk="1", auth="old")
EVE = ClientInfo(("a",), user_pk="2", auth="old")


def concerns(hub: Hub, info: ClientInfo, since: int) -> bool:
    assert hub.revocations is not None
    return hub.revocations.concern(info, since + 1)


async def told(backend: object, hub: Hub, *events: object) -> int:
    before = hub.log.head
    for each in events:
        await backend.apublish(each)  # type: ignore[attr-defined]
    last = event("last", "last")
    await backend.apublish(last)  # type: ignore[attr-defined]
    await until(lambda: hub.log.last_position("last") > before)
    return hub.log.head


async def test_who_begins_later_knows_them(make: Make) -> None:
    backend = make()
    hub = await hub_of(backend)
    before = await told(backend, hub)
    after = await told(backend, hub, revocation(user_pk="1", not_auth="new"))
    await told(backend, hub, *(event(number, "busy") for number in range(300)))
    for known in (hub, await hub_of(make())):
        assert concerns(known, ADA, before) and not concerns(known, ADA, after)
        assert not concerns(known, EVE, before)


async def test_after_trimming_what_is_older_is_not_known(make: Make, bus: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    before = await told(backend, hub, revocation(user_pk="1"))
    after = await told(backend, hub, event(1), event(2))
    await told(backend, hub, event(3))
    trimmed = (after - 1) & NUMBER_MASK
    position = "id" if connections[bus].vendor == "sqlite" else "position"

    def trim() -> None:
        with connections[bus].cursor() as cursor:
            cursor.execute(f"DELETE FROM sse_live_event WHERE {position} <= %s", [trimmed])
            cursor.execute("UPDATE sse_live_stream SET trimmed = %s", [trimmed])
        connections[bus].close()

    await sync_to_async(trim)()
    later = await hub_of(make())
    assert concerns(later, EVE, before) and not concerns(later, EVE, later.log.head)


async def test_another_epoch_ends_nobody_who_has_come_back_since(make: Make, bus: str) -> None:
    def begin_epoch() -> None:
        with connections[bus].cursor() as cursor:
            cursor.execute("UPDATE sse_live_stream SET epoch = 'another'")
        connections[bus].close()

    backend = make()
    hub = await hub_of(backend)
    await told(backend, hub, control_event(DISCONNECT, {"user_pk": "1"}))
    client = Client(hub, ADA)
    client.open()
    epoch = hub.log.epoch
    await sync_to_async(begin_epoch)()
    await until(lambda: hub.log.epoch != epoch)
    await told(backend, hub)
    assert client.is_open
    await told(backend, hub, control_event(DISCONNECT, {"user_pk": "1"}))
    await until(lambda: not client.is_open)


async def test_more_of_them_than_are_read(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "CONTROL_EVENTS_MAX", 3)
    backend = make()
    hub = await hub_of(backend)
    before = await told(backend, hub)
    middle = await told(backend, hub, *(revocation(user_pk=str(number)) for number in range(10, 15)))
    await told(backend, hub, revocation(user_pk="1"))
    later = await hub_of(make())
    assert concerns(later, EVE, before) and not concerns(later, EVE, middle)
    assert concerns(later, ADA, middle)


async def test_what_is_rolled_back_was_not_revoked(make: Make, bus: str) -> None:
    backend = make()
    hub = await hub_of(backend)
    before = await told(backend, hub)

    def revoke(user: str, commit: bool) -> None:
        with transaction.atomic(using=bus):
            after_commit = backend.enlist(revocation(user_pk=user), bus)
            assert after_commit is not None
            transaction.on_commit(after_commit, using=bus)
            transaction.set_rollback(not commit, using=bus)
        connections[bus].close()

    await sync_to_async(revoke)("1", True)
    await sync_to_async(revoke)("2", False)
    await told(backend, hub)
    for known in (hub, await hub_of(make())):
        assert concerns(known, ADA, before) and not concerns(known, EVE, before)
