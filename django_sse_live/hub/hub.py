"""Hub: what one event loop of one worker knows: incoming events, and clients that join and leave.

A hub is touched on its loop alone; other threads call deliver(). HTTP and the bus are unknown here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, Final

from django.dispatch import Signal

from ..conf import live_settings
from ..events import DISCONNECT, ENDS, LOST_EVENTS, Event, frame_without_id, make_position
from ..namespaces import use_namespace
from ..signals import client_connected, client_disconnected, event_broadcast
from .audience import Audience, SharedBodies
from .client_info import Admission, ClientInfo
from .client_registry import ClientRegistry
from .clients import Client
from .counts import Counts
from .failures import guarded
from .fan_out import FanOut
from .heartbeat import Heartbeat
from .inbox import Inbox, Item, Work, run_in_slices
from .log import SLICE_CHANNELS, EventLog
from .notices import Notices
from .outgoing import Outgoing
from .reading import LOST, CloseReason
from .recent_ends import CONDITION_NAMES, RecentEnds, Revocations

logger: logging.Logger = logging.getLogger("django_sse_live")

FILL_SECONDS: Final = 5.0  # a stream waits this long for the backend to fill the log
GOODBYE_SECONDS: Final = 0.75  # a stop waits this long for streams to end, once all of them have a goodbye
LAGGING_SECONDS: Final = 1.0
CHECK_AGAIN_SECONDS: Final = 60.0  # access is checked anew within this time where a revocation may have been missed

hub_opened: Final = Signal()  # internal; argument ``hub``; sent on its loop, before the backend feeds it
hub_ended: Final = Signal()  # internal; argument ``hub``; sent on its loop, once it is closing and has no clients


class Hub:
    """One for each running loop that serves streams. Events come in by deliver(), in order, and wake the clients that
    hear them.

    ``keeps_history``: False for a hub without clients that only asks other workers something. The backend need not fill
    its log.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, log: EventLog, *, keeps_history: bool = True) -> None:
        self.id: str = secrets.token_hex(4)
        self.loop: asyncio.AbstractEventLoop = loop
        self.log: EventLog = log
        self.keeps_history: bool = keeps_history
        self.counts: Counts = Counts()
        self.clients: ClientRegistry = ClientRegistry()
        self.shared_bodies: SharedBodies = SharedBodies()
        self.notices: Notices = Notices(loop, self.clients)
        self.fan_out: FanOut[Client] = FanOut(self)
        self.heartbeat: Heartbeat[Client] = Heartbeat(
            loop, before=self._before_sweep, cut_off=self.cut_off, beat=self._beat, after=self.settle
        )
        self.is_closing: bool = False
        self.waits_until: float = float("inf")  # loop time at which a stop gives up; known once all goodbyes are said
        self.busy: int = 0  # running message handlers; a stop waits for them too
        self.handlers: dict[str, Callable[[Any], None]] = {}  # by type of control event
        self.parts: dict[type, Any] = {}  # state that other modules keep for this hub, by class
        self.observers: list[Any] = []  # their joined(client) and left(client) are called
        # asked on each sweep, if the server sends no signal at a stop
        self.must_close: Callable[[], bool] | None = None
        self.finds_silence: bool = False  # the sweep looks for peers that acknowledge nothing, if the kernel cannot
        self.hear_foreign_id: Callable[[int], None] | None = None  # called with the position in an id of another epoch
        self._filling: asyncio.Future[None] | None = None  # not done while the meaning of ids is unknown
        self._recent_ends = RecentEnds()
        self._began_at = float("-inf")  # loop time at which the log last began anew: revocations before may be missed
        # Of the log's epoch, if the backend keeps revocations. None: not known, so every ticket is refused.
        self.revocations: Revocations | None = None
        self._clock_ms = 0.0  # added to time.monotonic(), it is the bus's clock
        self._inbox = Inbox(loop, self._receive, self._after_slice)
        self._is_forgetting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals = Outgoing(self.spawn, self.counts)

    # Incoming events

    def deliver(self, item: Item) -> None:
        """Queue an event, or a callable for the loop, in the same order. From any thread.

        Raises RuntimeError if the loop is closed.
        """
        self._inbox.put(item)

    def deliver_if_open(self, item: Item) -> bool:
        """deliver(), unless the loop is closed: False then."""
        try:
            self.deliver(item)
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            return False
        return True

    def _after_slice(self) -> None:
        self.fan_out.run()
        self.settle()

    def _receive(self, event: Event) -> Work | None:
        if event.is_control:
            self.log.skip_to(event.position)
            return self._obey(event)
        if len(event.channels) > SLICE_CHANNELS and event.position > self.log.head:
            return self._append_in_slices(event)
        if self.log.append(event):
            self._was_appended(event)
        return None

    def _append_in_slices(self, event: Event) -> Work:
        yield from self.log.append_in_slices(event)
        self._was_appended(event)

    def _was_appended(self, event: Event) -> None:
        if event.patch is not None:
            event.spread_ms = self.spread_ms
        self._evict(slack=2)
        self.shared_bodies.clear()
        self.counts.received += 1
        self.fan_out.add_news(event)
        if logger.isEnabledFor(logging.INFO) or event_broadcast.has_listeners():
            count = self.fan_out.count_clients(event.channels)
            guarded(self.notices.broadcast, event, count)
            self.notify(event_broadcast, event.namespace, event=event, client_count=count)

    def _obey(self, event: Event) -> Work | None:
        """Obey a control event."""
        if event.type in ENDS:
            conditions, now = json.loads(event.payload), self.loop.time()
            is_final = event.type == DISCONNECT
            if self.revocations is not None:
                self.revocations.revoke(event.position, conditions)
            try:
                self._recent_ends.add(now, conditions)
            except ValueError:  # of a newer version on another worker: all that it may concern are checked again
                self._recent_ends.lose(now)
                conditions = {name: conditions[name] for name in CONDITION_NAMES & conditions.keys()}
                is_final = False
            return self._end_matching(conditions, is_final=is_final)
        if event.type == LOST_EVENTS:
            self.restart(self.log.epoch, event.position)
        elif event.type in self.handlers:  # unknown types come from newer versions on other workers
            self.handlers[event.type](json.loads(event.payload))
        return None

    def settle(self) -> None:
        """Bring the log back to its bounds once every client that was up to date has read the news."""
        if self.fan_out.is_over:
            self.loop.call_soon(self._evict_read)

    def _evict_read(self) -> None:
        if self.fan_out.is_over:
            self._evict()

    def _evict(self, slack: int = 1) -> None:
        self.log.evict(slack)
        if self.log.must_forget and not self._is_forgetting:
            self._is_forgetting = True
            run_in_slices(self.loop, self._forget())

    def _forget(self) -> Work:
        log, evicted_to = self.log, self.log.evicted_to
        for client in self.clients:
            client.catch_up()
            yield
        self._is_forgetting = False
        log.forget(evicted_to)

    def tell(self, channel: str, type: str, data: str, *, is_needed: bool = False) -> None:
        """Send this worker's clients of a channel a frame that is no event: no log has it, and it has no id. ``data``:
        JSON. ``is_needed``: a client that misses it because it does not read gets a reset."""
        clients: list[Client] = []
        for audience in self.fan_out.audiences(channel):
            body = frame_without_id(audience.form, (channel,), type, data)
            clients += [client for client in audience.clients if client.put_or_lose(body, is_needed=is_needed)]
        if clients:
            self.fan_out.wake(clients)

    @property
    def lagging(self) -> int:
        """The number of clients whose send has waited for LAGGING_SECONDS. From any thread."""
        before = self.heartbeat.now - LAGGING_SECONDS
        return sum(0.0 < client.sending_since < before for client in self.clients)

    # Backends that fill the log later

    def begin_filling(self) -> None:
        """The log is meaningless until adopt(): no stream opens before."""
        self._filling = self.loop.create_future()

    @property
    def is_ready(self) -> bool:
        """Whether streams can open."""
        return not self.is_closing and self._filling is None

    async def filled(self, seconds: float = FILL_SECONDS) -> None:
        """Wait at most ``seconds`` for the first adopt(), or for a stop. Afterwards refusal() tells whether it
        came."""
        if self._filling is not None:
            await asyncio.wait([self._filling], timeout=seconds)

    def adopt(self, log: EventLog, revocations: Revocations | None = None) -> Work:
        """Replace the log by one that the backend has filled. Clients of the old log get a reset, and those whose
        access may have been revoked in between are checked anew. ``revocations``: of its epoch, if the backend keeps
        them."""
        before = self.log
        self.log, self.revocations = log, revocations
        is_first = self._filling is not None
        if self._filling is not None:
            if not self._filling.done():
                self._filling.set_result(None)
            self._filling = None
        self._are_lost(list(self.clients))
        if is_first and revocations is None:
            return iter(())  # of a bus that keeps none: whoever waited for it is let in
        self._began_at = self.loop.time()
        if revocations is not None and log.epoch == before.epoch and revocations.has_all(before.head + 1):
            return self._end_revoked(list(self.clients), revocations, before.head + 1)
        return self.check_again()

    def _end_revoked(self, clients: list[Client], revocations: Revocations, since: int) -> Work:
        for client in clients:
            if revocations.concern(client.info, since):
                guarded(client.end, "revoked", retry_ms=self.retry_ms())
            yield

    def check_again(self) -> Work:
        """Have the access of every client checked anew, since a revocation may have been missed: its stream grows old
        within CHECK_AGAIN_SECONDS."""
        self._began_at = self.loop.time()
        for client in self.clients:
            if client.is_open:
                self.heartbeat.end_within(client, CHECK_AGAIN_SECONDS)
            yield

    def restart(self, epoch: str, head: int) -> None:
        """Begin anew at this position. Every client gets a reset: what was before it means nothing any more in another
        epoch, and may be incomplete in this one."""
        if self.revocations is not None:
            self.revocations.lose(head)
        # In this epoch, a client that is ahead of this worker has passed the position elsewhere.
        passed = head if epoch == self.log.epoch else float("inf")
        self.log.restart(epoch, head)
        self._are_lost([client for client in self.clients if client.cursor < passed])

    def _are_lost(self, clients: list[Client]) -> None:
        self.shared_bodies.clear()
        for client in clients:
            client.cursor = LOST
        self.fan_out.wake(clients)

    # The clock of the bus, the same for all workers whatever the clocks of their machines

    def set_clock(self, milliseconds: float) -> None:
        """Set it to these milliseconds since 1970. From any thread."""
        self._clock_ms = milliseconds - 1000 * time.monotonic()

    def clock_ms(self) -> float:
        """Milliseconds since 1970, by the clock of the bus."""
        return self._clock_ms + 1000 * time.monotonic()

    # Clients that join and leave

    def refusal(self, client: Client) -> CloseReason | None:
        """Why this client cannot be served now; None if it can."""
        if self.is_closing:
            return "shutdown"
        if self._filling is not None:
            return "not_ready"
        if client.checked_at and self.was_ended(client.info, client.checked_at):
            return "revoked"  # its access was checked earlier, and may have been revoked since
        if client.admission is not None and self.is_revoked(client.info, client.admission):
            return "revoked"
        if not self.clients.has_room_for(client.info):
            return "too_many_clients"
        return None

    def was_ended(self, info: ClientInfo, since: float) -> bool:
        """Whether a client like this may have been ended since that loop time."""
        return self._recent_ends.concern(info, since)

    def is_revoked(self, info: ClientInfo, admission: Admission) -> bool:
        """Whether a revocation after these checks may concern the client."""
        known, since = self.revocations, admission.position + 1
        return (
            known is None
            or admission.epoch != self.log.epoch
            or known.concern(info, since)
            or known.names_client(admission.client_id, since)
        )

    def join(self, client: Client) -> Audience[Client]:
        audience = self.fan_out.add(client, client.channels, client.form)
        self.clients.add(client)
        self.heartbeat.add(client)
        if client.checked_at and client.checked_at <= self._began_at and self._may_be_revoked(client):
            self.heartbeat.end_within(client, CHECK_AGAIN_SECONDS)
        self.counts.opened += 1
        return audience

    def _may_be_revoked(self, client: Client) -> bool:
        """Whether the access of a client may have been revoked since its checks, which ran while the log began anew."""
        milliseconds = self.clock_ms() - 1000 * (self.loop.time() - client.checked_at)
        known = self.revocations
        return known is None or known.concern(client.info, make_position(int(milliseconds), 0))

    def announce(self, client: Client) -> None:
        """Log and signal that a client has joined."""
        guarded(self.notices.connected, client)
        for observer in self.observers:
            guarded(observer.joined, client)
        self.notify(client_connected, client.namespace, client=client)

    def leave(self, client: Client, audience: Audience[Client]) -> None:
        self.fan_out.remove(client, audience)
        self.clients.remove(client)
        self.heartbeat.remove(client)
        self.counts.closed[client.close_reason or "client"] += 1
        guarded(self.notices.disconnected, client)
        for observer in self.observers:
            guarded(observer.left, client)
        self.notify(client_disconnected, client.namespace, client=client)
        self._say_if_ended()

    def _end_matching(self, conditions: dict[str, str], *, is_final: bool) -> Work:
        """End the clients that meet every condition. Either the goodbye is final, or they come back and their access is
        checked anew."""
        clients = self.clients.candidates(**conditions)
        if clients is None and "channel" in conditions:
            clients = [
                client for audience in self.fan_out.audiences(conditions["channel"]) for client in audience.clients
            ]
        # Those of this moment: one that joins before the last slice of the work was checked after the revocation.
        return self._end_each(list(self.clients) if clients is None else clients, conditions, is_final)

    def _end_each(self, clients: list[Client], conditions: dict[str, str], is_final: bool) -> Work:
        for client in clients:
            if client.info.matches(**conditions):
                if is_final:
                    guarded(client.end, "disconnected")
                else:
                    guarded(client.end, "revoked", retry_ms=self.retry_ms())
            yield

    # The sweep

    def _before_sweep(self) -> None:
        if self.must_close is not None and self.must_close():
            self.shut_down()

    def _beat(self, clients: list[Client]) -> None:
        self.fan_out.wake(clients)
        if self.finds_silence:
            silence_seconds = 2 * live_settings().send_timeout_seconds
            for client in clients:
                if client.abort is not None:
                    guarded(client.abort, if_silent_for=silence_seconds)

    def cut_off(self, client: Client) -> None:
        """Drop the connection of a client whose send hangs for too long."""
        guarded(self.notices.cut_off, client)
        self._drop(client, "send_timeout")

    def _drop(self, client: Client, reason: CloseReason) -> None:
        abort = client.abort
        client.leave(reason)
        if abort is not None:
            guarded(abort)

    # The end

    def shut_down(self) -> None:
        """Refuse new clients and say goodbye to every client, in slices. A client that does not read its goodbye is cut
        off soon after the last was said."""
        if not self.is_closing:
            self.is_closing = True
            if self._filling is not None and not self._filling.done():
                self._filling.set_result(None)  # the server waits for the requests that wait for it
            clients = list(self.clients)
            self.deliver(lambda: self._say_goodbye(clients))  # after the events that have come in
            self._say_if_ended()

    def _say_goodbye(self, clients: list[Client]) -> Work:
        for client in clients:
            guarded(client.end, "shutdown", retry_ms=self.retry_ms())
            yield
        self.waits_until = self.loop.time() + GOODBYE_SECONDS
        self.loop.call_later(GOODBYE_SECONDS, lambda: run_in_slices(self.loop, self._cut_off_unread(clients)))

    def _say_if_ended(self) -> None:
        if self.is_closing and not self.clients:
            hub_ended.send_robust(sender=None, hub=self)

    def _cut_off_unread(self, clients: list[Client]) -> Work:
        """Cut off the clients whose send still hangs, and those whose goodbye the server still holds and would wait
        for."""
        for client in clients:
            if self.clients.get(client.id) is client:
                self._drop(client, "shutdown")
            elif client.abort is not None:
                guarded(client.abort, if_unread=True)
            yield

    @property
    def spread_ms(self) -> int:
        """The time over which the pages of this worker spread a fetch that one event causes in all of them."""
        return len(self.clients) * live_settings().refresh_cost_ms

    def retry_ms(self) -> int:
        """When a client is to come back: at random in a window of 2 ms for each client."""
        retry_ms = live_settings().retry_ms
        return retry_ms + int(random() * max(retry_ms, 2 * len(self.clients)))

    def notify(self, signal: Signal, namespace: str = "", **arguments: Any) -> None:
        """Send a signal if it has receivers, without waiting for them. They run in this namespace."""
        if signal.receivers and signal.has_listeners():
            with use_namespace(namespace):
                self._signals.send(signal, arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
