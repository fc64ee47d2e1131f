"""A load whose every number is known, and what the metrics say of it.

python -m tests.operating.load --clients 1000 --events 100 --breaks 300

Clients hear the events; some are broken by a reset; more events are broadcast; the broken ones come back and get what
they missed. Then everything that was counted is compared with what was done, to the unit.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.backends.redis_process import RedisProcess
from tests.live.harness import Crowd, Server, raise_descriptor_limit, until

SITE = {"DJANGO_SETTINGS_MODULE": "tests.operating.site.settings"}
MISSED = 10  # events while the broken ones are away

Samples = dict[str, float]


def parse(text: str) -> Samples:
    """``name`` or ``name{reason}`` → value."""
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = "".join(sample.labels.values())
            samples[f"{sample.name}{{{label}}}" if label else sample.name] = sample.value
    return samples


async def scrape(server: Server) -> Samples:
    return {name: value for name, value in parse(await server.get("/metrics/")).items() if name.startswith("sse_live_")}


async def run(server: Server, *, clients: int, events: int, breaks: int, workers: int = 1) -> tuple[Samples, Samples]:
    """(what was done, what was counted)."""

    async def counted(name: str, value: float) -> None:
        async def is_so() -> bool:
            return (await scrape(server)).get(name) == value

        await until(is_so, 30, say=name)

    crowd = await Crowd.open(server, clients)
    await counted("sse_live_streams", clients)
    await server.get(f"/publish/?count={events}")
    await crowd.all(lambda client: len(client.numbers) == events, 120)
    broken, whole = crowd.clients[:breaks], crowd.clients[breaks:]
    crowd.reset(broken)
    await counted("sse_live_streams", clients - breaks)
    await server.get(f"/publish/?from={events + 1}&count={MISSED}")
    await until(lambda: all(len(client.numbers) == events + MISSED for client in whole), 60)
    back = []
    for client in broken:
        back += (await Crowd.open(server, 1, headers={"Last-Event-ID": client.last_id})).clients
    await until(lambda: all(list(client.numbers)[-1:] == [events + MISSED] for client in back), 60)
    assert not Crowd(whole).faults(1, events + MISSED)
    assert not Crowd(back).faults(events + 1, events + MISSED)
    # Refused, and told by a reset.
    assert (await server.request("GET", "/events/"))[0] == 400
    lost = await Crowd.open(server, 1, headers={"Last-Event-ID": "nothing-like-it"})
    await lost.all(lambda client: client.resets == 1)

    streams = [*crowd.clients, *back, *lost.clients]
    done = {
        "sse_live_streams": clients + 1,
        "sse_live_streams_opened_total": clients + breaks + 1,
        "sse_live_streams_closed_total{client}": breaks,
        "sse_live_streams_refused_total{no_channel}": 1,
        "sse_live_events_published_total": events + MISSED,
        "sse_live_events_received_total": workers * (events + MISSED),
        "sse_live_events_delivered_total": clients * (events + MISSED),
        "sse_live_events_replayed_total": breaks * MISSED,
        "sse_live_resets_total{unknown_id}": 1,
        "sse_live_heartbeats_total": 0,
        "sse_live_sent_bytes_total": sum(client.received for client in streams),
    }

    async def is_counted() -> Samples:
        found = await scrape(server)
        return found if all(found.get(name) == value for name, value in done.items()) else {}

    try:
        found = await until(is_counted, 60)
    except AssertionError:
        found = await scrape(server)
    return done, found


def differences(done: Samples, counted: Samples) -> list[str]:
    return [
        f"{name}: {value} was done, {counted.get(name)} counted"
        for name, value in done.items()
        if counted.get(name) != value
    ]


async def one_process(**load: int) -> tuple[Samples, Samples]:
    async with Server(app="tests.operating.site.asgi:application", environment=SITE, HEARTBEAT_SECONDS=3600) as server:
        return await run(server, **load)


async def two_processes(**load: int) -> tuple[Samples, Samples]:
    """Two workers, Redis between them, and prometheus-client's multiprocess mode."""
    with RedisProcess() as redis, tempfile.TemporaryDirectory(prefix="sse-metrics-") as directory:
        server = Server(
            "uvicorn-2",
            app="tests.operating.site.asgi:application",
            environment={**SITE, "PROMETHEUS_MULTIPROC_DIR": directory},
            HEARTBEAT_SECONDS=3600,
            BACKEND="django_sse_live.backends.redis_streams.RedisStreamsBackend",
            OPTIONS={"URL": redis.url},
        )
        async with server:
            await _both_answer(server)
            return await run(server, workers=2, **load)


async def _both_answer(server: Server) -> None:
    """Until each worker has a hub, which its first health check makes."""
    seen: set[Any] = set()

    async def both() -> bool:
        await server.get("/events/health/")
        state = await server.state()
        if state["hubs"]:
            seen.add(state["pid"])
        return len(seen) == 2 and (await server.get_json("/events/health/"))["status"] == "ok"

    await until(both)


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--breaks", type=int, default=300)
    load = vars(parser.parse_args(arguments))
    raise_descriptor_limit()
    wrong = []
    for way in (one_process, two_processes):
        done, counted = asyncio.run(way(**load))
        print(way.__name__)
        for name, value in done.items():
            print(f"  {name:45} {int(value):>12,} done {int(counted.get(name, -1)):>12,} counted")
        wrong += differences(done, counted)
    raise SystemExit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
