"""Tickets on real servers: who was logged out on one worker does not come back by a ticket on another.

SSE_LIVE_TICKET_EVENTS: how many events are broadcast after each revocation; by default 1, and 2,000 or,
where SQLite is the bus, 50.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from tests.backends.redis_process import RedisProcess
from tests.live.access.conftest import cookie_of_a_new_session
from tests.live.harness import Crowd, Server, until
from tests.live.harness.servers import FOUR

EVENTS = [1, int(os.environ.get("SSE_LIVE_TICKET_EVENTS", "2000"))]
STORED_EVENTS = [1, int(os.environ.get("SSE_LIVE_TICKET_EVENTS", "50"))]  # SQLite writes each by itself
WAYS = {
    "logout": "/leave/",
    "password": "/password/own/",
    "deactivation": "/deactivate/",
    "deletion": "/delete/",
    "disconnect_clients": "/disconnect/",
}
TICKET = re.compile(r'"ticket":"([^"]+)"')


@dataclass
class Ticket:
    """What a page brings back."""

    cookie: dict[str, str]
    text: str
    last_id: str

    @property
    def path(self) -> str:
        return f"/events/?format=envelope&ticket={quote(self.text)}&last_event_id={quote(self.last_id)}"

    async def open(self, server: Server, count: int = 1) -> Crowd:
        return await Crowd.open(server, count, self.path, headers=self.cookie, keep=True, wait=False)

    async def resumes(self, server: Server) -> bool:
        """Whether it is let in by the ticket. It waits for the answer, whatever that is."""
        before = (await server.state())["tickets"]
        crowd = await self.open(server)
        await crowd.all(lambda client: client.connected or client.goodbyes or client.is_gone or client.status >= 400)
        crowd.close()
        return bool((await server.state())["tickets"] > before)


async def ticket_from(server: Server, cookie: dict[str, str]) -> Ticket:
    """A busy worker that does not know yet where its bus is gives none: the page comes again."""
    while True:
        crowd = await Crowd.open(server, 1, "/events/?format=envelope", headers=cookie, keep=True)
        (client,) = crowd
        await until(lambda client=client: client.connected)
        found = TICKET.search(client.body)
        crowd.close()
        if found is not None:
            return Ticket(cookie, json.loads(f'"{found[1]}"'), client.last_id)


@pytest.fixture
def options(environment: dict[str, str], redis: RedisProcess) -> dict[str, Any]:
    return {
        "environment": environment,
        "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
        "OPTIONS": {"URL": redis.url, "MAXLEN": 100},  # what was revoked is known for longer than events are
        "HISTORY_EVENTS": 100,
        "PUBLIC_CHANNELS": [],
        "AUTHORIZE": None,
    }


@pytest.fixture
def options_of_database(environment: dict[str, str]) -> dict[str, Any]:
    return {
        "environment": environment,
        "BACKEND": "django_sse_live.database.DatabaseBackend",
        "PUBLIC_CHANNELS": [],
        "AUTHORIZE": None,
    }


async def revoke_and_come_back(
    here: Server, there: Server, start_server: Any, options: dict[str, Any], events: int
) -> None:
    """Each way to end access, done ``here``, against tickets ``there`` and on a worker that is started later."""
    tickets = {}
    streams = {}
    for way in WAYS:
        cookie = await cookie_of_a_new_session(here, way)
        tickets[way] = await ticket_from(there, cookie)
        for server in (there, here):  # a slow machine may take its bus for away for a moment
            await until(lambda server=server, ticket=tickets[way]: ticket.resumes(server))
        streams[way] = await tickets[way].open(there)
        await streams[way].all(lambda client: client.connected)
    bystander = await ticket_from(there, await cookie_of_a_new_session(here))
    for way, url in WAYS.items():
        ticket = tickets[way]
        await here.get(url, **ticket.cookie)
        began = time.monotonic()
        for begun in range(0, events, 1000):
            await here.get(f"/publish/?channel=busy&from={begun}&count={min(1000, events - begun)}")
        late = await ticket.open(there, 5)  # perhaps before the word has come
        await streams[way].all(lambda client: client.is_ended)
        print(f"{way}: the stream on the other worker ended after {1000 * (time.monotonic() - began):.0f} ms")
        await until(lambda late=late: all(c.is_ended or c.status >= 400 or c.connected for c in late))
        if way != "disconnect_clients":  # nobody is banned: Django may have let them in
            await late.all(lambda client: client.is_ended or client.is_gone or client.status >= 400)
        late.close()
        assert not await ticket.resumes(there) and not await ticket.resumes(here), way
    later = await start_server("uvicorn", **options)
    for way, ticket in tickets.items():
        assert not await ticket.resumes(later), way
    await until(lambda: bystander.resumes(later))
    refused = (await later.state())["tickets_refused"]
    assert refused.keys() <= {"revoked", "bus_away", "not_ready"} and refused["revoked"], refused
    for server in (here, there, later):
        await until(lambda server=server: _is_empty(server))


async def _is_empty(server: Server) -> bool:
    return bool((await server.state())["clients"] == 0)


@pytest.mark.needs("redis")
@pytest.mark.parametrize("events", EVENTS)
@pytest.mark.parametrize("name", FOUR)
async def test_who_may_not_hear_any_more_does_not_come_back(
    start_server: Any, options: dict[str, Any], name: str, events: int
) -> None:
    here, there = await asyncio.gather(start_server("uvicorn", **options), start_server(name, **options))
    await revoke_and_come_back(here, there, start_server, options, events)


@pytest.mark.parametrize("events", STORED_EVENTS)
async def test_nor_where_the_database_is_the_bus(
    start_server: Any, options_of_database: dict[str, Any], events: int
) -> None:
    here, there = [await start_server("uvicorn", **options_of_database) for _ in range(2)]
    await revoke_and_come_back(here, there, start_server, options_of_database, events)


@pytest.mark.parametrize("name", FOUR)
async def test_a_ticket_of_another(start_server: Any, environment: dict[str, str], name: str) -> None:
    """Another user, session, url, origin or host, nobody at all, and what was changed."""
    server = await start_server(name, environment=environment, PUBLIC_CHANNELS=["news"])
    ada, again, bob = [await cookie_of_a_new_session(server, who) for who in ("ada", "ada", "bob")]
    ticket = await ticket_from(server, ada)
    assert await ticket.resumes(server)
    for cookie in (
        again,
        bob,
        {},
        {**ada, "Origin": "https://elsewhere.example.com"},
    ):
        assert not await Ticket(cookie, ticket.text, ticket.last_id).resumes(server), cookie
    for text in (ticket.text[:-1], ticket.text[1:], "A" + ticket.text, ticket.text.replace("~", "~A")):
        assert not await Ticket(ada, text, ticket.last_id).resumes(server)
    crowd = await Crowd.open(server, 1, f"{ticket.path}&channel=news", headers=ada)
    crowd.close()
    state = await server.state()
    assert state["tickets"] == 1 and sum(state["tickets_refused"].values()) == 9, state


@pytest.mark.needs("redis")
async def test_machines_whose_clocks_are_minutes_apart(start_server: Any, options: dict[str, Any]) -> None:
    options |= {"app": "tests.live.project.skewed_asgi:application", "MAX_AGE_SECONDS": 6}
    here, there = [await start_server("uvicorn", **options) for _ in range(2)]
    await here.get("/jump/?150")
    await there.get("/jump/?-150")
    tickets = [await ticket_from(server, await cookie_of_a_new_session(server)) for server in (here, there)]
    began = time.monotonic()
    for ticket in tickets:
        assert await ticket.resumes(here) and await ticket.resumes(there)
    await here.get("/leave/", **tickets[0].cookie)
    await until(lambda: _is_refused(tickets[0], there))
    assert not await tickets[0].resumes(here)
    assert await tickets[1].resumes(here)
    await asyncio.sleep(max(0.0, began + 1.1 * 6 - time.monotonic()))  # its life, which is what is tested
    for server in (here, there):
        assert not await tickets[1].resumes(server)


async def _is_refused(ticket: Ticket, server: Server) -> bool:
    return not await ticket.resumes(server)


NEWS = "/events/?format=envelope&channel=news"


async def _gives_tickets(server: Server) -> bool:
    """It has read what the bus keeps; a stream that opens before has none."""
    crowd = await Crowd.open(server, 1, NEWS, keep=True)
    crowd.close()
    return TICKET.search(crowd[0].body) is not None


@dataclass
class Page:
    """A page of our own client: it comes back by its ticket each time its stream ends."""

    heard: list[int] = field(default_factory=list)
    resets: int = 0
    ticket: str = ""
    last_id: str = ""
    client: Any = None

    async def listen(self, server: Server) -> None:
        path = NEWS
        if self.ticket:
            path += f"&ticket={self.ticket}&last_event_id={quote(self.last_id)}"
        (self.client,) = await Crowd.open(server, 1, path, keep=True)

    async def has_heard(self, last: int) -> None:
        await until(lambda: self.client.numbers and self.client.numbers[-1] == last)

    async def end(self) -> None:
        """Its worker has ended its stream."""
        await until(lambda: self.client.is_ended or self.client.is_gone)
        self.heard += self.client.numbers
        self.resets += self.client.resets
        self.ticket = TICKET.findall(self.client.body)[-1]
        self.last_id = self.client.last_id


@pytest.mark.parametrize("bus", ["options", "options_of_database"])
async def test_a_rolling_restart_resets_nobody(start_server: Any, request: pytest.FixtureRequest, bus: str) -> None:
    """On Redis and on the database: the pages of a worker that ends go on at the other one."""
    options = {**request.getfixturevalue(bus), "PUBLIC_CHANNELS": ["news"]}
    workers = [await start_server("uvicorn", **options) for _ in range(2)]
    pages = [[Page() for _ in range(10)] for _ in workers]
    last = 0

    async def publish(server: Server) -> None:
        nonlocal last
        await server.get(f"/publish/?channel=news&from={last + 1}&count=5")
        last += 5

    for worker, its in zip(workers, pages, strict=True):
        await until(lambda worker=worker: _gives_tickets(worker))
        for page in its:
            await page.listen(worker)
    accepted = refused = 0
    for leaving, staying in ((0, 1), (1, 0)):
        await publish(workers[leaving])
        for page in pages[leaving]:
            await page.has_heard(last)
        before = await workers[staying].state()
        await workers[leaving].stop()
        for page in pages[leaving]:
            await page.end()
        await publish(workers[staying])
        for page in pages[leaving]:
            await page.listen(workers[staying])
            await page.has_heard(last)
        after: Any = await workers[staying].state()
        accepted += after["tickets"] - before["tickets"]
        refused += sum(after["tickets_refused"].values())
        assert after["tickets_refused"].keys() <= {"bus_away", "not_ready"}  # a slow machine may take it for away
        pages[staying] += pages[leaving]
        pages[leaving] = []
        await workers[leaving].begin()
        await until(lambda worker=workers[leaving]: _gives_tickets(worker))
    assert accepted and accepted + refused == 10 + 20
    await workers[0].stop()
    for page in pages[0]:
        await page.end()
        assert (page.heard, page.resets) == (list(range(1, last + 1)), 0)
