"""The files of docs/deploy/ hold what they promise."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Crowd, Nginx, free_port, until
from tests.live.harness.servers import ROOT
from tests.live.harness.sockets import Denied, Socket


async def each_event_comes_when_it_is_sent(server, port: int) -> None:
    crowd = await Crowd.open(server, 5, port=port, headers={"Accept-Encoding": "gzip"})
    for number in range(1, 6):
        await server.get(f"/publish/?from={number}")
        await crowd.all(lambda client, number=number: list(client.numbers) == list(range(1, number + 1)))
    assert "content-encoding" not in crowd[0].headers
    crowd.close()

    async def is_empty() -> bool:
        return (await server.state())["clients"] == 0

    await until(is_empty, say="the proxy did not say that its clients left")


async def a_websocket_works(server, port: int) -> None:
    socket = await Socket.open(server, port=port)
    await socket.next("connected")
    await server.get("/publish/?count=2")
    assert [(await socket.next("tick"))["data"]["n"] for _ in range(2)] == [1, 2]
    assert (await socket.ask("echo", "x"))["data"] == "x"
    for _ in range(4):
        await socket.next("heartbeat")
    with pytest.raises(Denied):
        await Socket.open(server, port=port, origin="http://evil.example", headers={"Cookie": "a=b"})
    await socket.close()


@pytest.mark.needs("nginx")
async def test_nginx_hands_each_event_on_and_a_heartbeat_keeps_the_stream(start_server: StartServer) -> None:
    server = await start_server("uvicorn", HEARTBEAT_SECONDS=0.5)
    async with Nginx(server, proxy_read_timeout="6s") as nginx:
        crowd = await Crowd.open(server, 5, port=nginx.port)
        await crowd.all(lambda client: client.heartbeats >= 15)
        assert not crowd.count(lambda client: client.is_gone)
        crowd.close()
        await each_event_comes_when_it_is_sent(server, nginx.port)
        await a_websocket_works(server, nginx.port)
    assert server.noise() == []


async def test_haproxy_hands_each_event_on(start_server: StartServer, tmp_path: Path) -> None:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("needs haproxy, which is not on this machine (Debian: apt-get install haproxy)")
    server = await start_server("uvicorn", HEARTBEAT_SECONDS=0.5)
    port = free_port()
    text = (ROOT / "docs" / "deploy" / "haproxy.cfg").read_text()
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace("bind :443", f"bind 127.0.0.1:{port}")
    text = (
        text.replace("timeout tunnel 90s", "timeout tunnel 1s")
        .replace("timeout client 90s", "timeout client 1s")
        .replace("timeout server 90s", "timeout server 1s")
    )
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    with subprocess.Popen([program, "-db", "-q", "-f", str(file)]) as process:  # noqa: ASYNC220
        try:

            async def listens() -> bool:
                crowd = await Crowd.open(server, 1, port=port, wait=False)
                crowd.close()
                return True

            async def is_up() -> bool:
                try:
                    return await listens()
                except OSError:
                    return False

            await until(is_up)
            crowd = await Crowd.open(server, 5, port=port)
            await crowd.all(lambda client: client.heartbeats >= 5)
            assert not crowd.count(lambda client: client.is_gone)
            crowd.close()
            await each_event_comes_when_it_is_sent(server, port)
            await a_websocket_works(server, port)
        finally:
            process.terminate()
    assert server.noise() == []
