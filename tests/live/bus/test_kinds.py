"""Every way to reach a Redis that redis-py gives: sockets, TLS, users, Sentinel, Cluster."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

import pytest

from django_sse_live.backends.redis_streams import RedisStreamsBackend
from django_sse_live.events import Event
from django_sse_live.hub.hub import Hub
from django_sse_live.hub.log import EventLog
from django_sse_live.hub.registry import forget_hubs
from tests.backends.redis_process import RedisProcess, free_port
from tests.live.harness import until

pytestmark = pytest.mark.needs("redis")


class Bus:
    """A backend and a hub on it."""

    def __init__(self, url: str, **options: str) -> None:
        forget_hubs()
        self.backend = RedisStreamsBackend({"URL": url, "STREAM": "sse_" + secrets.token_hex(4), **options})
        self.hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        self.backend.attach(self.hub)

    async def __aenter__(self) -> Bus:
        await self.hub.filled()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.backend.close)
        forget_hubs()

    async def publish(self, data: Any) -> None:
        await asyncio.to_thread(self.backend.publish, Event(("c",), "t", json.dumps(data)))

    @property
    def heard(self) -> list[Any]:
        return [event.data for event in self.hub.log.read(("c",), 0)]


async def goes_round(url: str) -> None:
    async with Bus(url) as bus:
        position = bus.backend.position()
        await bus.publish("hello")
        await until(lambda: bus.heard == ["hello"])
        assert position.partition(":")[0] == bus.hub.log.epoch


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisProcess(arguments=("--unixsocket", str(path))):
        await goes_round(f"unix://{path}?db=3")


async def test_a_user_with_no_more_rights_than_the_documentation_asks_for() -> None:
    with RedisProcess() as redis:
        answer = redis.command(
            "ACL SETUSER live on >secret ~sse_* ~{sse_* "
            "-@all +get +set +xadd +xlen +xtrim +xread +xrange +xrevrange +xinfo|stream +memory|usage +eval"
        )
        assert answer == b"+OK\r\n", answer
        await goes_round(f"redis://live:secret@127.0.0.1:{redis.port}/0")


async def test_tls(tmp_path: Path) -> None:
    certificate, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subprocess.run(  # noqa: ASYNC221
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    arguments = (
        *("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
        *("--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"),
    )
    with RedisProcess(arguments=arguments):
        await goes_round(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}")


async def test_a_cluster() -> None:
    port = next(port for _ in range(100) if (port := free_port()) < 55_000)  # 10,000 more is the port of its bus
    with RedisProcess(port=port, arguments=("--cluster-enabled", "yes")) as redis:
        redis.command("CLUSTER ADDSLOTSRANGE 0 16383")
        await until(lambda: b"cluster_state:ok" in redis.command("CLUSTER INFO"))
        await goes_round(f"redis+cluster://127.0.0.1:{redis.port}")


async def test_workers_that_read_from_a_replica() -> None:
    with RedisProcess() as primary, RedisProcess(arguments=("--replicaof", f"127.0.0.1 {primary.port}")) as replica:
        await until(lambda: b"master_link_status:up" in replica.command("INFO REPLICATION"))
        async with Bus(primary.url, READ_URL=replica.url) as bus:
            await bus.publish("hello")
            await until(lambda: bus.heard == ["hello"])
            assert b"cmd=xread" in replica.command("CLIENT LIST")
            assert b"cmd=xread" not in primary.command("CLIENT LIST")


async def test_a_failover_by_sentinel_loses_nothing_that_was_replicated(tmp_path: Path) -> None:
    with RedisProcess() as master:
        with RedisProcess(arguments=("--replicaof", f"127.0.0.1 {master.port}")) as replica:
            config = tmp_path / "sentinel.conf"
            config.write_text(
                f"sentinel monitor live 127.0.0.1 {master.port} 1\nsentinel down-after-milliseconds live 2000\n"
                "sentinel failover-timeout live 2000\n"
            )
            sentinel = RedisProcess()
            sentinel._arguments = [str(config), "--sentinel", "--port", str(sentinel.port), "--bind", "127.0.0.1"]
            with sentinel:
                await until(lambda: b"master_link_status:up" in replica.command("INFO REPLICATION"))
                await until(lambda: str(replica.port).encode() in sentinel.command("SENTINEL REPLICAS live"))
                async with Bus(f"redis+sentinel://127.0.0.1:{sentinel.port}/live") as bus:
                    for number in range(10):
                        await bus.publish(number)
                    await until(lambda: len(bus.heard) == 10)
                    epoch = bus.hub.log.epoch
                    await until(lambda: b"lag=0" in master.command("INFO REPLICATION"))
                    assert master.command("WAIT 1 2000") == b":1\r\n"
                    master.kill()
                    for number in range(10, 20):
                        await bus.publish(number)
                    await until(lambda: len(bus.heard) == 20)
                    assert bus.heard == list(range(20))
                    assert bus.hub.log.epoch == epoch
