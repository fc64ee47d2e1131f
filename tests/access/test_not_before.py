"""get_not_before(): what was said before somebody came is not theirs, whatever id they bring."""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import path

from django_sse_live import abroadcast, stream_position
from django_sse_live.http.views import EventStreamView
from tests.visitors import Visitor

came_at: list[str | None] = []


class Room(EventStreamView):
    def get_not_before(self, request: HttpRequest) -> str | None:
        return came_at[-1]


class RoomAsync(EventStreamView):
    async def get_not_before(self, request: HttpRequest) -> str | None:
        return came_at[-1]


urlpatterns = [
    path("room/", Room.as_view(), {"channels": ["room"]}),
    path("room-async/", RoomAsync.as_view(), {"channels": ["room"]}),
]


@pytest.fixture(autouse=True)
def urls(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.access.test_not_before"


async def heard(url: str, last_id: str) -> list[Any]:
    """What a client with that id hears up to a last event; its resets by name."""
    async with Visitor(url).listen(last_event_id=last_id) as stream:
        await stream.next()
        await abroadcast("room", "said", "last")
        found: list[Any] = []
        while "last" not in found:
            message = await stream.next()
            found.append(message.json if message.type == "said" else message.type)
        return found


@pytest.mark.parametrize("url", ["/room/", "/room-async/"])
async def test_an_older_id_leads_to_where_the_member_came(url: str) -> None:
    invented = stream_position()
    await abroadcast("room", "said", "before")
    came_at.append(stream_position())
    await abroadcast("room", "said", "after")
    assert await heard(url, invented) == ["after", "last"]


async def test_a_newer_id_is_the_member_s_own() -> None:
    came_at.append(stream_position())
    await abroadcast("room", "said", "heard")
    own = stream_position()
    await abroadcast("room", "said", "missed")
    assert await heard("/room/", own) == ["missed", "last"]


async def test_none_is_no_bound() -> None:
    came_at.append(None)
    before = stream_position()
    await abroadcast("room", "said", "before")
    assert await heard("/room/", before) == ["before", "last"]


async def test_a_bound_of_another_epoch_bounds_nothing() -> None:
    came_at.append("elsewhere:1764150000000-0")
    before = stream_position()
    await abroadcast("room", "said", "before")
    assert await heard("/room/", before) == ["before", "last"]
    assert (await heard("/room/", "elsewhere:1-0"))[0] == "reset"


async def test_what_is_no_id_lets_nobody_in() -> None:
    came_at.append("yesterday")
    with pytest.raises(ValueError, match="stream_position"):
        await Visitor("/room/").ask()
