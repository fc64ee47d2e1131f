"""Connections that never send a request, and connections that send it one byte a second: what they cost.

    python -m tests.live.access.loris uvicorn [--count 2000] [--seconds 65] [--arguments="--more of-the-server"]
    python -m tests.live.access.loris nginx

One line of figures for each: whether a request and a stream still get through, what a connection costs, and after how
many seconds the server lets go of it by itself. The findings are in docs/security.md.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.live.harness import Crowd, Server, free_port, raise_descriptor_limit, until

REQUEST = b"GET /ticks/ HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"x" * 10_000

NGINX = """
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 10000; }}
http {{
    access_log off;
    client_header_timeout 10s;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}
"""


class Attacker(asyncio.Protocol):
    closed_after = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.began = time.monotonic()
        self.sent = 0

    def connection_lost(self, error: Exception | None) -> None:
        self.closed_after = time.monotonic() - self.began

    def send_a_byte(self) -> None:
        if not self.closed_after:
            self.transport.write(REQUEST[self.sent : self.sent + 1])
            self.sent += 1


async def attack(port: int, count: int) -> list[Attacker]:
    loop = asyncio.get_running_loop()
    attackers: list[Attacker] = []
    for begun in range(0, count, 100):
        opened = await asyncio.gather(
            *(loop.create_connection(Attacker, "127.0.0.1", port) for _ in range(min(100, count - begun)))
        )
        attackers += [protocol for _, protocol in opened]
    return attackers


async def measure(server: Server, port: int, kind: str, count: int, seconds: float) -> str:
    before = await server.state(collect=True)
    attackers = await attack(port, count)
    began = time.monotonic()
    while time.monotonic() - began < 5:
        if kind == "slow":
            for attacker in attackers:
                attacker.send_a_byte()
        await asyncio.sleep(1)
    taken = []
    for _ in range(20):
        asked = time.monotonic()
        status = await asyncio.wait_for(_get(port, "/plain/async/"), 30)
        assert b"200" in status, status
        taken.append(time.monotonic() - asked)
    asked = time.monotonic()
    crowd = await Crowd.open(server, 20, "/ticks/", port=port)
    opened = time.monotonic() - asked
    after = await server.state(collect=True)
    crowd.close()
    while time.monotonic() - began < seconds and not all(attacker.closed_after for attacker in attackers):
        if kind == "slow":
            for attacker in attackers:
                attacker.send_a_byte()
        await asyncio.sleep(1)
    closed = [attacker.closed_after for attacker in attackers if attacker.closed_after]
    for attacker in attackers:
        attacker.transport.abort()
    let_go = (
        f"all let go after {min(closed):.0f}-{max(closed):.0f} s"
        if len(closed) == count
        else (f"{len(closed)} let go within {seconds:.0f} s")
    )
    memory = (after["rss_kib"] - before["rss_kib"]) / count
    return (
        f"{kind:>6}: request {statistics.median(taken) * 1000:.1f} ms (worst {max(taken) * 1000:.0f}), "
        f"20 streams opened in {opened * 1000:.0f} ms, {memory:.1f} KiB each, "
        f"{after['os_threads'] - before['os_threads']:+d} threads; {let_go}"
    )


async def _get(port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status = await reader.readline()
    writer.close()
    return status


@asynccontextmanager
async def nginx_before(server: Server) -> Any:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program, "needs nginx"
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "nginx.conf")
        config.write_text(NGINX.format(directory=directory, port=port, upstream=server.url))  # noqa: ASYNC240
        process = subprocess.Popen([program, "-c", str(config), "-p", directory])  # noqa: ASYNC220
        try:

            async def answers() -> bool:
                try:
                    return b"200" in await _get(port, "/plain/async/")
                except OSError:
                    return False

            await until(answers, 60)
            yield port
        finally:
            process.terminate()
            process.wait()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=65)
    parser.add_argument("--arguments", default="")
    options = parser.parse_args()
    raise_descriptor_limit()
    behind_nginx = options.server == "nginx"
    for kind in ("silent", "slow"):
        server = Server("uvicorn" if behind_nginx else options.server, arguments=options.arguments)
        async with server:
            if behind_nginx:
                async with nginx_before(server) as port:
                    line = await measure(server, port, kind, options.count, options.seconds)
            else:
                line = await measure(server, server.port, kind, options.count, options.seconds)
        print(options.server, options.arguments, line, flush=True)


if __name__ == "__main__":
    asyncio.run(main())
