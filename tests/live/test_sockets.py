"""Streams over WebSockets, on every server and each of Uvicorn's protocols."""

from __future__ import annotations

import asyncio
import json
import os
import random
from typing import Any

import pytest

from tests.live.conftest import StartServer
from tests.live.harness import Server, until
from tests.live.harness.sockets import BINARY, CLOSE, PING, PONG, Denied, Socket, encode

SERVERS = [
    pytest.param("daphne", "", id="daphne"),
    pytest.param("uvicorn", "--ws websockets-sansio", id="uvicorn-websockets"),
    pytest.param("uvicorn", "--ws wsproto", id="uvicorn-wsproto"),
    pytest.param("hypercorn", "", id="hypercorn"),
    pytest.param("granian", "", id="granian"),
]
FUZZED_FRAMES = int(os.environ.get("SSE_LIVE_FUZZED_FRAMES", "400"))  # 100,000 in the long form
FOREIGN_ORIGINS = int(os.environ.get("SSE_LIVE_ORIGINS", "40"))  # 1,000 in the long form


async def until_empty(server: Server) -> None:
    async def is_empty() -> bool:
        return (await server.state())["clients"] == 0

    await until(is_empty)


async def numbers(socket: Socket, count: int) -> list[int]:
    return [(await socket.next("tick") or {})["data"]["n"] for _ in range(count)]


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_events_heartbeats_a_resume_and_a_reset(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments, HEARTBEAT_SECONDS=0.5)
    first = await Socket.open(server)
    connected = await first.next()
    assert connected is not None and connected["type"] == "connected" and connected["id"]
    await server.get("/publish/?count=2000")
    assert await numbers(first, 2000) == [*range(1, 2001)]
    assert (await first.next("heartbeat") or {})["id"] == first.last_id
    first.reset()
    await server.get("/publish/?from=2001&count=3")
    resumed = await Socket.open(server, f"/ticks/?last_event_id={first.last_id}")
    connected = await resumed.next()
    assert connected is not None and connected["resumed"] is True
    assert await numbers(resumed, 3) == [2001, 2002, 2003]
    foreign = await Socket.open(server, "/ticks/?last_event_id=0ther:1-1")
    assert (await foreign.next("reset") or {})["reason"] == "unknown_id"
    await resumed.close()
    foreign.reset()
    await until_empty(server)
    assert server.noise() == []


@pytest.mark.parametrize(
    ("name", "arguments"), [*SERVERS, pytest.param("uvicorn", "--ws websockets", id="uvicorn-websockets-legacy")]
)
async def test_compression_is_not_agreed_on_nor_used(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments)
    socket = await Socket.open(server)  # which offers it, and refuses compressed frames
    assert "sec-websocket-extensions" not in socket.head
    await server.get("/publish/?size=10000")
    assert await numbers(socket, 1) == [1]
    refused = await Socket.open(server, "/events/")
    assert "sec-websocket-extensions" not in refused.head
    await socket.close()


@pytest.mark.parametrize(
    ("name", "arguments"), [*SERVERS[:-1], pytest.param("uvicorn", "--ws websockets", id="uvicorn-websockets-legacy")]
)
async def test_a_message_that_never_ends_is_not_gathered_beyond_a_mebibyte(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(name, arguments=arguments)
    socket = await Socket.open(server)
    id = "0" * 32
    await socket.send(json.dumps({"id": id, "type": "echo", "data": "x" * 500_000}))
    assert (await socket.next("answer") or {})["status"] == 413, "what is only too long is answered"
    await socket.send_frames(encode(b"x" * 400_000, fin=False))
    try:
        for _ in range(4):
            await socket.send_frames(encode(b"x" * 400_000, 0, fin=False))
    except OSError:
        pass
    assert await socket.next("never") is None
    await until_empty(server)


def invented_origin(server: Server, generator: random.Random) -> str | None:
    own = f"http://127.0.0.1:{server.port}"
    return generator.choice(
        [
            None, "null", "", own + ".evil.example", f"http://evil.example#{own}", own.replace("http", "https"),
            f"http://127.0.0.1:{server.port}@evil.example", own[:-1], own + "0", "http://localhost", own + "/",
            own.upper(), f"{own}, {own}", f"http://x{generator.randrange(10**6)}.example", "file://", "http://127.0.0.1",
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_no_foreign_origin_is_accepted_with_cookies(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments)
    generator = random.Random(1)
    accepted: list[Any] = []

    async def attempt() -> None:
        origin = invented_origin(server, generator)
        try:
            socket = await Socket.open(server, origin=origin, headers={"Cookie": "sessionid=x"})
        except Denied:
            return
        accepted.append(origin)
        socket.reset()

    for begun in range(0, FOREIGN_ORIGINS, 20):
        await asyncio.gather(*(attempt() for _ in range(min(20, FOREIGN_ORIGINS - begun))))
    assert accepted == []
    own = await Socket.open(server, headers={"Cookie": "sessionid=x"})
    assert (await own.next() or {})["type"] == "connected"
    await own.close()


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_a_stop_is_told_to_everyone_and_waits_for_nobody(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(name, arguments=arguments, HEARTBEAT_SECONDS=0.5)
    sockets = [await Socket.open(server) for _ in range(20)]
    stuck = await Socket.open(server, receive_buffer=4096)
    for socket in sockets:
        await socket.next("connected")
    stopping = asyncio.ensure_future(server.stop())
    told = [await socket.next("goodbye") for socket in sockets]
    for socket in sockets:
        while await socket.next() is not None:
            pass
    await stopping
    if name != "granian":  # it cuts its WebSockets itself: a break, from which a client comes back all the same
        assert all(said is not None and said["reason"] == "shutdown" and said["reconnect"] for said in told)
        assert {socket.close_code for socket in sockets} == {4012}
    assert server.noise() == []
    stuck.reset()


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_a_reader_that_stopped_costs_no_memory_and_is_cut_off(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(
        name, arguments=arguments, HISTORY_BYTES=4 * 1024 * 1024, SEND_TIMEOUT_SECONDS=4, HEARTBEAT_SECONDS=5
    )
    reading = await Socket.open(server)

    async def publish(count: int) -> None:
        for _ in range(count):
            await server.get("/publish/?count=4&size=131072")
            assert await numbers(reading, 4) == [1, 2, 3, 4]

    await publish(20)
    before = (await server.state(collect=True))["rss_kib"]
    stuck = await Socket.open(server, receive_buffer=4096)
    stuck.writer.transport.pause_reading()
    most = 0
    for _ in range(10):
        await publish(20)
        most = max(most, (await server.state())["rss_kib"])
    assert most - before <= 5 * 1024, f"{most - before} KiB for 100 MiB that one client did not read"

    async def is_cut_off() -> bool:
        return (await server.state())["clients"] == 1

    await until(is_cut_off)
    await reading.close()
    stuck.reset()
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_messages_are_answered_in_their_order_between_events(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(name, arguments=arguments)
    socket = await Socket.open(server)
    for number in range(20):
        await socket.send(json.dumps({"id": f"{number:032d}", "type": "echo", "data": number}))
    await server.get("/publish/?count=5")
    said = [await socket.next() or {} for _ in range(26)]
    assert [each["data"] for each in said if each["type"] == "answer"] == [*range(20)]
    assert [each["data"]["n"] for each in said if each["type"] == "tick"] == [1, 2, 3, 4, 5]
    refused = await socket.ask("nobody")
    assert refused is not None and (refused["status"], refused["error"]) == (404, "no_handler")
    await socket.close()
    await until_empty(server)
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_what_is_pushed_at_a_handler_that_sleeps_is_not_kept(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(name, arguments=arguments)
    text = "x" * 32 * 1024
    other = await Socket.open(server)
    for _ in range(30):
        assert (await other.ask("echo", text) or {}).get("data") == text
    socket = await Socket.open(server)
    await socket.next("connected")
    await socket.send(json.dumps({"id": "0" * 32, "type": "sleep", "data": 120}))
    before = most = (await server.state(collect=True))["rss_kib"]
    refused = 0

    async def read() -> None:
        nonlocal refused
        while refused < 3200 - 40:
            said = await socket.next("answer", 60)
            assert said is not None and said["status"] == 429 and said["to"] is not None
            refused += 1

    reading = asyncio.ensure_future(read())
    for number in range(1, 3201):
        await socket.send(json.dumps({"id": f"{number:032d}", "type": "sleep", "data": [0, text]}))
        if not number % 320:
            most = max(most, (await server.state())["rss_kib"])
    await asyncio.wait_for(reading, 60)
    assert most - before <= 5 * 1024, f"{most - before} KiB for 100 MiB"
    socket.reset()
    other.reset()
    await until_empty(server)
    assert server.noise() == []


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_who_sends_and_does_not_read_costs_no_memory(
    start_server: StartServer, name: str, arguments: str
) -> None:
    server = await start_server(name, arguments=arguments, SEND_TIMEOUT_SECONDS=3)
    text = "x" * 32 * 1024
    other = await Socket.open(server)
    for _ in range(30):
        await other.ask("echo", text)

    async def push(count: int) -> tuple[int, int]:
        socket = await Socket.open(server, receive_buffer=4096)
        socket.writer.transport.pause_reading()
        before = most = (await server.state(collect=True))["rss_kib"]
        sent = 0
        try:
            while sent < count:
                frame = json.dumps({"id": f"{sent:032d}", "type": "echo", "data": text})
                await asyncio.wait_for(socket.send(frame), 10)
                sent += 1
                if not sent % 100:
                    most = max(most, (await server.state())["rss_kib"])
        except (OSError, asyncio.TimeoutError):
            pass  # cut off, or not read from any more
        most = max(most, (await server.state())["rss_kib"])
        socket.reset()
        return most - before, sent

    await push(1600)  # what an allocator takes once and keeps
    more, sent = await push(3200)
    assert more <= 5 * 1024, f"{more} KiB for {sent} messages of 32 KiB"
    other.reset()
    await until_empty(server)
    assert server.noise() == []


def fuzzed(generator: random.Random) -> bytes:
    """One or more frames that no client of ours would send."""
    kind = generator.randrange(10)
    id = f"{generator.randrange(10**31):032d}"
    if kind == 0:
        return encode(generator.randbytes(generator.randrange(200)).hex().encode())
    if kind == 1:
        value = generator.choice([None, 1, -1.5e300, [], {}, "", "\0", "x" * 300, True, {"a": [[[]]]}])
        return encode(
            json.dumps({"id": id, "type": "echo", generator.choice(["id", "type", "channel"]): value}).encode()
        )
    if kind == 2:
        return encode(generator.choice(["[", '{"a":', "[{"]).encode() * generator.randrange(1, 20000))
    if kind == 3:
        return encode(json.dumps({"id": id, "type": "echo", "data": "x" * generator.randrange(60000, 300000)}).encode())
    if kind == 4:
        return encode(generator.randbytes(50), BINARY)
    if kind == 5:
        text = json.dumps({"id": id, "type": "echo", "data": "\u0000\u2028\x1f😀"}, ensure_ascii=False).encode()
        cut = generator.randrange(len(text))
        return encode(text[:cut], fin=False) + encode(b"", PING) + encode(text[cut:], 0)
    if kind == 6:
        return encode(generator.randbytes(100), generator.choice([PING, PONG]))
    if kind == 7:
        return generator.randbytes(30)
    if kind == 8:
        return encode(b"[1]" if generator.random() < 0.5 else b'{"id":' + b"9" * 30000 + b"}")
    return encode(
        json.dumps({"id": id, "type": "echo", "channel": generator.choice(["sse.control", "user:1", "\n"])}).encode()
    )


@pytest.mark.parametrize(("name", "arguments"), SERVERS)
async def test_fuzzed_frames_break_nothing(start_server: StartServer, name: str, arguments: str) -> None:
    server = await start_server(name, arguments=arguments)
    generator = random.Random(7)

    async def fuzz(count: int) -> None:
        socket = None
        for _ in range(count):
            if socket is None:
                socket = await Socket.open(server)
            try:
                await socket.send_frames(fuzzed(generator))
                if generator.random() < 0.3:
                    await socket.send_frames(encode(b"", PING))
                    while (opcode := (await asyncio.wait_for(socket.frame(), 3))[0]) not in (PONG, CLOSE):
                        pass
                    if opcode == CLOSE or generator.random() < 0.5:
                        socket.reset()
                        socket = None
            except (OSError, asyncio.IncompleteReadError):
                socket = None
        if socket is not None:
            socket.reset()

    await fuzz(FUZZED_FRAMES // 2)
    await until_empty(server)
    before = (await server.state(collect=True))["rss_kib"]
    await fuzz(FUZZED_FRAMES)
    await until_empty(server)
    assert (await server.state(collect=True))["rss_kib"] - before <= 8 * 1024
    socket = await Socket.open(server)
    assert (await socket.ask("echo", "still here") or {}).get("data") == "still here"
    await socket.close()
    # asyncio's word for many answers to frames of a client that has reset its connection meanwhile.
    assert server.noise(besides=lambda line: line.endswith("socket.send() raised exception.")) == []


async def test_many_handlers_at_once_share_few_threads(start_server: StartServer) -> None:
    server = await start_server("uvicorn", MAX_RUNNING_MESSAGES=64, MAX_CLIENTS_PER_ADDRESS=None)
    sockets = [await Socket.open(server) for _ in range(300)]
    asking = [asyncio.ensure_future(socket.ask("block", 0.3)) for socket in sockets]
    most = 0
    while not all(each.done() for each in asking):
        most = max(most, (await server.state())["os_threads"])
        await asyncio.sleep(0.05)
    assert most <= 80
    for socket in sockets:
        socket.reset()
