"""What is measured: each scenario takes a running server and gives its figures."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .load import Load
from .servers import Server, read_answer

Figures = dict[str, float]
EMPTY = "empty"  # not a peer: an empty view in the same site, the measure of a connect


@dataclass(frozen=True)
class Plan:
    """How much of everything; None: as the scenario has it."""

    load: list[str]
    clients: int
    events: int
    hz: float
    size: int  # bytes of padding in each event
    seconds: float  # at most, for the events to arrive


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    digits: int = 2
    relative: bool = False  # to the first row, of the same round
    unit: str = ""


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    run: Callable[[Server, Plan], Figures]
    columns: tuple[Column, ...]
    clients: int
    events: int = 0
    hz: float = 0
    size: int = 100
    rows: tuple[str, ...] = field(default=())  # the peers, where it is not all of them


def fanout(server: Server, plan: Plan) -> Figures:
    with Load(plan.load, server.port, server.peer.stream, plan.clients) as load:
        load.open(events=plan.events)
        time.sleep(0.5)
        before, kernel_before = server.cpu_seconds(), server.kernel_seconds()
        heard = _publish_and_wait(server, load, plan)
        spent, in_kernel = server.cpu_seconds() - before, server.kernel_seconds() - kernel_before
    return {
        "cpu_us": spent * 1e6 / max(1, heard["events"]),
        "kernel_us": in_kernel * 1e6 / max(1, heard["events"]),
        "p50_ms": heard["p50_ms"],
        "p99_ms": heard["p99_ms"],
        "lost_percent": _lost_percent(heard),
        "disorder": heard["disorder"],
    }


def burst(server: Server, plan: Plan) -> Figures:
    with Load(plan.load, server.port, "/events/", plan.clients) as load:
        load.open(events=plan.events)
        time.sleep(0.5)
        before = server.cpu_seconds()
        heard = _publish_and_wait(server, load, plan)
        spent = server.cpu_seconds() - before
    return {
        "rate": heard["events"] / heard["span_s"] if heard["span_s"] else 0.0,
        "cpu_us": spent * 1e6 / max(1, heard["events"]),
        "lost_percent": _lost_percent(heard),
        "disorder": heard["disorder"],
    }


def spread(server: Server, plan: Plan) -> Figures:
    """One event at a time: from the moment the first client has it to the moment the last has it."""
    with Load(plan.load, server.port, "/events/", plan.clients) as load:
        load.open(events=plan.events)
        time.sleep(1)
        heard = _publish_and_wait(server, load, plan)
    return {
        "first_to_last_ms": heard["first_to_last_ms"],
        "max_ms": heard["max_ms"],
        "lost_percent": _lost_percent(heard),
    }


def neighbour(server: Server, plan: Plan) -> Figures:
    """Another view of the same site, asked again and again while many streams are open: without events, and with."""
    with Load(plan.load, server.port, "/events/", plan.clients) as load:
        load.open(events=plan.events)
        time.sleep(1)
        seconds = plan.events / plan.hz
        quiet = probe(server.port, seconds)
        load.start_waiting(plan.seconds)
        server.publish(plan.events, plan.hz, plan.size)
        busy = probe(server.port, seconds)
        heard = load.waited()
    return {
        "quiet_p50_ms": statistics.median(quiet) * 1e3,
        "busy_p50_ms": statistics.median(busy) * 1e3,
        "quiet_p99_ms": _percentile(quiet, 0.99) * 1e3,
        "busy_p99_ms": _percentile(busy, 0.99) * 1e3,
        "p99_ratio": _percentile(busy, 0.99) / _percentile(quiet, 0.99),
        "p99_ms": heard["p99_ms"],
        "lost_percent": _lost_percent(heard),
    }


def idle(server: Server, plan: Plan) -> Figures:
    memory, threads = server.memory_kib(), server.threads()
    with Load(plan.load, server.port, "/events/", plan.clients) as load:
        opened = load.open()
        time.sleep(2)
        return {
            "kib": (server.memory_kib() - memory) / opened["open"],
            "threads": (server.threads() - threads) / opened["open"],
            "failed": opened["failed"],
        }


def connect(server: Server, plan: Plan) -> Figures:
    """Everyone at once. ``paths``: the stream, and an empty view of the same site where there is one."""
    path = "/empty/" if server.peer.key.startswith(EMPTY) else "/events/"
    threads = server.threads()
    with Load(plan.load, server.port, path, plan.clients) as load, _watching(server.threads) as seen:
        before = server.cpu_seconds()
        opened = load.open(at_once=plan.clients)
        time.sleep(0.2)
        spent = server.cpu_seconds() - before
    return {
        "cpu_ms": spent * 1e3 / opened["open"],
        "seconds": opened["seconds"],
        "peak_threads": max(seen) - threads,
        "failed": opened["failed"],
    }


def resume(server: Server, plan: Plan) -> Figures:
    """Everyone comes back at once, and each has missed the same events; beside it, as many first connects."""
    with Load(plan.load, server.port, "/events/", plan.clients) as load:
        first = load.open(at_once=plan.clients)
        load.wait(1)  # until everyone has read the id that is to be brought back
        load.close()
        time.sleep(2)
        server.publish(plan.events, 0, plan.size)
        time.sleep(1)
        load.open(at_once=plan.clients, events=plan.events)
        heard = load.wait(plan.seconds)
    return {
        "first_s": first["seconds"],
        "resumed_s": heard["since_open_s"],
        "ratio": heard["since_open_s"] / first["seconds"],
        "lost_percent": _lost_percent(heard),
        "disorder": heard["disorder"],
    }


def reconnect(server: Server, plan: Plan) -> Figures:
    """As resume(), by pages of our own client, which bring the tickets that they were given."""
    is_ours = server.peer.application.startswith("live_site")
    header = server.ask("/enter") if is_ours and server.has_sessions else ""
    with Load(plan.load, server.port, "/events/?format=envelope", plan.clients, header) as load:
        first = load.open(at_once=plan.clients)
        load.wait(1)
        load.close()
        time.sleep(2)
        server.publish(plan.events, 0, plan.size)
        time.sleep(1)
        before = server.cpu_seconds()
        opened = load.open(at_once=plan.clients, events=plan.events)
        heard = load.wait(plan.seconds)
        spent = server.cpu_seconds() - before
    return {
        "cpu_ms": spent * 1e3 / opened["open"],
        "seconds": heard["since_open_s"],
        "first_s": first["seconds"],
        "tickets_percent": 100 * int(server.ask("/tickets")) / opened["open"] if is_ours else 0.0,
        "lost_percent": _lost_percent(heard),
        "disorder": heard["disorder"],
    }


def probe(port: int, seconds: float, path: str = "/empty/", pause: float = 0.005) -> list[float]:
    """How long each of many requests took, one after the other on one connection, in seconds."""
    times: list[float] = []
    until = time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.monotonic() < until:
            begin = time.perf_counter()
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            read_answer(connection)
            times.append(time.perf_counter() - begin)
            time.sleep(pause)
    return times


def _publish_and_wait(server: Server, load: Load, plan: Plan) -> dict[str, Any]:
    load.start_waiting(plan.seconds)
    server.publish(plan.events, plan.hz, plan.size)
    return load.waited()


def _lost_percent(heard: dict[str, Any]) -> float:
    return 100 * (1 - heard["events"] / heard["expected"]) if heard["expected"] else 0.0


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int((len(values) - 1) * share)]


@contextmanager
def _watching(read: Callable[[], int]) -> Iterator[list[int]]:
    """Read again and again, in a thread, as long as the block lasts."""
    seen = [read()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            seen.append(read())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


LOST = (Column("lost_percent", "lost", 1, unit=" %"), Column("disorder", "out of order", 0))
DJANGO = ("live", "plain")
CPU_AND_LATENCY = (
    Column("cpu_us", "CPU", relative=True),
    Column("cpu_us", "CPU per event", 1, unit=" µs"),
    Column("kernel_us", "of it in the kernel", 1, unit=" µs"),
    Column("p50_ms", "median latency", 1, unit=" ms"),
    Column("p99_ms", "p99", 1, unit=" ms"),
    *LOST,
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "fanout",
            "CPU of the server per delivered event",
            fanout,
            CPU_AND_LATENCY,
            clients=1000,
            events=100,
            hz=8,
        ),
        Scenario(
            "metrics",
            "What metrics add to the CPU per delivered event",
            fanout,
            CPU_AND_LATENCY,
            clients=1000,
            events=100,
            hz=8,
            rows=("live", "metrics"),
        ),
        Scenario(
            "burst",
            "As many events as can be published",
            burst,
            (
                Column("rate", "deliveries per second", relative=True),
                Column("rate", "deliveries per second", 0),
                Column("cpu_us", "CPU per event", 1, unit=" µs"),
                *LOST,
            ),
            clients=200,
            events=2000,
        ),
        Scenario(
            "spread",
            "One event to many clients",
            spread,
            (
                Column("first_to_last_ms", "first to last client", relative=True),
                Column("first_to_last_ms", "first to last client", 1, unit=" ms"),
                Column("max_ms", "last client after publication", 1, unit=" ms"),
                LOST[0],
            ),
            clients=10_000,
            events=10,
            hz=1,
        ),
        Scenario(
            "neighbour",
            "Another view of the same process, while events go out",
            neighbour,
            (
                Column("quiet_p50_ms", "median without events", 2, unit=" ms"),
                Column("busy_p50_ms", "with", 2, unit=" ms"),
                Column("quiet_p99_ms", "p99 without events", 2, unit=" ms"),
                Column("busy_p99_ms", "with", 2, unit=" ms"),
                Column("p99_ratio", "p99, with to without", 2),
                LOST[0],
            ),
            clients=10_000,
            events=50,
            hz=5,
            rows=DJANGO,
        ),
        Scenario(
            "idle",
            "Open streams on which nothing happens",
            idle,
            (
                Column("kib", "memory per stream", 1, unit=" KiB"),
                Column("threads", "OS threads per stream", 2),
                Column("failed", "not opened", 0),
            ),
            clients=10_000,
        ),
        Scenario(
            "connect",
            "Everyone connects at once",
            connect,
            (
                Column("cpu_ms", "CPU per connect", 2, unit=" ms"),
                Column("seconds", "until all are open", 1, unit=" s"),
                Column("peak_threads", "OS threads at the peak", 0),
                Column("failed", "not opened", 0),
            ),
            clients=5000,
        ),
        Scenario(
            "resume",
            "Everyone comes back at once",
            resume,
            (
                Column("first_s", "first connects", 2, unit=" s"),
                Column("resumed_s", "with the missed events", 2, unit=" s"),
                Column("ratio", "ratio"),
                *LOST,
            ),
            clients=5000,
            events=100,
            rows=DJANGO,
        ),
        Scenario(
            "reconnect",
            "Everyone comes back at once, with tickets",
            reconnect,
            (
                Column("cpu_ms", "CPU", relative=True),
                Column("cpu_ms", "CPU per client", 2, unit=" ms"),
                Column("seconds", "until all have what they missed", 2, unit=" s"),
                Column("first_s", "first connects", 2, unit=" s"),
                Column("tickets_percent", "by ticket", 1, unit=" %"),
                *LOST,
            ),
            clients=10_000,
            events=20,
            rows=("bare", "live"),
        ),
    )
}
