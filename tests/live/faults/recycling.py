"""Workers that their server ends by itself: after so many requests, or after a time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Client, Crowd, Server, until

REQUESTS = 40
# By number of requests; Granian, which does not count, by its worker's age, of which it takes no less than a minute.
OPTIONS = {
    "uvicorn": f"--limit-max-requests {REQUESTS}",
    "uvicorn-h11": f"--limit-max-requests {REQUESTS}",
    "uvicorn-2": f"--limit-max-requests {REQUESTS}",
    "gunicorn": f"--max-requests {REQUESTS}",
    "hypercorn": f"--max-requests {REQUESTS}",
    "granian": "--workers-lifetime 60",
}


async def recycle(name: str, *, clients: int = 20) -> Row:
    row = Row("worker recycled", name, f"{clients} streams, {OPTIONS[name]}")
    async with Server(name, arguments=OPTIONS[name]) as server:
        crowd = await Crowd.open(server, clients)
        ended: dict[Client, float] = {}  # streams, and when
        for client in crowd:
            client.on_body = client.on_gone = lambda client: _note(client, ended)
        began = time.monotonic()
        asking = asyncio.ensure_future(_ask(server, 0.2 if name == "granian" else 0.01))
        await until(lambda: len(ended) == clients, 100)
        asking.cancel()
        ended_at = min(ended.values())
        took = max(ended.values()) - ended_at
        told = crowd.count(lambda client: client.goodbyes == 1 and client.is_ended)
        if name in ("uvicorn", "uvicorn-h11"):  # alone: whoever started it starts it again
            back = await server.gone(10)
        else:
            back = await _answers_again(server) - max(ended.values())
        noise = server.noise()
        row.figures = {
            "told goodbye": f"{told} of {clients}",
            "all ended within": f"{took:.1f} s of the first",
            "process gone in" if name in ("uvicorn", "uvicorn-h11") else "the site answers after": f"{back:.1f} s",
            "after": f"{ended_at - began:.1f} s",
            "lines above INFO": len(noise),
        }
        row.require(told == clients, f"{clients - told} were told nothing")
        row.measure(took < 1.5, f"the streams took {took:.1f} s to end")
        # Uvicorn's supervisor takes 5 to 7 s to notice that both of its workers have ended, without a stream too.
        row.measure(back < 3 or name == "uvicorn-2", f"{back:.1f} s until the site answers")
        row.require(not noise, first_lines(noise))
    return row


def _note(client: Client, ended: dict[Client, float]) -> None:
    if client.is_ended or client.is_gone:
        ended.setdefault(client, time.monotonic())


async def _ask(server: Server, pause_seconds: float) -> None:
    while True:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            await asyncio.wait_for(server.get("/plain/async/"), 2)
        await asyncio.sleep(pause_seconds)


async def _answers_again(server: Server) -> float:
    async def answers() -> bool:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            return await asyncio.wait_for(server.get("/plain/async/"), 10) == "async"
        return False

    await until(answers, 60)
    return time.monotonic()
