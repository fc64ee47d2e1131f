"""Hub: what one event loop of one worker knows. The inbox, and who comes and goes.

A hub is touched on its loop alone; deliver() is the one door for other threads. Nothing here knows of HTTP or of a bus.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, Final

from django.dispatch import Signal

from ..conf import live_settings
from ..events import RESERVED_PREFIX, Event, frame
from ..signals import Outgoing, client_connected, client_disconnected, event_broadcast
from .audience import Audience, Batches
from .client_registry import ClientRegistry
from .clients import LOST, Client, CloseReason
from .counts import Counts
from .fan_out import FanOut
from .heartbeat import Heartbeat
from .log import EventLog
from .notices import Notices

logger: logging.Logger = logging.getLogger("django_sse_live")

DISCONNECT: Final = RESERVED_PREFIX + "disconnect"  # the type of the control event behind disconnect_clients()
LOST_EVENTS: Final = RESERVED_PREFIX + "lost"  # control event: a publisher had to give up events before this one
FILL_SECONDS: Final = 5.0  # how long a stream waits to open while the backend is filling the log
REVOKE: Final = RESERVED_PREFIX + "revoke"  # the same, but its clients are asked to come back and be checked anew
CUTS: Final = 1_000  # the latest of those two that are remembered, for the clients that are just being let in

DRAIN_SLICE: Final = 500  # events taken from the inbox at a time
GOODBYE_SECONDS: Final = 0.75  # how long a stop waits for the streams to end; after that, for nobody
LAGGING_SECONDS: Final = 1.0

hub_opened: Final = Signal()  # hub; on its loop, once the backend feeds it. For the rooms of this house alone
hub_ended: Final = Signal()  # hub; on its loop, once it is closing and has no clients. For them too


class Hub:
    """One per running loop that serves streams. Events come in by deliver(), in order, and wake whom they concern."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: EventLog) -> None:
        self.id: str = secrets.token_hex(4)
        self.loop = loop
        self.log: EventLog = log
        self.clients: ClientRegistry = ClientRegistry()
        self.heartbeat: Heartbeat = Heartbeat(self)
        self.batches: Batches = Batches()
        self.is_closing: bool = False
        self.handlers: dict[str, Callable[[Any], None]] = {}  # control events of other rooms: what obeys them
        self.residents: dict[type, Any] = {}  # what other rooms keep for this hub, by its class
        self.observers: list[Any] = []  # those whose joined(client) and parted(client) are called
        self.must_close: Callable[[], bool] | None = None  # asked on each sweep, where a server tells by no signal
        self.finds_silence = False  # heartbeats look for peers that acknowledge nothing, where the kernel must not
        self.counts: Counts = Counts()
        self.notices: Notices = Notices(self)
        self._filling: asyncio.Future[None] | None = None  # not done while nobody can say what the ids mean
        self._cuts: deque[tuple[float, dict[str, str]]] = deque(maxlen=CUTS)  # loop time, conditions
        self._inbox: deque[Event | Callable[[], None]] = deque()  # appended to by any thread
        self._drain_is_due = False
        self.fan_out: FanOut = FanOut(self)
        self._tasks: set[asyncio.Task[None]] = set()
        self._signals: Outgoing = Outgoing(self.spawn)

    # The inbox

    def deliver(self, item: Event | Callable[[], None]) -> None:
        """From any thread: an event, or something else to be done on the loop in the same order.

        RuntimeError if the loop is closed.
        """
        self._inbox.append(item)
        if not self._drain_is_due:
            self._drain_is_due = True
            self.loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._drain_is_due = False  # before the first popleft: what is appended from now on schedules the next drain
        inbox = self._inbox
        for _ in range(min(len(inbox), DRAIN_SLICE)):
            item = inbox.popleft()
            try:
                if isinstance(item, Event):
                    self._receive(item)
                else:
                    item()
            except Exception:  # of one, perhaps from a newer version on another worker: the others are heard
                logger.exception("What came in could not be dealt with: %r", item)
        if inbox and not self._drain_is_due:
            self._drain_is_due = True
            self.loop.call_soon(self._drain)
        self.fan_out.run()
        self.settle()

    def _receive(self, event: Event) -> None:
        if event.type.startswith(RESERVED_PREFIX):
            self.log.skip_to(event.position)
            self.obey(event)
            return
        if not self.log.append(event):
            return
        self._evict(slack=2)
        self.batches.clear()
        self.counts.received += 1
        self.fan_out.add_news(event)
        if logger.isEnabledFor(logging.INFO) or event_broadcast.has_listeners():
            count = self.fan_out.count_clients(event.channels)
            self.notices.broadcast(event, count)
            self.notify(event_broadcast, event=event, client_count=count)

    def obey(self, event: Event) -> None:
        """Do what a control event says."""
        if event.type == DISCONNECT:
            self.disconnect(**json.loads(event.payload))
        elif event.type == REVOKE:
            self.revoke(**json.loads(event.payload))
        elif event.type == LOST_EVENTS:
            self.restart(self.log.epoch, event.position)
        elif event.type in self.handlers:  # of none, if it comes from a newer version on another worker
            self.handlers[event.type](json.loads(event.payload))

    def settle(self) -> None:
        """Let the log go back to its bounds, once everyone who was up to date has read what is new."""
        if self.fan_out.is_over:
            self.loop.call_soon(self._evict_read)

    def _evict_read(self) -> None:
        if self.fan_out.is_over:
            self._evict()

    def _evict(self, slack: int = 1) -> None:
        self.log.evict(slack)
        if self.log.must_forget:
            for client in self.clients:
                client.catch_up()
            self.log.forget()

    def tell(self, channel: str, type: str, data: str) -> None:
        """Something that is not an event, to this worker's clients of a channel: it is in no log, and has no id. Who
        does not read misses it. ``data``: JSON."""
        for audience in self.fan_out.audiences(channel):
            if audience.form == "named":
                body = frame(data, event=type)
            else:
                body = frame(f'{{"type":{json.dumps(type)},"channels":[{json.dumps(channel)}],"data":{data}}}')
            for client in audience.clients:
                client.tell(body)

    @property
    def lagging(self) -> int:
        """How many clients have let a send wait for LAGGING_SECONDS. From any thread."""
        before = self.heartbeat.now - LAGGING_SECONDS
        return sum(0.0 < client.sending_since < before for client in self.clients)

    # The log of a backend that takes time to fill it

    def begin_filling(self) -> None:
        """The log means nothing until adopt(): no stream opens before."""
        self._filling = self.loop.create_future()

    @property
    def is_ready(self) -> bool:
        """Whether streams can open."""
        return not self.is_closing and self._filling is None

    async def filled(self) -> None:
        """Wait for the first adopt(), for FILL_SECONDS at the most; refusal() then says whether it came."""
        if self._filling is not None:
            await asyncio.wait([self._filling], timeout=FILL_SECONDS)

    def adopt(self, log: EventLog) -> None:
        """Go on with another log, filled by the backend; whoever is reading the old one is told by a reset."""
        self.log = log
        if self._filling is not None:
            if not self._filling.done():
                self._filling.set_result(None)
            self._filling = None
        self._everyone_is_lost()

    # Who comes and goes

    def refusal(self, client: Client) -> CloseReason | None:
        """Why this client cannot be served now; None if it can."""
        if self.is_closing:
            return "shutdown"
        if self._filling is not None:
            return "not_ready"
        if self._cuts and client.checked_at and self._was_cut_off(client):
            return "revoked"
        if not self.clients.has_room_for(client.user_pk, client.address):
            return "too_many_clients"
        return None

    def join(self, client: Client) -> Audience:
        audience = self.fan_out.add(client)
        self.clients.add(client)
        self.heartbeat.add(client)
        self.counts.opened += 1
        self.notices.connected(client)
        for observer in self.observers:
            observer.joined(client)
        self.notify(client_connected, client=client)
        return audience

    def part(self, client: Client, audience: Audience) -> None:
        self.fan_out.remove(client, audience)
        self.clients.remove(client)
        self.heartbeat.remove(client)
        self.counts.closed[client.close_reason or "client"] += 1
        self.notices.disconnected(client)
        for observer in self.observers:
            observer.parted(client)
        self.notify(client_disconnected, client=client)
        self._say_if_ended()

    def cut_off(self, client: Client, found: dict[Any, Any]) -> None:
        """A send to it hangs for too long: drop the connection under it. ``found``: empty at first, and shared by those
        that are cut off at one moment; what one look for a connection brings to light is kept there for the next."""
        logger.info(
            "SSE client %s has not read for %g s: its stream ends here.",
            client.id,
            live_settings().send_timeout_seconds,
            extra={"client_id": client.id, "user_pk": client.user_pk, "reason": "send_timeout"},
        )
        self._drop(client, "send_timeout", found)

    def _drop(self, client: Client, reason: CloseReason, found: dict[Any, Any]) -> None:
        abort = client.abort
        client.leave(reason)
        if abort is not None:
            abort(found)

    def disconnect(self, **conditions: str) -> None:
        """Say a final goodbye to every client for whom Client.matches() says yes."""
        self._cuts.append((self.loop.time(), conditions))
        for client in self.clients.matching(**conditions):
            client.end("disconnected")

    def revoke(self, **conditions: str) -> None:
        """End their streams too, but let them ask again: what they may hear now is decided when they come back."""
        self._cuts.append((self.loop.time(), conditions))
        for client in self.clients.matching(**conditions):
            client.end("revoked", retry_ms=self.retry_ms())

    def _was_cut_off(self, client: Client) -> bool:
        """Whether one of the two above would have met this client, had it been open already: it was checked before,
        and what it was checked by may be gone."""
        since = client.checked_at
        if len(self._cuts) == CUTS and self._cuts[0][0] > since:
            return True  # more than can be remembered: let it be checked again
        for at, conditions in reversed(self._cuts):
            if at < since:
                return False
            if client.matches(**conditions):
                return True
        return False

    def shut_down(self) -> None:
        """Say goodbye to everyone, and let nobody in any more. Who does not read the goodbye is cut off soon after."""
        if not self.is_closing:
            self.is_closing = True
            clients = list(self.clients)
            for client in clients:
                client.end("shutdown", retry_ms=self.retry_ms())
            self.loop.call_later(GOODBYE_SECONDS, self._cut_off_unread, clients)
            self._say_if_ended()

    def _say_if_ended(self) -> None:
        if self.is_closing and not self.clients:
            hub_ended.send_robust(sender=None, hub=self)

    def _cut_off_unread(self, clients: list[Client]) -> None:
        """Those to whom a send still hangs; and those whose goodbye lies in the server, which would wait for them."""
        found: dict[Any, Any] = {}
        for client in clients:
            if self.clients.get(client.id) is client:
                self._drop(client, "shutdown", found)
            elif client.abort is not None:
                client.abort(found, if_unread=True)

    def retry_ms(self) -> int:
        """When to come back: spread over a window that grows with the number of clients, 2 ms for each."""
        retry_ms = live_settings().retry_ms
        return retry_ms + int(random() * max(retry_ms, 2 * len(self.clients)))

    def restart(self, epoch: str, head: int) -> None:
        """The lineage of ids has changed: nobody's position means anything now; each client is told by a reset."""
        self.log.restart(epoch, head)
        self._everyone_is_lost()

    def lose(self) -> None:
        """Events may be missing between the head and whatever comes next: each client is told by a reset."""
        self.log.lose()
        self._everyone_is_lost()

    def _everyone_is_lost(self) -> None:
        self.batches.clear()
        clients = list(self.clients)
        for client in clients:
            client.cursor = LOST
        self.fan_out.wake(clients)

    def notify(self, signal: Signal, **arguments: Any) -> None:
        """Send a signal, if anyone listens, without waiting for the receivers."""
        if signal.receivers and signal.has_listeners():
            self._signals.send(signal, arguments)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
