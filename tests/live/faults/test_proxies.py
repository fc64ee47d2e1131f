"""The files of docs/deploy/ hold what they promise."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Crowd, Nginx, Server, free_port, until
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


BIND = "bind :443 tcp-ut 60s ssl crt /etc/ssl/example.pem alpn h2,http/1.1"


@asynccontextmanager
async def haproxy(server: Server, tmp_path: Path, bind: str, seconds: int) -> AsyncIterator[int]:
    """HAProxy with the file of docs/deploy/, with this instead of its BIND, and these timeouts. Gives its port."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("needs haproxy, which is not on this machine (Debian: apt-get install haproxy)")
    port = free_port()
    text = (ROOT / "docs" / "deploy" / "haproxy.cfg").read_text()
    assert BIND in text
    text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}").replace(BIND, f"bind 127.0.0.1:{port} {bind}")
    text = re.sub(r"timeout (tunnel|client|server) 90s", rf"timeout \1 {seconds}s", text)
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)

    async def listens() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    with subprocess.Popen([program, "-db", "-q", "-f", str(file)]) as process:  # noqa: ASYNC220
        try:
            await until(listens)
            yield port
        finally:
            process.terminate()


async def test_haproxy_hands_each_event_on(start_server: StartServer, tmp_path: Path) -> None:
    server = await start_server("uvicorn", HEARTBEAT_SECONDS=0.5)
    async with haproxy(server, tmp_path, "tcp-ut 60s", 1) as port:
        crowd = await Crowd.open(server, 5, port=port)
        await crowd.all(lambda client: client.heartbeats >= 5)
        assert not crowd.count(lambda client: client.is_gone)
        crowd.close()
        await each_event_comes_when_it_is_sent(server, port)
        await a_websocket_works(server, port)
    assert server.noise() == []


@pytest.mark.parametrize("forged", ["http", "https"])
async def test_behind_haproxy_a_page_is_of_the_scheme_that_its_visitor_speaks(
    start_server: StartServer, tmp_path: Path, forged: str
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout pem.key -out pem"
    run = partial(subprocess.run, [openssl, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    await asyncio.to_thread(run)  # HAProxy finds the key beside the certificate
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    server = await start_server("uvicorn")
    header = {"X-Forwarded-Proto": forged}
    async with haproxy(server, tmp_path, BIND[10:].replace("/etc/ssl/example.pem", f"{tmp_path}/pem"), 90) as port:
        socket = await Socket.open(server, port=port, tls=tls, headers=header)
        await socket.next("connected")
        await socket.close()
        tls.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()
    async with haproxy(server, tmp_path, "", 90) as port:
        socket = await Socket.open(server, port=port, headers=header)
        await socket.next("connected")
        await socket.close()
