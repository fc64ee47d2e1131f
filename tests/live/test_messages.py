"""Messages over POST, and what ends a WebSocket or keeps it out, on every server."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.live.access.test_across_workers import cookie_of_a_new_session
from tests.live.conftest import StartServer
from tests.live.harness import FOUR, Server
from tests.live.harness.sockets import Denied, Socket
from tests.live.test_sockets import SERVERS, numbers

JSON = {"Content-Type": "application/json"}


def refusals_of_django(line: str) -> bool:
    return line.startswith("WARNING django.")


async def post(server: Server, type: str, data: Any = None, *, id: str = "", **headers: str) -> tuple[int, Any]:
    body = json.dumps({"id": id or os.urandom(16).hex(), "type": type, "channel": "ticks", "data": data}).encode()
    status, _, answer = await server.request("POST", "/ticks/", headers={**JSON, **headers}, body=body)
    return status, json.loads(answer)


@pytest.mark.parametrize("name", FOUR)
async def test_a_post_is_answered_once_and_heard(start_server: StartServer, name: str) -> None:
    server = await start_server(name)
    socket = await Socket.open(server)
    await socket.next("connected")
    id = os.urandom(16).hex()
    answers = [await post(server, "say", 1, id=id) for _ in range(2)]
    assert answers == [(200, {"id": id, "data": None})] * 2
    text = "x" * 60_000
    assert (await post(server, "echo", text))[1]["data"] == text
    refusals = [
        await post(server, "nobody"),
        await post(server, "say", 2, id=id),
        await post(server, "echo", "x" * 66_000),
        await post(server, "echo", **{"Content-Type": "text/plain"}),
        await post(server, "echo", Cookie="sessionid=x"),
        await post(server, "echo", Origin="http://evil.example"),
    ]
    assert [(status, said["error"]) for status, said in refusals] == [
        (404, "no_handler"),
        (422, "other_body"),
        (413, "too_large"),
        (415, "unsupported_media_type"),
        (403, "csrf"),
        (403, "foreign_origin"),
    ]
    await post(server, "say", 3)
    assert await numbers(socket, 2) == [1, 3]
    await socket.close()
    assert server.noise(besides=refusals_of_django) == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_a_socket_is_renewed_without_a_loss(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments, MAX_AGE_SECONDS=2)
    heard: list[int] = []
    ends: list[str] = []
    position = ""
    for number in range(1, 4):
        socket = await Socket.open(server, f"/ticks/?last_event_id={position}" if position else "/ticks/")
        connected = await socket.next("connected")
        assert connected is not None and 0 < connected["ends"] <= 2.2
        await post(server, "say", 2 * number - 1)
        while (said := await socket.next()) is not None:
            heard += [said["data"]["n"]] if said["type"] == "tick" else []
            ends += [said["reason"]] if said["type"] == "goodbye" else []
        position = socket.last_id
        await post(server, "say", 2 * number)
    assert (heard, ends) == ([1, 2, 3, 4, 5], ["max_age"] * 3)
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_who_is_one_too_many_is_told_so(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments, MAX_CLIENTS_PER_ADDRESS=2)
    sockets = [await Socket.open(server) for _ in range(2)]
    for socket in sockets:
        await socket.next("connected")
    third = await Socket.open(server)
    said = await third.next()
    assert said is not None and (said["type"], said["reconnect"]) == ("goodbye", True) and said["retry"] > 0
    assert await third.next() is None
    assert (await sockets[0].ask("echo", 1) or {})["data"] == 1
    for socket in sockets:
        socket.reset()
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_a_tenant_hears_and_writes_to_its_own(
    start_server: StartServer, environment: dict[str, str], name: str, arguments: str
) -> None:
    server = await start_server(
        name, arguments=arguments, environment=environment, NAMESPACE="tests.live.access.urls.namespace"
    )
    one, other = [
        await Socket.open(server, origin=None, headers={"Host": host}) for host in ("one.localhost", "other.localhost")
    ]
    for socket in (one, other):
        await socket.next("connected")
    await one.send(json.dumps({"id": "1" * 32, "type": "say", "channel": "ticks", "data": 1}))
    assert (await post(server, "say", 2, Host="other.localhost"))[0] == 200
    assert await numbers(one, 1) == [1]
    assert await numbers(other, 1) == [2]
    for socket in (one, other):
        socket.reset()
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
@pytest.mark.parametrize("end", ["/leave/", "/password/"])
async def test_a_logout_or_a_new_password_ends_a_socket(
    start_server: StartServer, environment: dict[str, str], name: str, arguments: str, end: str
) -> None:
    server = await start_server(name, arguments=arguments, environment=environment, PUBLIC_CHANNELS=[], AUTHORIZE=None)
    mine, others = await cookie_of_a_new_session(server), await cookie_of_a_new_session(server)
    ending, living = [await Socket.open(server, "/events/", headers=cookie) for cookie in (mine, others)]
    for socket in (ending, living):
        assert (await socket.ask("echo", 1) or {})["data"] == 1
    await server.get(end, **mine)
    said = await ending.next("goodbye")
    assert said is not None and said["reason"] == "revoked"
    assert await ending.next() is None
    if end == "/leave/":  # the user's other session goes on
        assert (await living.ask("echo", 2) or {})["data"] == 2
        with pytest.raises(Denied):
            await Socket.open(server, "/events/", origin="http://evil.example", headers=mine)
    else:
        assert (await living.next("goodbye") or {})["reason"] == "revoked"
    again = await Socket.open(server, "/events/", headers=mine)
    assert (await again.next() or {})["status"] == 400  # nobody is logged in, and no channel is named
    living.reset()
    assert server.noise(besides=refusals_of_django) == []
