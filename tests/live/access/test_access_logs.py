"""Tokens in the access logs of servers, as docs/security.md says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.harness import until
from tests.live.harness.sockets import Socket

REQUEST = "/ticks/?token=s3cret~token"


async def test_uvicorns_shows_them_unless_the_filter_hides_them(start_server: Any) -> None:
    shown = await start_server("uvicorn")
    hidden = await start_server("uvicorn", environment={"DJANGO_SETTINGS_MODULE": "tests.live.access.settings"})
    for server in (shown, hidden):
        await server.request("HEAD", REQUEST)
        await until(lambda server=server: server.count("HEAD /ticks/"))
        await (await Socket.open(server, REQUEST)).close()
        await until(lambda server=server: server.count('"WebSocket /ticks/'))
    assert shown.count("s3cret") == 2
    assert not hidden.count("s3cret")
    assert hidden.count("token=…") == 2


async def test_uvicorn_writes_of_websockets_without_an_access_log_too(start_server: Any) -> None:
    server = await start_server("uvicorn", arguments="--no-access-log")
    await server.request("HEAD", REQUEST)
    await (await Socket.open(server, REQUEST)).close()
    await until(lambda: server.count('"WebSocket /ticks/'))
    assert server.count("s3cret") == 1, "docs/security.md says otherwise"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("daphne", "-v 0"), ("hypercorn", "--access-logfile -"), ("granian", "--access-log")],
)
async def test_the_others_do_not_with_these_options(start_server: Any, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments)
    await server.request("HEAD", REQUEST)
    await (await Socket.open(server, REQUEST)).close()
    await server.stop()
    assert not server.count("s3cret")
