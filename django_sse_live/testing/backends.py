"""What every backend must do, as tests. For those who write one.

    class MyBackendTests(BackendSuite, unittest.IsolatedAsyncioTestCase):
        def make_backend(self) -> Backend:
            return MyBackend({"URL": …})

Each backend that it makes stands for one process, and all of them for processes on the same bus. What a backend claims
by its class attributes is tested; where a bus can be taken away, override take_bus_away() and bring_bus_back().
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..backends.base import Backend
from ..events import Event, parse_id
from ..hub.clients import Client
from ..hub.hub import DISCONNECT, Hub
from ..hub.log import EventLog
from ..hub.registry import forget_hubs

__all__ = ["BackendSuite"]


class BackendSuite:
    """Mix it into unittest.IsolatedAsyncioTestCase, before it."""

    within_seconds: float = 20.0  # how long the bus may take for anything
    # How long publish() may take while the bus is away: 50 ms here, and what a busy machine adds.
    save_seconds: float = 0.2
    assertEqual: Callable[..., None]
    assertTrue: Callable[..., None]
    assertLess: Callable[..., None]
    assertRaises: Callable[..., Any]
    skipTest: Callable[..., Any]

    def make_backend(self) -> Backend:
        """A backend on the bus of this test; another for each process that is played."""
        raise NotImplementedError

    async def take_bus_away(self) -> None:
        """Make the bus unreachable. Where this is not overridden, outages are not tested."""
        self.skipTest("this suite does not know how to take the bus away")

    async def bring_bus_back(self) -> None:
        raise NotImplementedError

    # The stage

    async def asyncSetUp(self) -> None:
        asyncio.get_running_loop().set_debug(False)  # unittest sets it; what is timed here is the bus
        forget_hubs()
        self._backends: list[Backend] = []

    async def asyncTearDown(self) -> None:
        for backend in self._backends:
            await asyncio.to_thread(backend.close)
        forget_hubs()
        await asyncio.sleep(0)

    def process(self) -> Backend:
        """One more process on the bus."""
        backend = self.make_backend()
        self._backends.append(backend)
        return backend

    async def open_hub(self, backend: Backend) -> Hub:
        """A hub of this loop, attached and filled."""
        hub = Hub(asyncio.get_running_loop(), EventLog("0"))
        backend.attach(hub)
        await hub.filled()
        return hub

    async def until(self, condition: Callable[[], object], say: Callable[[], object] | None = None) -> None:
        end = time.monotonic() + self.within_seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"it did not happen in time: {say() if say is not None else condition}")
            await asyncio.sleep(0.002)

    def heard(self, hub: Hub, channel: str = "c", after: int = 0) -> list[Any]:
        """The data of the events of a channel, as far as the hub's log goes back."""
        data: list[Any] = []
        while events := hub.log.read((channel,), after):
            data += [event.data for event in events]
            after = events[-1].position
        return data

    def event(self, data: Any, *channels: str, type: str = "t") -> Event:
        return Event(channels or ("c",), type, json.dumps(data))

    # What holds for every backend

    async def test_what_was_published_arrives_unchanged(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        text = "<li>ünïcode 🎈 \u2028</li>\r\nsecond line\n"
        backend.publish(Event(("a", "b:ü"), "new_comment", '{"id":7,"text":"żółć"}'))
        backend.publish(Event(("a",), "fragment", text, is_text=True))
        await self.until(lambda: len(hub.log) == 2)
        first, second = hub.log.read(("a",), 0)
        self.assertEqual(
            (first.channels, first.type, first.payload, first.is_text),
            (("a", "b:ü"), "new_comment", '{"id":7,"text":"żółć"}', False),
        )
        self.assertEqual((second.type, second.payload, second.is_text), ("fragment", text, True))
        self.assertEqual(parse_id(first.id), (hub.log.epoch, first.position))
        self.assertTrue(first.position < second.position)

    async def test_events_arrive_once_and_in_the_order_of_publishing(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        for number in range(100):
            backend.publish(self.event(number))
            if number % 20 == 0:
                await asyncio.sleep(0)
        await self.until(lambda: len(hub.log) >= 100, lambda: self.heard(hub))
        self.assertEqual(self.heard(hub), list(range(100)))

    async def test_every_hub_hears_the_same_order_from_several_threads(self) -> None:
        backend = self.process()
        hubs = [await self.open_hub(backend)]
        if type(backend).reaches_other_processes:
            hubs.append(await self.open_hub(self.process()))

        def publish(thread: int) -> None:
            for number in range(25):
                backend.publish(self.event([thread, number]))
                time.sleep(0.0005)  # no bus is asked for more than it can hold

        with ThreadPoolExecutor(4) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, publish, thread) for thread in range(4)))
        await self.until(lambda: all(len(hub.log) >= 100 for hub in hubs))
        heard = [self.heard(hub) for hub in hubs]
        self.assertTrue(all(other == heard[0] for other in heard))
        for thread in range(4):
            self.assertEqual([n for t, n in heard[0] if t == thread], list(range(25)))

    async def test_coroutines_publish_in_the_order_of_their_calls(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        await asyncio.gather(*(backend.apublish(self.event(number)) for number in range(25)))
        await self.until(lambda: len(hub.log) >= 25)
        self.assertEqual(self.heard(hub), list(range(25)))

    async def test_a_hub_on_another_loop_hears_it_too(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        there: list[Hub] = []
        opened, done = threading.Event(), asyncio.Event()

        async def other_loop() -> None:
            there.append(await self.open_hub(backend))
            opened.set()
            await done.wait()

        thread = threading.Thread(target=asyncio.run, args=[other_loop()])
        thread.start()
        try:
            await asyncio.to_thread(opened.wait, self.within_seconds)
            await asyncio.to_thread(backend.publish, self.event("hello"))
            await self.until(lambda: len(hub.log) == 1 and len(there[0].log) == 1)
        finally:
            there[0].loop.call_soon_threadsafe(done.set)
            await asyncio.to_thread(thread.join)
        # That loop is closed now, and nothing fails on it.
        backend.publish(self.event("again"))
        await self.until(lambda: self.heard(hub) == ["hello", "again"])

    async def test_publishing_works_where_nobody_listens(self) -> None:
        backend = self.process()
        await asyncio.to_thread(backend.publish, self.event(1))
        self.assertTrue(isinstance(backend.position(), str))

    async def test_a_control_event_is_obeyed_by_every_hub_that_runs_and_by_none_that_comes_later(self) -> None:
        backend = self.process()
        hubs = [await self.open_hub(backend)]
        if type(backend).reaches_other_processes:
            hubs.append(await self.open_hub(self.process()))
        clients = [self._client(hub, user_pk="7") for hub in hubs]
        backend.publish(self.event({"user_pk": "7"}, "sse.control", type=DISCONNECT))
        await self.until(lambda: all(client.close_reason == "disconnected" for client in clients))
        later = await self.open_hub(backend)
        client = self._client(later, user_pk="7")
        backend.publish(self.event("after"))
        await self.until(lambda: self.heard(later) == ["after"])
        self.assertEqual(client.close_reason, None)

    async def test_a_page_that_takes_the_position_misses_nothing_after_it(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        backend.publish(self.event("before"))
        await self.until(lambda: len(hub.log) == 1)
        place = parse_id(backend.position())
        if place is None:
            self.assertEqual(backend.position(), "")
            self.skipTest("positions of this backend mean nothing to other workers")
            return
        backend.publish(self.event("after"))
        await self.until(lambda: len(hub.log) == 2)
        self.assertEqual(place[0], hub.log.epoch)
        self.assertEqual(self.heard(hub, after=place[1])[-1], "after")

    async def test_what_was_published_before_the_first_hub_can_be_resumed(self) -> None:
        backend = self.process()
        if not (type(backend).resumes_on_other_workers or not type(backend).reaches_other_processes):
            self.skipTest("this backend keeps nothing")
            return
        place = parse_id(backend.position())
        backend.publish(self.event("early"))
        hub = await self.open_hub(backend)
        assert place is not None
        self.assertEqual(place[0], hub.log.epoch)
        self.assertTrue(not hub.log.lost(("c",), place[1]))
        await self.until(lambda: self.heard(hub, after=place[1]) == ["early"])

    async def test_another_worker_has_the_same_events_under_the_same_ids(self) -> None:
        backend = self.process()
        if not type(backend).resumes_on_other_workers:
            self.skipTest("this backend does not claim it")
            return
        hub = await self.open_hub(backend)
        for number in range(30):
            backend.publish(self.event(number))
        await self.until(lambda: len(hub.log) == 30)
        other = await self.open_hub(self.process())
        ids = [event.id for event in hub.log.read(("c",), 0)]
        self.assertEqual([event.id for event in other.log.read(("c",), 0)], ids)
        self.assertTrue(not other.log.lost(("c",), hub.log.read(("c",), 0)[0].position))

    async def test_an_unknown_option_is_refused(self) -> None:
        with self.assertRaises(ImproperlyConfigured):
            type(self.process())({"NO_SUCH_OPTION": 1})

    # Outages

    async def test_publishing_is_quick_and_silent_while_the_bus_is_away(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        backend.publish(self.event("before"))
        await self.until(lambda: len(hub.log) == 1)
        client = self._client(hub)
        await self.take_bus_away()

        def save(number: int) -> float:
            begin = time.perf_counter()
            backend.publish(self.event(number))
            return time.perf_counter() - begin

        slowest = max([await asyncio.to_thread(save, number) for number in range(20)])
        await self.bring_bus_back()
        self.assertLess(slowest, self.save_seconds)

        def is_whole() -> bool:
            return self.heard(hub)[-20:] == list(range(20)) or self._was_told(client)

        await self.until(is_whole)
        self.assertTrue(client.is_open)

    def _client(self, hub: Hub, **whose: str) -> Client:
        client = Client(hub, ("c",), **whose)  # type: ignore[arg-type]
        client.open()
        client.take()
        return client

    def _was_told(self, client: Client) -> bool:
        frames = b""
        while (body := client.take()) is not None:
            frames += body
        return b"event: reset" in frames
