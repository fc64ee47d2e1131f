"""Watching: what one hub knows of jobs, and how its clients learn of them. On the hub's loop alone, except reads of the
cache, which run in a thread.

Each job that is watched or heard of here has a Heard. Some clients need the whole state: those that have just joined,
those that were too slow for a delta, and all of them where the bus has lost one. They get no deltas until they have it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from typing import Any, Final, TypeVar

from ..backends import get_backend
from ..callables import in_thread
from ..events import frame_without_id
from ..hub.clients import Client
from ..hub.failures import report_failure
from ..hub.hub import Hub, hub_opened
from ..hub.registry import open_hubs
from ..identity import plain_name, scope_name
from ..wire import compact_json
from .heard import ENDS, Heard
from .records import ASK, CHANNEL_PREFIX, DELTAS, FRAME, HUB_MEMBERS, Found, from_unit, job_channel
from .store import LEASE_SECONDS, job_store

READ_SECONDS: Final = 0.06  # between two reads of the cache, each for all clients that ask
RETRY_SECONDS: Final = 0.5  # before the cache is read again for what it lacked
CACHE_WAIT_SECONDS: Final = 2.0  # how long a missing or incomplete state in the cache is waited for
LOOK_SECONDS: Final = 1.0  # between two looks at watched jobs that are silent
UNCARRIED_LOOK_SECONDS: Final = 0.4  # the same, if the bus carries no deltas
SILENT_SECONDS: Final = 1.5
# The same, if the bus carries no deltas; producers of this process are heard all the same.
UNCARRIED_SILENT_SECONDS: Final = 1.0
HELD_BYTES: Final = 16 * 1024 * 1024
ASK_AGAIN_SECONDS: Final = 0.5  # between two whole states for one page

Answer = TypeVar("Answer")


class Watching:
    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._jobs: dict[str, Heard] = {}  # by channel
        self._held_bytes = 0
        self._reading: asyncio.TimerHandle | bool | None = None  # True: a read is under way
        self._looking: asyncio.TimerHandle | None = None
        self._said: set[str] = set()  # what the log says of the cache, until it is so no longer
        hub.parts[Watching] = self
        hub.handlers[DELTAS] = self._hear
        hub.handlers[ASK] = self._was_asked
        hub.observers.append(self)

    def _job(self, channel: str) -> Heard:
        job = self._jobs.get(channel)
        if job is None:
            job = self._jobs[channel] = Heard(channel, self.hub.loop.time())
            if self._looking is None:
                self._looking = self._later(self._look_seconds, self._look)
        return job

    @property
    def _look_seconds(self) -> float:
        return LOOK_SECONDS if get_backend().carries_deltas else UNCARRIED_LOOK_SECONDS

    # Who watches here

    def joined(self, client: Client) -> None:
        for channel in client.channels:
            if CHANNEL_PREFIX in channel and plain_name(channel).startswith(CHANNEL_PREFIX):
                job = self._job(channel)
                job.is_watched = True
                get_backend().hear_deltas(self.hub)
                self._ask(job, (client,))

    def left(self, client: Client) -> None:
        for channel in client.channels:
            if CHANNEL_PREFIX in channel and (job := self._jobs.get(channel)) is not None:
                job.asking.discard(client)
                job.asked_at.pop(client.id, None)
                job.is_watched = bool(self.count(channel))
                if not job.is_watched and job.alone_seconds is not None:
                    self.hub.spawn(self._say_watched([job]))

    def count(self, channel: str) -> int:
        return self.hub.fan_out.count_clients((channel,))

    def ask(self, channel: str, client_id: str) -> None:
        """A page asks for the whole state. Ignored if no client of this hub has this id and hears the channel."""
        client = self.hub.clients.get(client_id)
        if client is None or channel not in client.channels:
            return
        job, now = self._job(channel), self.hub.loop.time()
        if now - job.asked_at.get(client_id, 0.0) >= ASK_AGAIN_SECONDS:
            job.asked_at[client_id] = now
            self._ask(job, (client,))

    def _was_asked(self, said: dict[str, Any]) -> None:
        self.ask(said["channel"], said["client"])

    def _ask(self, job: Heard, clients: Iterable[Client]) -> None:
        job.asking.update(clients)
        if self._reading is None:
            self._reading = self._later(READ_SECONDS, self._read)

    def _later(self, seconds: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back in a context of its own, so that the request being handled does not live as long."""
        return self.hub.loop.call_later(seconds, callback, context=Context())

    def _ask_all(self, job: Heard) -> None:
        self._ask(job, self._watchers(job))

    def _watchers(self, job: Heard) -> list[Client]:
        return [client for audience in self.hub.fan_out.audiences(job.channel) for client in audience.clients]

    # From producers

    def _hear(self, said: dict[str, Any]) -> None:
        woken: list[Client] = []
        for frame in said["jobs"]:
            self._take(frame, woken)
        if woken:
            self.hub.fan_out.wake(woken)

    def _take(self, said: dict[str, Any], woken: list[Client]) -> None:
        job = self._job(scope_name(said["namespace"], job_channel(said["job"])))
        is_news = said["text"] or (said["n"], said["state"]) != (job.frame.get("n"), job.frame.get("state"))
        is_gap = said["offset"] > job.length
        self._held_bytes -= job.size
        job.hear(said, self.hub.loop.time())
        self._held_bytes += job.size
        if self._held_bytes > HELD_BYTES:  # clients that join this job wait for its next stored state
            self._drop_all(max(self._jobs.values(), key=lambda each: each.size))
        if not job.is_watched:
            return
        if is_gap:
            self._ask_all(job)
        elif is_news:
            shown = {name: value for name, value in said.items() if name not in HUB_MEMBERS}
            if job.state in ENDS:
                shown["state"] = job.state  # the producer may not know yet that the job has ended
                shown["length"] = job.length  # and the rest of its text may come later than the end that the cache has
            self._tell(job, shown, woken)

    def _drop_all(self, job: Heard) -> None:
        self._held_bytes -= job.size
        job.drop_all()

    def _tell(self, job: Heard, frame: dict[str, Any], woken: list[Client]) -> None:
        """Send a frame to every watcher, except those that wait for the whole state. Clients that are too slow are to
        ask for it."""
        data = compact_json(frame)
        for audience in self.hub.fan_out.audiences(job.channel):
            body = frame_without_id(audience.form, (job.channel,), FRAME, data)
            for client in audience.clients:
                if client in job.asking:
                    continue
                if client.put(body):
                    woken.append(client)
                elif client.is_open:
                    self._ask(job, (client,))

    # From the cache

    def _read(self) -> None:
        now = self.hub.loop.time()
        asked = [job for job in self._jobs.values() if job.asking and job.read_at <= now]
        if asked:
            self._reading = True
            self.hub.spawn(self._read_states(asked))
        elif any(job.asking for job in self._jobs.values()):
            self._reading = self._later(READ_SECONDS, self._read)
        else:
            self._reading = None

    async def _read_states(self, jobs: list[Heard]) -> None:
        woken: list[Client] = []
        try:
            found = await self._find(jobs)
            for job in jobs:
                if found is None:
                    job.read_at = self.hub.loop.time() + RETRY_SECONDS
                else:
                    self._answer(job, found.get(job.id), woken)
            if woken:
                self.hub.fan_out.wake(woken)
        finally:
            self._reading = self._later(READ_SECONDS, self._read)

    async def _find(self, jobs: list[Heard]) -> dict[str, Found] | None:
        """The jobs that the cache has, by id. None if it cannot be read."""
        return await self._ask_cache(
            lambda: job_store().read(job.id for job in jobs), "The state of jobs cannot be read; it is tried again."
        )

    async def _ask_cache(self, ask: Callable[[], Answer], failure: str) -> Answer | None:
        """None if the cache raises. The log says so once, until the same works again."""
        try:
            answer = await in_thread(ask)
        except Exception:
            if failure not in self._said:
                self._said.add(failure)
                report_failure(failure)
            return None
        self._said.discard(failure)
        return answer

    def _answer(self, job: Heard, found: Found | None, woken: list[Client]) -> None:
        now = self.hub.loop.time()
        frame = job.whole(found)
        if frame is None:
            job.waiting_since = job.waiting_since or now
            # A dead producer stores nothing more.
            is_dead = found is not None and found.state == "lost" and job.state not in ENDS
            if not is_dead and now - job.waiting_since < CACHE_WAIT_SECONDS:
                job.read_at = now + RETRY_SECONDS
                return
            frame = job.best(found, now)
        was_open = job.state not in ENDS
        job.learn(frame, found, now)
        clients = [client for client in job.asking if client.is_open and not client.unread_frames]
        job.asking = {client for client in job.asking if client.is_open and client.unread_frames}
        if job.asking:
            job.read_at = now + RETRY_SECONDS
        data = compact_json(frame)
        forms = {client.form for client in clients}
        bodies = {form: frame_without_id(form, (job.channel,), FRAME, data) for form in forms}
        woken += [client for client in clients if client.put(bodies[client.form])]
        if was_open and job.state in ENDS:
            told = {*clients, *job.asking}
            others = [client for client in self._watchers(job) if client not in told]
            self._later(SILENT_SECONDS, partial(self._tell_end, job, others, now))

    def _tell_end(self, job: Heard, clients: list[Client], since: float) -> None:
        """Of an end that the cache had: pages that did not ask hear it from the producer, unless the bus loses that."""
        if clients and job.heard_at <= since:
            self._ask(job, [client for client in clients if client.is_open])

    # Silent jobs

    def _look(self) -> None:
        now = self.hub.loop.time()
        for channel, job in list(self._jobs.items()):
            self._held_bytes -= job.size
            job.drop(now)
            self._held_bytes += job.size
            if not job.is_watched and now - job.heard_at > LEASE_SECONDS:
                self._drop_all(job)
                del self._jobs[channel]
        watched = [job for job in self._jobs.values() if job.is_watched]
        due = [job for job in watched if job.alone_seconds is not None and job.watch_at <= now]
        for job in due:
            job.watch_at = now + (job.alone_seconds or 0) / 3
        if due:
            self.hub.spawn(self._say_watched(due))
        running = [job for job in watched if job.state not in ENDS and not job.asking]
        if not get_backend().carries_deltas:
            if unheard := [job for job in running if now - job.heard_at > UNCARRIED_SILENT_SECONDS]:
                self.hub.spawn(self._read_on(unheard))
        elif silent := [job for job in running if now - job.heard_at > SILENT_SECONDS and job.state != "lost"]:
            self.hub.spawn(self._look_at(silent))
        self._looking = self._later(self._look_seconds, self._look) if self._jobs else None

    async def _read_on(self, jobs: list[Heard]) -> None:
        """If the bus carries no deltas: send what is new in the cache as if it had."""
        if (found := await self._find(jobs)) is None:
            return
        woken: list[Client] = []
        for job in jobs:
            there = found.get(job.id)
            if there is None or there.record.length < job.length:
                if there is None or there.state != "running":
                    self._ask_all(job)
                continue
            frame, heard_at = there.frame(), job.heard_at
            frame["text"], frame["offset"] = from_unit(frame["text"], job.length), job.length
            record = there.record
            self._take({**frame, "namespace": record.namespace, "owner": record.owner}, woken)
            job.heard_at = heard_at
        self.hub.fan_out.wake(woken)

    async def _look_at(self, jobs: list[Heard]) -> None:
        changed = await self._ask_cache(
            lambda: job_store().look(job.id for job in jobs),
            "Whether jobs still run cannot be asked; it is tried again.",
        )
        for job in jobs:
            if job.id in (changed or ()):
                self._ask_all(job)

    async def _say_watched(self, jobs: list[Heard]) -> None:
        def say() -> bool:
            for job in jobs:
                job_store().watch(job.id, job.alone_seconds or 0)
            return True

        if not await self._ask_cache(say, "That a job is watched cannot be said; it is tried again."):
            for job in jobs:
                job.watch_at = 0.0

    # For operators

    def running(self, namespace: str | None, *, limit: int) -> list[dict[str, Any]]:
        """The jobs that run on any worker, as far as this hub has heard of them, with the number of their watchers
        here."""
        get_backend().hear_deltas(self.hub)
        shown: list[dict[str, Any]] = []
        for job in self._jobs.values():
            said = job.frame
            if len(shown) == limit:
                break
            if job.state in ENDS or "namespace" not in said or namespace not in (None, said["namespace"]):
                continue
            shown.append(
                {
                    "id": job.id,
                    "owner": said.get("owner"),
                    "state": job.state,
                    "progress": said.get("progress"),
                    "label": said.get("label", ""),
                    "length": job.length,
                    "watchers": self.count(job.channel) if job.is_watched else 0,
                }
            )
        return shown


def ask_here(channel: str, client_id: str) -> bool:
    """A page asks for a job's state. False if its client is not one of this process."""
    for hub in open_hubs():
        if hub.clients.get(client_id) is not None and not hub.loop.is_closed():
            hub.deliver(partial(hub.parts[Watching].ask, channel, client_id))
            return True
    return False


def _add_to_hub(*, hub: Hub, **_: Any) -> None:
    Watching(hub)


def connect() -> None:
    """Called once, when the app is ready."""
    hub_opened.connect(_add_to_hub, dispatch_uid="django_sse_live.jobs")
