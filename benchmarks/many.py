"""``python -m benchmarks many``: many streams on several workers, with Redis between them: opened, idle, told one
event, and back after a restart of all workers at once.

Each worker has a port and a load generator of its own, as behind a balancer that spreads evenly.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.backends.redis_process import RedisProcess

from .load import Load, load_command
from .scenarios import Figures
from .servers import ALL_PEERS, HERE, Server, Workshop, environment, work_directory

SECONDS: Final = 60.0  # at most, for an event to arrive, and for streams to end
AT_ONCE: Final = 1000  # connects of each load generator that are under way
TITLES: Final = {
    "open_s": ("all are open after", "s"),
    "open_ms": ("CPU per stream that opens", "ms"),
    "not_open": ("not opened", ""),
    "kib": ("memory per stream", "KiB"),
    "event_ms": ("one event: the last has it after", "ms"),
    "event_us": ("CPU per delivery of it", "µs"),
    "told_s": ("restart: every stream has ended after", "s"),
    "no_goodbye": ("streams that ended without a goodbye", ""),
    "up_s": ("the new workers are up after", "s"),
    "back_s": ("then all are back, with what they missed, after", "s"),
    "back_ms": ("CPU per stream that comes back", "ms"),
    "not_back": ("not back", ""),
    "missed": ("events that were missed and have not come", ""),
}


def measure(workshop: Workshop, command: list[str], clients: int, workers: int) -> Figures:
    with RedisProcess() as redis, ExitStack() as stack:
        workshop.variables["REDIS"] = redis.url

        def start(port: int | None = None) -> Server:
            return workshop.start(ALL_PEERS["live"], port)

        def cpu_seconds() -> float:
            return sum(server.cpu_seconds() for server in servers)

        def open_all() -> dict[str, float]:
            before = cpu_seconds()
            for load in loads:
                load.start_opening(AT_ONCE, 1)
            opened = [load.opened() for load in loads]
            return {
                "seconds": max(each["seconds"] for each in opened),
                "failed": sum(each["failed"] for each in opened),
                "ms": 1e3 * (cpu_seconds() - before) / clients,
            }

        def waited() -> list[dict[str, float]]:
            for load in loads:
                load.start_waiting(SECONDS)
            return [load.waited() for load in loads]

        servers = [stack.enter_context(start()) for _ in range(workers)]
        ports = [server.port for server in servers]
        loads = [stack.enter_context(Load(command, port, "/events/", clients // workers)) for port in ports]
        empty = sum(server.memory_kib() for server in servers)
        opened = open_all()
        time.sleep(3)
        figures = {"open_s": opened["seconds"], "open_ms": opened["ms"], "not_open": opened["failed"]}
        figures["kib"] = (sum(server.memory_kib() for server in servers) - empty) / clients
        before = cpu_seconds()
        for load in loads:
            load.start_waiting(SECONDS)
        servers[0].publish(1, 0, 100)
        heard = [load.waited() for load in loads]
        figures["event_ms"] = max(each["max_ms"] for each in heard)
        figures["event_us"] = 1e6 * (cpu_seconds() - before) / clients
        began = time.monotonic()
        for load in loads:
            load.start_ending(SECONDS)
        for server in servers:
            server.stop()
        ended = [load.waited() for load in loads]
        figures["told_s"] = time.monotonic() - began
        figures["no_goodbye"] = clients - sum(each["goodbyes"] for each in ended)
        for server in servers:
            server.wait(SECONDS)
        servers = [stack.enter_context(server) for server in [start(port) for port in ports]]
        figures["up_s"] = time.monotonic() - began
        servers[0].publish(1, 0, 100)  # what all of them have missed
        time.sleep(0.5)
        for load in loads:
            load.close()
        began = time.monotonic()
        reopened = open_all()
        heard = waited()
        figures["back_s"] = time.monotonic() - began
        figures |= {"back_ms": reopened["ms"], "not_back": reopened["failed"]}
        figures["missed"] = clients - sum(each["events"] for each in heard)
        return figures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks many", description=__doc__)
    parser.add_argument("--clients", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=3, help="a process may have so many descriptors: ulimit -n")
    parser.add_argument("--rounds", type=int, default=3, help="medians are taken of so many (default 3)")
    parser.add_argument("--python", type=Path, help="one that has all that is needed; else an environment is made")
    parser.add_argument("--work", type=Path, default=HERE / ".work", help="where that and the rest is kept")
    options = parser.parse_args(arguments)
    work = work_directory(options.work.absolute())
    workshop = Workshop(work, options.python or environment(work))
    command = load_command(work)
    clients = options.clients // options.workers * options.workers
    rounds = [measure(workshop, command, clients, options.workers) for _ in range(options.rounds)]
    print(f"{clients:,} streams on {options.workers} workers, Uvicorn; medians of {options.rounds} rounds.\n")
    print("| | |\n|---|---:|")
    for name, (title, unit) in TITLES.items():
        figure = statistics.median(each[name] for each in rounds)
        print(f"| {title} | {figure:,.{1 if unit else 0}f} {unit} |".replace("  |", " |"))
    return 0
