"""The stream that a request gets: its headers, its first frames, and where it begins."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from django_sse_live import abroadcast, adisconnect_clients, asend_to_user, sign_channels, stream_position
from tests.visitors import Visitor

# Django never closes a connection to a database in memory, also not when its thread ends.
pytestmark = pytest.mark.filterwarnings("error", "ignore:Exception ignored (in|while).*<sqlite3.Connection")


async def test_the_five_headers(visitor: Visitor) -> None:
    async with visitor.listen("channel=news") as stream:
        headers = stream.response.headers
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-cache, no-store, must-revalidate, no-transform"
    assert headers["Connection"] == "keep-alive"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Keep-Alive"] == "timeout=30, max=100"
    assert "Content-Encoding" not in headers
    assert "Content-Length" not in headers


@pytest.mark.parametrize("version", ["1.0", "2", "3"])
async def test_headers_of_one_connection_are_for_http_1_1_alone(version: str) -> None:
    async with Visitor(scope={"http_version": version}).listen("channel=news") as stream:
        headers = stream.response.headers
    assert headers["X-Accel-Buffering"] == "no"
    assert "Connection" not in headers
    assert "Keep-Alive" not in headers


async def test_headers_of_one_stream_are_not_those_of_the_next(visitor: Visitor) -> None:
    async with visitor.listen("channel=news") as first:
        first.response["X-Mine"] = "1"
    async with visitor.listen("channel=news") as second:
        assert "X-Mine" not in second.response.headers


@override_settings(
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "django.middleware.http.ConditionalGetMiddleware"]
)
async def test_it_is_not_compressed(visitor: Visitor) -> None:
    async with visitor.listen("channel=news", accept_encoding="gzip") as stream:
        assert "Content-Encoding" not in stream.response.headers
        assert (await stream.next()).type == "connected"


async def test_the_first_frame_is_connected(visitor: Visitor) -> None:
    async with visitor.listen("channel=news&channel=post.1") as stream:
        connected = await stream.next()
    assert connected.type == "connected"
    assert connected.json == {
        "type": "connected",
        "client_id": connected.json["client_id"],
        "channels": ["news", "post.1"],
        "heartbeat": 30,
        "resumed": False,
        "token": None,
    }
    assert stream.retry_ms == 1500


async def test_then_events_as_they_come(visitor: Visitor) -> None:
    async with visitor.listen("channel=news") as stream:
        await stream.next()
        await abroadcast("other", "unheard", 0)
        await abroadcast("news", "headline", {"id": 7})
        event = await stream.next()
    assert (event.type, event.json) == ("headline", {"id": 7})
    assert event.id == stream_position()


async def test_the_envelope_form(visitor: Visitor) -> None:
    async with visitor.listen("channel=news&format=envelope") as stream:
        connected = await stream.next()
        await abroadcast("news", "headline", {"id": 7})
        event = await stream.next()
    assert (connected.type, connected.json["type"]) == ("message", "connected")
    assert (event.type, event.json) == ("message", {"type": "headline", "channels": ["news"], "data": {"id": 7}})


# What the first client reads of each frame. A page that is older than the server reads it still.
READ_BY_FIRST_CLIENT: dict[str, dict[str, type | tuple[type, ...]]] = {
    "connected": {"client_id": str, "channels": list, "heartbeat": (int, float), "resumed": bool, "token": str},
    "heartbeat": {"timestamp": str},
    "headline": {"channels": list, "data": dict},
    "reset": {"reason": str},
    "goodbye": {"reason": str, "reconnect": bool, "retry": int},
}


@override_settings(SSE_LIVE={"HEARTBEAT_SECONDS": 0.2, "HEARTBEAT_MIN_SECONDS": 0.1, "MAX_AGE_SECONDS": 2})
async def test_a_page_that_is_older_than_the_server_is_answered_in_the_terms_that_it_knows(visitor: Visitor) -> None:
    """Its request is the first client's: without `replaces`, `ticket` and what else came later."""
    frames: dict[str, Any] = {}
    ids: list[str] = []
    token, position = sign_channels(["news"]), stream_position()
    await abroadcast("news", "headline", {"id": 7})
    for id in (position, "0old:1-0"):  # resumed; reset
        async with visitor.listen(f"token={token}&format=envelope&last_event_id={id}") as stream:
            for message in await stream.rest():
                assert message.type == "message"
                frames.setdefault(message.json["type"], message.json)
                ids += [message.id] if message.id else []
    for type, members in READ_BY_FIRST_CLIENT.items():
        for name, kind in members.items():
            assert isinstance(frames[type].get(name), kind), (type, name, frames[type])
    assert all(re.fullmatch(r"[0-9a-z]+:\d+-\d+", id) for id in ids)
    assert (await visitor.ask(f"token={frames['connected']['token']}", "HEAD")).status_code == 200


@pytest.mark.parametrize(("asked", "given"), [("15", 15), ("7.5", 7.5), ("1", 5), ("100000", 120)])
async def test_the_heartbeat_asked_for_is_held_within_bounds(visitor: Visitor, asked: str, given: float) -> None:
    async with visitor.listen(f"channel=news&heartbeat={asked}") as stream:
        assert (await stream.next()).json["heartbeat"] == given


class TestWhereItBegins:
    """The id rules of the wire."""

    @pytest.mark.parametrize("by", ["header", "parameter"])
    async def test_it_resumes(self, visitor: Visitor, by: str) -> None:
        position = stream_position()
        await abroadcast("news", "missed", 1)
        await abroadcast("news", "missed", 2)
        async with self.resume(visitor, position, by) as stream:
            connected, *missed = await stream.take(3)
        assert connected.json["resumed"] is True
        assert connected.id is None
        assert [message.json for message in missed] == [1, 2]

    async def test_the_header_wins_over_the_parameter(self, visitor: Visitor) -> None:
        old = stream_position()
        await abroadcast("news", "seen", 1)
        new = stream_position()
        await abroadcast("news", "missed", 2)
        async with visitor.listen(f"channel=news&last_event_id={old}", last_event_id=new) as stream:
            assert [message.type for message in await stream.take(2)] == ["connected", "missed"]

    async def test_an_empty_id_is_none(self, visitor: Visitor) -> None:
        async with visitor.listen("channel=news&last_event_id=") as stream:
            assert (await stream.next()).id == stream_position()

    @pytest.mark.parametrize("by", ["header", "parameter"])
    @pytest.mark.parametrize(
        "id",
        [
            "x",
            "0",
            "5f3a",
            "5f3a:1-0",
            "0:1764150000000-0",
            "-1",
            "' OR 1=1",
            "a:1-99999999999999999999",
            "é",
            "x" * 5000,
            "{epoch}:999999999999999-0",
        ],
        ids=lambda id: id[:8],
    )
    async def test_an_id_that_means_nothing_here_opens_with_reset(self, visitor: Visitor, id: str, by: str) -> None:
        id = id.replace("{epoch}", stream_position().partition(":")[0])
        async with self.resume(visitor, id, by) as stream:
            connected, reset = await stream.take(2)
            await abroadcast("news", "headline", 1)
            event = await stream.next()
        assert (connected.type, connected.json["resumed"], connected.id) == ("connected", False, None)
        assert (reset.type, reset.json["reason"]) == ("reset", "unknown_id")
        assert reset.id
        assert event.json == 1

    def resume(self, visitor: Visitor, id: str, by: str) -> Any:
        if by == "header":
            return visitor.listen("channel=news", last_event_id=id)
        return visitor.listen(f"channel=news&last_event_id={id}")


class TestInitialEvents:
    async def test_they_come_between_connected_and_what_was_broadcast_meanwhile(self) -> None:
        async with Visitor("/snapshot/").listen() as stream:
            connected, snapshot, meanwhile = await stream.take(3)
        assert (connected.type, snapshot.type, meanwhile.type) == ("connected", "snapshot", "meanwhile")
        assert snapshot.json == {"channels": ["news"]}
        assert snapshot.id is None

    async def test_sync_and_several(self) -> None:
        async with Visitor("/snapshot-sync/").listen() as stream:
            _, *snapshots = await stream.take(3)
        assert [message.json for message in snapshots] == [1, "zwei\nzeilen"]

    async def test_in_the_envelope_form(self) -> None:
        async with Visitor("/snapshot-sync/").listen("format=envelope") as stream:
            _, snapshot = await stream.take(2)
        assert snapshot.json == {"type": "snapshot", "channels": ["news"], "data": 1}


class TestFixedChannels:
    @pytest.mark.parametrize(
        ("path", "channels"),
        [("/news/", ["news"]), ("/rooms/7/", ["room.7"]), ("/async/", ["from.async"])],
    )
    async def test_they_need_no_asking_and_no_permission(self, path: str, channels: list[str]) -> None:
        async with Visitor(path).listen() as stream:
            assert (await stream.next()).json["channels"] == channels

    async def test_others_may_be_asked_for_beside_them(self) -> None:
        async with Visitor("/rooms/7/").listen("channel=news") as stream:
            assert (await stream.next()).json["channels"] == ["room.7", "news"]


@pytest.mark.django_db(transaction=True)
class TestUsers:
    async def test_a_user_always_hears_their_own_channel(self, visitor: Visitor) -> None:
        user = await User.objects.acreate_user("ada")
        await visitor.aforce_login(user)
        async with visitor.listen() as alone, visitor.listen("channel=news") as beside:
            assert (await alone.next()).json["channels"] == [f"user:{user.pk}"]
            assert (await beside.next()).json["channels"] == ["news", f"user:{user.pk}"]
            await asend_to_user(user, "hello", 1)
            assert [(await stream.next()).type for stream in (alone, beside)] == ["hello", "hello"]


class TestGoodbye:
    async def test_a_final_goodbye_is_followed_by_204(self, visitor: Visitor) -> None:
        async with visitor.listen("channel=news") as stream:
            connected = await stream.next()
            await adisconnect_clients(client_id=connected.json["client_id"])
            (goodbye,) = await stream.rest()
        assert goodbye.json == {"type": "goodbye", "reason": "disconnected", "reconnect": False}
        last_id = stream.parser.last_event_id
        for method in ("GET", "HEAD"):
            response = await visitor.ask("channel=news", method, last_event_id=last_id)
            assert (response.status_code, response.content) == (204, b"")
        assert (await visitor.ask(f"channel=news&last_event_id={last_id}")).status_code == 204

    @override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["news"], "MAX_AGE_SECONDS": 0.1})
    async def test_an_old_stream_is_asked_to_come_back(self, visitor: Visitor) -> None:
        async with visitor.listen("channel=news") as stream:
            _, goodbye = await stream.rest()
        assert goodbye.json["reason"] == "max_age"
        assert goodbye.json["reconnect"] is True
        assert stream.retry_ms == goodbye.json["retry"] > 0
