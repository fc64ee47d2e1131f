"""The writer, on each server: where it is in force, and what comes of it when a client does not read or leaves."""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Crowd, Server, until
from tests.live.harness.clients import Client
from tests.live.harness.servers import free_port

PLAIN = {"app": "tests.live.project.asgi:django_application"}
IN_FORCE = [
    pytest.param(name, {**options, **app}, id=f"{name}-{options.get('arguments', '').replace(' ', '')}-{kind}")
    for name, options in (
        ("uvicorn", {"arguments": "--loop asyncio"}),
        ("uvicorn", {"arguments": "--loop uvloop"}),
        ("gunicorn", {}),
        ("daphne", {}),
    )
    for kind, app in (("live", {}), ("plain", PLAIN))
]


async def begun(start_server: StartServer, name: str, options: dict[str, Any]) -> Server:
    for module in ("uvloop",) if "uvloop" in options.get("arguments", "") else ():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: it is tried where it is chosen")
    if name in ("uvicorn", "gunicorn") and importlib.util.find_spec("httptools") is None:
        pytest.skip("needs httptools, which is not installed")
    return await start_server(name, **options)


async def writers(server: Server) -> int:
    return (await server.state())["writers"]


@pytest.mark.parametrize(("name", "options"), IN_FORCE)
async def test_it_is_in_force_and_every_event_is_whole(
    start_server: StartServer, name: str, options: dict[str, Any]
) -> None:
    server = await begun(start_server, name, {**options, "HEARTBEAT_SECONDS": 0.5})
    crowd = await Crowd.open(server, 30)
    assert await writers(server) == 30
    await server.get("/publish/?count=50")
    await server.get("/publish/?from=51&count=10&size=100000")  # more than a transport holds
    await server.get("/publish/?from=61&count=50")
    await crowd.all(lambda client: len(client.numbers) == 110)
    assert crowd.faults(1, 110) == []
    assert await writers(server) == 30
    crowd.reset(crowd[:10])
    crowd.close(crowd[10:20])
    await server.get("/publish/?from=111&count=20")
    await until(lambda: all(len(client.numbers) == 130 for client in crowd[20:]))

    async def are_gone() -> bool:
        return (await server.state())["clients"] == 10

    await until(are_gone)
    assert await writers(server) == 10
    assert server.noise() == []


@pytest.mark.parametrize("name", ["uvicorn-h11", "hypercorn", "granian"])
async def test_other_servers_send_by_themselves(start_server: StartServer, name: str) -> None:
    server = await start_server(name)
    crowd = await Crowd.open(server, 5)
    assert await writers(server) == 0
    await server.get("/publish/?count=50")
    await crowd.all(lambda client: len(client.numbers) == 50)
    assert crowd.faults(1, 50) == []


@pytest.mark.parametrize(("name", "options"), IN_FORCE)
async def test_a_client_that_does_not_read_has_no_writer_and_ends_by_the_send_timeout(
    start_server: StartServer, name: str, options: dict[str, Any]
) -> None:
    server = await begun(start_server, name, {**options, "SEND_TIMEOUT_SECONDS": 2, "HEARTBEAT_SECONDS": 1})
    crowd = await Crowd.open(server, 3)
    crowd[0].stop_reading()
    for first in range(1, 181, 20):
        await server.get(f"/publish/?from={first}&count=20&size=100000")

    async def is_gone() -> bool:
        state = await server.state()
        return state["clients"] == 2 and state["writers"] == 2

    await until(is_gone)
    await until(lambda: all(len(client.numbers) == 180 for client in crowd[1:]))
    assert crowd[1].fault(1, 180) == crowd[2].fault(1, 180) == ""
    assert server.noise() == []


async def test_a_request_that_comes_behind_the_streams_takes_the_writer_away(start_server: StartServer) -> None:
    """The server's protocol then has another cycle, and what send() does is the server's to say."""
    server = await begun(start_server, "uvicorn", {})
    crowd = await Crowd.open(server, 2)
    request = b"GET /plain/async/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    crowd[0].transport.write(request)

    async def has_one() -> bool:
        return await writers(server) == 1

    await until(has_one)
    await server.get("/publish/?count=20")
    await crowd.all(lambda client: len(client.numbers) == 20)
    assert crowd.faults(1, 20) == []


@pytest.mark.parametrize("way", ["asyncio", "uvloop", "daphne"])
async def test_tls(way: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(  # noqa: ASYNC221
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False

    class TLSServer(Server):
        async def _request(self, method: str, path: str, *_: Any) -> tuple[int, dict[str, str], bytes]:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
            writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            status = int((await reader.readuntil(b"\r\n\r\n")).split()[1])
            body = await reader.read()
            writer.close()
            return status, {}, body

    for module in (way,) if way == "daphne" else (way, "httptools"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed: it is tried where it is chosen")
    if way == "daphne":  # which listens without TLS besides
        port = free_port()
        arguments = f"-e ssl:{port}:interface=127.0.0.1:privateKey={key}:certKey={certificate}"
        made = Server("daphne", arguments=arguments)
    else:
        made = TLSServer("uvicorn", arguments=f"--loop {way} --ssl-keyfile {key} --ssl-certfile {certificate}")
        port = made.port
    async with made as server:
        loop = asyncio.get_running_loop()
        path = "/events/?channel=ticks"
        clients = []
        for _ in range(3):
            client = Client(path, {"Accept": "text/event-stream"})
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port, ssl=context)  # type: ignore[misc]
            clients.append(client)
        await until(lambda: all(client.connected for client in clients))
        assert await writers(server) == 3
        await server.get("/publish/?count=20&size=50000")
        await until(lambda: all(len(client.numbers) == 20 for client in clients))
        assert [client.fault(1, 20) for client in clients] == [""] * 3
        for client in clients:
            client.close()
