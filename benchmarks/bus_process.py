"""One process of ``python -m benchmarks bus``: ROW prepare | listen | write SECONDS HZ."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
import time
from functools import partial
from typing import Any

import django
from asgiref.sync import async_to_sync
from django.conf import settings

ROW, ROLE = sys.argv[1:3]
OWN = ("database", "redis", "polling", "mariadb", "sqlite")  # what this project carries
BASE = ("none", "none-mariadb", "none-sqlite")  # nobody carries anything
GROUP = "bench"
PADDING = "x" * 200


def set_up() -> None:
    if ROW == "redis":
        settings.SSE_LIVE = {
            "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
            "OPTIONS": {"URL": os.environ["BENCH_REDIS"], "STREAM": settings.DATABASES["default"]["NAME"]},
        }
    django.setup()
    logging.getLogger("django_sse_live").setLevel(logging.WARNING)  # as a site has it
    if ROW == "polling":
        from django_sse_live.database.session import Session

        Session.is_direct = property(lambda self: False)  # type: ignore[assignment,method-assign]


def channel_layer() -> Any:
    from channels_redis.core import RedisChannelLayer

    name = settings.DATABASES["default"]["NAME"]
    return RedisChannelLayer(hosts=[os.environ["BENCH_REDIS"]], prefix=name, capacity=100_000)


def prepare() -> None:
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", "sse_live_database", verbosity=0)
    auto = {"postgresql": "bigserial", "mysql": "bigint AUTO_INCREMENT", "sqlite": "integer"}[connection.vendor]
    with connection.cursor() as cursor:
        for table in ("saved", "outbox"):
            cursor.execute(f"CREATE TABLE {table} (id {auto} PRIMARY KEY, body text)")


def write(seconds: float, hz: float) -> None:
    from django.db import connection, transaction

    from django_sse_live import broadcast

    connection.ensure_connection()
    send = async_to_sync(channel_layer().group_send) if ROW == "channels" else None
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = time.process_time()
    began = time.monotonic()
    count = 0
    while (now := time.monotonic()) < began + seconds:
        if hz and (rest := began + count / hz - now) > 0:
            time.sleep(rest)
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("INSERT INTO saved (body) VALUES (%s)", [PADDING])
            text = json.dumps({"t": time.monotonic(), "padding": PADDING})
            if ROW in OWN:
                broadcast("c", "t", {"t": time.monotonic(), "padding": PADDING})
            elif send is not None:
                transaction.on_commit(partial(send, GROUP, {"type": "t", "text": text}))
            elif ROW not in BASE:
                cursor.execute("INSERT INTO outbox (body) VALUES (%s)", [text])
                if ROW == "notify":
                    cursor.execute("NOTIFY outbox")
        count += 1
    print(json.dumps({"count": count, "cpu": time.process_time() - cpu}), flush=True)


class Ear:
    def __init__(self) -> None:
        self.delays: list[float] = []
        self.must_stop = threading.Event()
        threading.Thread(target=self._wait_for_end, daemon=True).start()

    def _wait_for_end(self) -> None:
        sys.stdin.read()
        self.must_stop.set()

    def hear(self, body: Any) -> None:
        self.delays.append(time.monotonic() - body["t"])

    def report(self) -> None:
        print(json.dumps({"delays": self.delays, "cpu": time.process_time() - self.cpu}), flush=True)

    def begin(self) -> None:
        self.cpu = time.process_time()
        print("ready", flush=True)


async def listen() -> None:
    from django_sse_live.backends import running_hub
    from django_sse_live.hub.client_info import ClientInfo
    from django_sse_live.hub.clients import Client

    ear = Ear()
    hub = running_hub()
    await hub.filled()
    client = Client(hub, ClientInfo(("c",)))
    client.open()
    client.take()
    await asyncio.sleep(1)
    ear.begin()
    loop = asyncio.get_running_loop()
    threading.Thread(target=lambda: (ear.must_stop.wait(), loop.call_soon_threadsafe(client.wake)), daemon=True).start()
    while not ear.must_stop.is_set():
        body = client.take()
        if body is None:
            await client.wait()
            continue
        for line in body.decode().split("\n"):
            if line.startswith('data: {"t"'):
                ear.hear(json.loads(line[6:]))
    ear.report()


async def listen_to_layer() -> None:
    ear = Ear()
    layer = channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(GROUP, channel)
    ear.begin()
    stopped = asyncio.ensure_future(asyncio.to_thread(ear.must_stop.wait))
    while not stopped.done():
        heard = asyncio.ensure_future(layer.receive(channel))
        await asyncio.wait([heard, stopped], return_when=asyncio.FIRST_COMPLETED)
        if heard.done():
            ear.hear(json.loads(heard.result()["text"]))
        else:
            heard.cancel()
    ear.report()


def listen_to_outbox() -> None:
    from django.db import connection

    ear = Ear()
    connection.ensure_connection()
    raw = connection.connection
    cursor = connection.cursor()
    if ROW == "notify":
        cursor.execute("LISTEN outbox")
    last = 0
    ear.begin()
    while not ear.must_stop.is_set():
        if ROW == "notify":
            for _ in raw.notifies(timeout=0.5, stop_after=1):
                pass
        else:
            time.sleep(0.1)
        cursor.execute("SELECT id, body FROM outbox WHERE id > %s ORDER BY id", [last])
        for id, body in cursor.fetchall():
            last = id
            ear.hear(json.loads(body))
    ear.report()


if __name__ == "__main__":
    set_up()
    if ROLE == "prepare":
        prepare()
    elif ROLE == "write":
        write(float(sys.argv[3]), float(sys.argv[4]))
    elif ROW in OWN:
        asyncio.run(listen())
    elif ROW == "channels":
        asyncio.run(listen_to_layer())
    else:
        listen_to_outbox()
