"""The status and health views, and the reports behind them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import RequestFactory

from django_sse_live import abroadcast
from django_sse_live.http.status import HealthView
from django_sse_live.hub.hub import Hub
from django_sse_live.workers import REPORT_SLICE_CLIENTS, matches, totals, worker_of
from tests.clients import make_client
from tests.hub.conftest import until
from tests.operating.conftest import Connect
from tests.visitors import Visitor

TOKEN = "a-token-of-some-length"


async def get_json(visitor: Visitor, path: str, **headers: str) -> tuple[int, Any]:
    response = await visitor.get(path, headers=headers)
    return response.status_code, json.loads(response.content)


async def test_health_is_200_and_tells_nothing(visitor: Visitor) -> None:
    assert await get_json(visitor, "/events/health/") == (200, {"status": "ok"})


async def test_health_is_503_while_the_worker_shuts_down(visitor: Visitor, hub: Hub) -> None:
    hub.shut_down()
    assert await get_json(visitor, "/events/health/") == (503, {"status": "stopping"})


async def test_health_is_503_until_the_bus_was_reached_once(
    visitor: Visitor, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_sse_live.http.status.HEALTH_SECONDS", 0.01)
    hub.begin_filling()
    assert await get_json(visitor, "/events/health/") == (503, {"status": "starting"})
    hub.adopt(hub.log)
    assert (await get_json(visitor, "/events/health/"))[0] == 200


async def test_an_outage_after_that_takes_no_worker_out_of_service(
    visitor: Visitor, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_sse_live.backends.memory.MemoryBackend.is_available", False)
    assert await get_json(visitor, "/events/health/") == (200, {"status": "degraded"})


async def test_a_worker_that_speaks_wsgi_has_no_streams_and_says_so() -> None:
    assert (await HealthView.as_view()(RequestFactory().get("/"))).status_code == 501


@pytest.mark.parametrize("header", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer", "Bearer None"])
async def test_status_is_not_for_everyone(visitor: Visitor, settings: Any, header: str) -> None:
    settings.SSE_LIVE = {"STATUS_TOKEN": TOKEN}
    status, body = await get_json(visitor, "/events/status/", authorization=header)
    assert status == 403 and body["error"] == "forbidden"


async def test_without_a_token_in_the_settings_none_opens_it(visitor: Visitor) -> None:
    for bearer in ("", "None"):
        assert (await get_json(visitor, "/events/status/", authorization=f"Bearer {bearer}"))[0] == 403


async def test_status_for_who_has_the_token(visitor: Visitor, settings: Any, hub: Hub, connect: Connect) -> None:
    settings.SSE_LIVE = {"STATUS_TOKEN": TOKEN}
    connect("a")
    await until(lambda: len(hub.clients) == 1)
    status, body = await get_json(visitor, "/events/status/", authorization=f"Bearer {TOKEN}")
    assert status == 200 and body["worker"] == hub.id
    (worker,) = body["workers"]
    assert worker["id"] == hub.id and worker["state"] == "ready" and worker["streams"] == 1
    assert body["total"]["streams"] == 1
    assert worker["matches"] == []  # addresses and users are for the admin


async def test_a_cache_of_the_whole_site_keeps_neither(visitor: Visitor, settings: Any, hub: Hub) -> None:
    settings.SSE_LIVE = {"STATUS_TOKEN": TOKEN}
    of_cache = "django.middleware.cache."
    settings.MIDDLEWARE = [f"{of_cache}UpdateCacheMiddleware", f"{of_cache}FetchFromCacheMiddleware"]
    for path in ("/events/health/", "/events/status/"):
        response = await visitor.get(path, headers={"authorization": f"Bearer {TOKEN}"})
        assert response.status_code == 200
        # Django keeps nothing that is private, and until a later release of 5.2 it kept everything else.
        assert "private" in response["Cache-Control"]
    hub.shut_down()
    assert (await visitor.get("/events/health/")).status_code == 503
    assert (await visitor.get("/events/status/")).status_code == 403


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("is_staff", "expected"), [(True, 200), (False, 403)])
async def test_status_for_staff(visitor: Visitor, is_staff: bool, expected: int) -> None:
    user = await get_user_model().objects.acreate(username="ada", is_staff=is_staff)
    await visitor.aforce_login(user)
    assert (await get_json(visitor, "/events/status/"))[0] == expected


def test_a_status_token_must_be_hard_to_guess_and_is_never_shown(settings: Any) -> None:
    from django.core.exceptions import ImproperlyConfigured

    from django_sse_live.conf import live_settings

    settings.SSE_LIVE = {}
    with pytest.raises(ImproperlyConfigured, match="at least 16") as caught:
        settings.SSE_LIVE = {"STATUS_TOKEN": "short"}
        live_settings()
    assert "'short'" not in str(caught.value)


async def test_a_report_tells_of_each_stream(hub: Hub, connect: Connect) -> None:
    reader = connect("a", "b", user_pk="7", address="10.0.0.9", user_agent="curl")
    await until(lambda: len(hub.clients) == 1)
    await abroadcast("a", "new_comment", {})
    await until(lambda: reader.client.events_sent == 1)
    (report,) = await worker_of(hub).gather(limit=10)
    (stream,) = report["matches"]
    assert (stream["id"], stream["user"], stream["address"]) == (reader.client.id, "7", "10.0.0.9")
    assert stream["channels"] == ["a", "b"] and stream["more_channels"] == 0
    assert stream["last"]["type"] == "new_comment" and stream["events"] == 1 and stream["lag"] == 0
    assert stream["bytes"] == reader.client.bytes_sent


async def test_lag_is_what_has_not_been_read(hub: Hub, connect: Connect) -> None:
    reader = connect("a")
    await until(lambda: len(hub.clients) == 1 and reader.client.is_waiting)
    reader.stop_reading()
    begin = hub.log.head
    for _ in range(4):
        await abroadcast(["a", "b"], "tick")
        await until(lambda: bool(reader.client.events_sent))
    await until(lambda: hub.log.count(["a"], begin) == 4)
    (report,) = await worker_of(hub).gather(limit=1)
    assert report["matches"][0]["lag"] == 3 and report["lagging"] == 0  # not long enough
    hub.heartbeat.now += 2
    assert hub.lagging == 1
    reader.go_on_reading()
    await until(lambda: reader.client.events_sent == 4)


async def test_a_report_names_no_more_streams_than_it_is_asked_for(hub: Hub, connect: Connect) -> None:
    for number in range(5):
        connect("a", user_pk=str(number))
    await until(lambda: len(hub.clients) == 5)
    (report,) = await worker_of(hub).gather(limit=2)
    assert report["matching"] == 5 and len(report["matches"]) == 2


async def test_a_filter_that_is_too_long_is_cut_short_and_answered(hub: Hub) -> None:
    assert len(await worker_of(hub).gather("x" * 300, seconds=5)) == 1


@pytest.mark.parametrize(
    ("text", "does"),
    [
        *[("", True), ("10.0", True), ("ROOM.7", True), ("room curl", True), ("user:7", True), ("user:7 room", True)],
        *[("user:70", False), ("user:", False), ("room.8", False), ("room wget", False)],
    ],
)
async def test_filters(hub: Hub, connect: Connect, text: str, does: bool) -> None:
    client = connect("room.7", user_pk="7", address="10.0.0.9", user_agent="curl").client
    assert matches(client, text.casefold().split()) is does


async def test_the_sum_of_reports(hub: Hub, connect: Connect) -> None:
    report = await worker_of(hub).report()
    one = {**report, "streams": 2, "closed": {"client": 3}}
    two = {**report, "streams": 5, "closed": {"client": 1, "max_age": 2}}
    total = totals([one, two])
    assert total["streams"] == 7 and total["closed"] == {"client": 4, "max_age": 2}


async def test_reports_are_in_no_log_and_count_as_no_event(hub: Hub) -> None:
    before = len(hub.log), hub.counts.received
    await worker_of(hub).gather()
    assert (len(hub.log), hub.counts.received) == before


async def test_a_report_of_many_streams_is_made_in_slices(hub: Hub) -> None:
    clients = [make_client(hub, ("news", f"room.{number}"), address="10.0.0.1") for number in range(3_000)]
    for client in clients:
        client.open()
    making = asyncio.ensure_future(worker_of(hub).report("room.29", 10))
    turns = 0
    while not making.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns >= 3_000 // REPORT_SLICE_CLIENTS
    report = making.result()
    assert report["streams"] == 3_000 and report["matching"] == 111 and len(report["matches"]) == 10
    for client in clients:
        client.leave()


async def test_questions_are_not_remembered_for_ever_where_nobody_watches(hub: Hub) -> None:
    worker = worker_of(hub)
    before = hub.loop.time
    try:
        for number in range(500):
            hub.loop.time = lambda number=number: before() + 10 * number
            worker._was_asked({"filter": f"f{number}", "limit": 0})
    finally:
        del hub.loop.time
    assert len(worker._asked_at) == 1
