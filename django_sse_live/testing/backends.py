"""What every backend must do, as tests. For those who write one.

    class MyBackendTests(BackendSuite, unittest.IsolatedAsyncioTestCase):
        def make_backend(self) -> Backend:
            return MyBackend({"URL": …})

Each backend that it makes stands for one process, and all of them for processes on the same bus. What a backend claims
by its class attributes is tested; where a bus can be taken away, override take_bus_away() and bring_bus_back(); where
it takes part in the transactions of a database, name its alias in ``database``.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..events import CONTROL_CHANNEL, DISCONNECT, Event, parse_id
from ..hub.hub import Hub
from ..jobs.records import DELTAS
from .backend_transactions import TransactionSuite

__all__ = ["BackendSuite"]


class BackendSuite(TransactionSuite):
    """Mix it into unittest.IsolatedAsyncioTestCase, before it."""

    async def test_deltas_of_jobs_reach_every_process_in_order_and_are_no_events(self) -> None:
        sender = self.process()
        receiver = self.process() if sender.reaches_other_processes and sender.carries_deltas else sender
        hub = await self.open_hub(receiver)
        receiver.hear_deltas(hub)
        heard: list[Any] = []
        hub.handlers[DELTAS] = lambda said: heard.extend(said["jobs"])
        sent: list[int] = []

        def send() -> bool:
            sent.append(len(sent))
            sender.publish_deltas(Event((CONTROL_CHANNEL,), DELTAS, json.dumps({"jobs": sent[-1:]})))
            return bool(heard)

        async def sends() -> None:  # the first may be lost, while connections are made
            end = time.monotonic() + self.within_seconds
            while not await asyncio.to_thread(send):
                self.assertTrue(time.monotonic() < end)
                await asyncio.sleep(0.02)

        await sends()
        await sender.apublish(self.event("an event"))
        await asyncio.to_thread(send)
        await self.until(lambda: heard[-1:] == sent[-1:] and self.heard(hub))
        self.assertEqual(heard, sorted(heard))
        self.assertEqual(self.heard(hub), ["an event"])

    async def test_what_was_published_arrives_unchanged(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        text = "<li>ünïcode 🎈 \u2028</li>\r\nsecond line\n"
        backend.publish(Event(("a", "b:ü"), "new_comment", '{"id":7,"text":"żółć"}'))
        backend.publish(Event(("a",), "fragment", text, is_text=True))
        backend.publish(Event(("a",), "patched_text", text, patch='{"html":"<li>\\n✓</li>"}', is_text=True))
        many = ("a", *(f"user:{number:036}" for number in range(2_000)))
        backend.publish(Event(many, "for_many", "1"))
        await self.until(lambda: len(hub.log) == 4)
        first, second, third, fourth = hub.log.read(("a",), 0)
        self.assertEqual(
            (first.channels, first.type, first.payload, first.is_text),
            (("a", "b:ü"), "new_comment", '{"id":7,"text":"żółć"}', False),
        )
        self.assertEqual((second.type, second.payload, second.is_text), ("fragment", text, True))
        self.assertEqual((first.patch, second.patch), (None, None))
        self.assertEqual((third.payload, third.patch), (text, '{"html":"<li>\\n✓</li>"}'))
        self.assertEqual(fourth.channels, many)
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
            for number in range(20):  # 80 events: fewer than a channel layer holds for a slow receiver
                backend.publish(self.event([thread, number]))
                time.sleep(0.0005)

        with ThreadPoolExecutor(4) as threads:
            loop = asyncio.get_running_loop()
            await asyncio.gather(*(loop.run_in_executor(threads, publish, thread) for thread in range(4)))
        await self.until(lambda: all(len(hub.log) >= 80 for hub in hubs))
        heard = [self.heard(hub) for hub in hubs]
        self.assertTrue(all(other == heard[0] for other in heard))
        for thread in range(4):
            self.assertEqual([n for t, n in heard[0] if t == thread], list(range(20)))

    async def test_coroutines_publish_in_the_order_of_their_calls(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        await asyncio.gather(*(backend.apublish(self.event(number)) for number in range(25)))
        await self.until(lambda: len(hub.log) >= 25)
        self.assertEqual(self.heard(hub), list(range(25)))

    async def test_a_hub_on_another_loop_hears_it_too(self) -> None:
        backend = self.process()
        if not type(backend).serves_several_loops:
            self.skipTest("this backend serves one loop of a process")
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

    async def test_what_was_published_before_a_goodbye_is_sent_before_it(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        client = self._client(hub)
        for number in range(5):
            backend.publish(self.event(number))
        backend.publish(self.event("done"))
        backend.publish(self.event({"channel": "c"}, "sse.control", type=DISCONNECT))
        backend.publish(self.event("after"))
        await self.until(lambda: client.close_reason == "disconnected" and "after" in self.heard(hub))
        text = self._taken(client).decode()
        sent = [part.partition("data: ")[2] for part in text.split("\n\n") if "event: t\n" in part]
        self.assertEqual(sent, ["0", "1", "2", "3", "4", '"done"'])
        self.assertTrue("event: goodbye" in text.split("\n\n")[-2])

    async def test_a_page_that_takes_the_position_misses_nothing_after_it(self) -> None:
        backend = self.process()
        hub = await self.open_hub(backend)
        backend.publish(self.event("before"))
        await self.until(lambda: len(hub.log) == 1)
        place = parse_id(backend.position())
        if place is None:
            self.assertEqual(backend.position(), "")
            self.skipTest("positions of this backend mean nothing to other workers")
        backend.publish(self.event("after"))
        await self.until(lambda: len(hub.log) == 2)
        self.assertEqual(place[0], hub.log.epoch)
        self.assertEqual(self.heard(hub, after=place[1])[-1], "after")

    async def test_what_was_published_before_the_first_hub_can_be_resumed(self) -> None:
        backend = self.process()
        if not (type(backend).resumes_on_other_workers or not type(backend).reaches_other_processes):
            self.skipTest("this backend keeps nothing")
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

        seconds = [await asyncio.to_thread(save, number) for number in range(20)]
        await self.bring_bus_back()
        # A backend that waits does so at every save, or for long at one. A busy machine disturbs some, for a while.
        self.assertLess(median(seconds), self.save_seconds)
        self.assertLess(sum(seconds), self.within_seconds)

        def is_whole() -> bool:
            return self.heard(hub)[-20:] == list(range(20)) or self._was_told(client)

        await self.until(is_whole)
        self.assertTrue(client.is_open)
