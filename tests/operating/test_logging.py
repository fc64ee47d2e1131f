"""What the log lines say to programs, and that a storm does not flood the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from django_sse_live import abroadcast, disconnect_clients
from django_sse_live.hub.hub import Hub
from tests.hub.conftest import until
from tests.operating.conftest import Connect


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "django_sse_live")


async def test_each_line_says_what_it_is_about_in_attributes(
    hub: Hub, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    reader = connect("a", "b", user_pk="7", address="10.0.0.9")
    await until(lambda: reader.client.is_open)
    await abroadcast("a", "tick")
    await until(lambda: reader.client.events_sent == 1)
    disconnect_clients(user=7)
    await reader.done()
    connected, broadcast, disconnected = (vars(record) for record in caplog.records)
    for line in (connected, disconnected):
        assert line["client_id"] == reader.client.id and line["user_pk"] == "7"
        assert line["address"] == "10.0.0.9" and line["channels"] == ("a", "b")
    assert disconnected["reason"] == "disconnected" and disconnected["events_sent"] == 1
    assert broadcast["event_type"] == "tick" and broadcast["channels"] == ("a",) and broadcast["client_count"] == 1
    assert broadcast["event_id"].startswith(hub.log.epoch)


async def test_a_storm_is_summed_up(
    hub: Hub, connect: Connect, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.SSE_LIVE = {"LOG_LINES_PER_SECOND": 3}
    for _ in range(10):
        connect("a")
    await until(lambda: len(hub.clients) == 10)
    assert [message.endswith(f"Total clients: {number}") for number, message in enumerate(caplog.messages, 1)] == [
        True
    ] * 3
    await until(lambda: len(caplog.messages) == 4)
    assert caplog.messages[3] == "7 more SSE clients connected within a second. Total clients: 10"
    connect("a")
    await until(lambda: len(caplog.messages) == 5)
    assert caplog.messages[4].endswith("Total clients: 11")


async def test_the_kinds_do_not_hold_each_other_back(
    hub: Hub, connect: Connect, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.SSE_LIVE = {"LOG_LINES_PER_SECOND": 1}
    readers = [connect("a"), connect("a")]
    await until(lambda: len(hub.clients) == 2)
    await readers[0].leave()
    await abroadcast("a", "tick")
    await until(lambda: readers[1].client.events_sent == 1)
    await until(lambda: len(caplog.messages) == 4)
    assert [message.split(" (")[0] for message in caplog.messages] == [
        "SSE client connected",
        "SSE client disconnected",
        "Broadcasted to 1 SSE clients: tick",
        "1 more SSE clients connected within a second. Total clients: 1",
    ]


async def test_streams_that_fail_are_summed_up_too_and_as_errors(
    hub: Hub, connect: Connect, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.SSE_LIVE = {"LOG_LINES_PER_SECOND": 1}
    caplog.set_level(logging.ERROR, "django_sse_live")
    reader = connect("a", user_pk="7")
    for _ in range(3):
        try:
            raise ValueError("of the server's own")
        except ValueError:
            hub.notices.failed(reader.client)
    await until(lambda: len(caplog.records) == 2)
    failed, summary = caplog.records
    assert failed.exc_info and vars(failed)["client_id"] == reader.client.id and vars(failed)["user_pk"] == "7"
    assert summary.getMessage().startswith("2 more streams of SSE clients failed within a second.")
    assert failed.levelno == summary.levelno == logging.ERROR


async def test_clients_that_do_not_read_are_summed_up_too(
    hub: Hub, connect: Connect, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    settings.SSE_LIVE = {"LOG_LINES_PER_SECOND": 1}
    readers = [connect("a", user_pk=str(number)) for number in range(5)]
    await until(lambda: len(hub.clients) == 5)
    for reader in readers:
        hub.cut_off(reader.client)
        hub.notices.unread(reader.client, 5.0)
    await until(lambda: sum("within a second" in message for message in caplog.messages) == 4)
    about = [vars(record) for record in caplog.records if "read" in record.getMessage()]
    assert [line["message"].partition(": its")[0] for line in about] == [
        f"SSE client {readers[0].client.id} has not read for 30 s",
        f"What SSE client {readers[0].client.id} missed was not read in 5 s.",
        "4 more SSE clients that do not read within a second. Total clients: 0",
        "4 more SSE clients whose missed events were not read within a second. Total clients: 0",
    ]
    assert about[0]["reason"] == "send_timeout" and about[0]["user_pk"] == about[1]["user_pk"] == "0"
