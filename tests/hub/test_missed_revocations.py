"""A hub that begins its log anew may have missed a revocation: whose access ended in between does not go on hearing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_sse_live.events import make_position
from django_sse_live.hub import hub as hub_module
from django_sse_live.hub.clients import Client
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.recent_ends import Revocations
from tests.clients import make_client
from tests.live.harness import until


@pytest.fixture
async def hub() -> Hub:
    return Hub(asyncio.get_running_loop(), EventLog("e", head=10))


def opened(hub: Hub, **known: Any) -> Client:
    client = make_client(hub, **known)
    client.open()
    return client


async def adopted(hub: Hub, log: EventLog, revocations: Revocations | None) -> None:
    done = asyncio.Event()
    hub.deliver(lambda: hub.adopt(log, revocations))
    hub.deliver(lambda: done.set())
    await done.wait()


async def test_what_was_revoked_in_between_ends_that_users_streams_alone(hub: Hub) -> None:
    ada, eve = opened(hub, user_pk="1"), opened(hub, user_pk="2")
    back = opened(hub, user_pk="3")
    known = Revocations(5, [(9, {"user_pk": "3"}), (30, {"user_pk": "1"})])
    await adopted(hub, EventLog("e", head=40), known)
    assert ada.close_reason == "revoked"
    assert eve.is_open and eve.ends_at > hub.loop.time() + 60, "nothing was missed of others"
    assert back.is_open, "their revocation was obeyed before"
    for client in (ada, eve, back):
        client.leave()


@pytest.mark.parametrize(
    ("epoch", "revocations"),
    [("e", None), ("e", Revocations(30)), ("new", Revocations(5))],
    ids=["none are kept", "some are forgotten", "of another epoch"],
)
async def test_where_nobody_knows_them_everybody_is_checked_anew_soon(
    hub: Hub, epoch: str, revocations: Revocations | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [opened(hub, user_pk=str(n)) for n in range(20)]
    await adopted(hub, EventLog(epoch, head=40), revocations)
    assert all(client.is_open for client in clients), "not all at once"
    ends = [client.ends_at for client in clients]
    assert max(ends) <= hub.loop.time() + 60 and len(set(ends)) == 20
    await adopted(hub, EventLog(epoch, head=50), None)
    assert [client.ends_at for client in clients] == ends, "a second loss does not hurry them"
    monkeypatch.setattr(hub_module, "CHECK_AGAIN_SECONDS", 0.1)
    await adopted(hub, EventLog(epoch, head=60), None)
    await until(lambda: all(client.close_reason == "max_age" for client in clients))
    for client in clients:
        client.leave()


async def test_a_client_whose_checks_ran_meanwhile_is_checked_anew_if_it_may_be_concerned(hub: Hub) -> None:
    now = hub.loop.time()
    hub.set_clock(1_000_000)
    lately = make_position(1_000_000 - 500, 0)
    await adopted(hub, EventLog("e", head=lately + 9), Revocations(5, [(lately, {"user_pk": "1"})]))
    revoked = opened(hub, user_pk="1", checked_at=now - 2)
    other = opened(hub, user_pk="2", checked_at=now - 2)
    later = opened(hub, user_pk="1", checked_at=now - 0.1)
    after = opened(hub, user_pk="1", checked_at=hub.loop.time() + 0.001)
    assert revoked.ends_at <= hub.loop.time() + 60, "it was checked before it was revoked"
    for client in (other, later, after):
        assert client.ends_at > hub.loop.time() + 60
        client.leave()
    revoked.leave()


async def test_a_client_whose_checks_ran_while_some_were_lost_is_checked_anew_soon(hub: Hub) -> None:
    before = hub.loop.time()
    await adopted(hub, EventLog("new"), None)
    client, after = opened(hub, checked_at=before), opened(hub, checked_at=hub.loop.time() + 0.001)
    assert client.ends_at <= hub.loop.time() + 60 < after.ends_at
    for each in (client, after):
        each.leave()


async def test_on_a_bus_that_keeps_none_a_new_worker_lets_in_who_waited_for_it(hub: Hub) -> None:
    hub.begin_filling()
    before = hub.loop.time()
    await adopted(hub, EventLog("new"), None)
    client = opened(hub, checked_at=before)
    assert client.ends_at > hub.loop.time() + 60
    client.leave()
