"""Presence, as each worker keeps it: what it announces of its users, and what it has heard of all.

Every worker announces over the bus which users came and went on it, and every worker keeps what all have announced, in
the order of the bus. So all of them see the same. The worker that announced a change tells whether the user joined or
left by it; that is an announcement too, which every worker hands on to its clients. Announcements are numbered, so that
one that is missed is noticed and asked for. Nothing of this is an event: it stands in no log and no history.

Workers say that they live, so that a crash is noticed. That one is dead is an announcement too: the worker that makes
the first tells that the users whom only the dead one had have left. A worker that was only paused hears of its own
death, announces its users anew, under a higher number, and tells that they joined.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from .backends import get_backend
from .conf import live_settings
from .events import NOW_PREFIX, control_event, frame_without_id
from .hub.clients import Client
from .hub.hub import Hub
from .identity import namespace_of, plain_name
from .presence_changes import Change, RecentChanges
from .signals import presence_joined, presence_left

ANNOUNCE: Final = NOW_PREFIX + "presence"
ANSWER_SECONDS: Final = 0.5  # how long a worker that has just started waits for what the others know
SILENCES_MAX: Final = 3  # PRESENCE_SECONDS without a word after which a worker is taken for dead
DEAD_WORKERS_MAX: Final = 1_000  # remembered as such: the latest
ASK_AGAIN_SECONDS: Final = 1.0

Announcement = dict[str, Any]


def is_watched(channel: str) -> bool:
    """With or without its namespace."""
    return any(fnmatchcase(plain_name(channel), pattern) for pattern in live_settings().presence_channels)


@dataclass(slots=True)
class _Member:
    """What a worker has announced."""

    number: int  # of its last announcement
    expires_at: float  # loop time; infinite for this worker itself
    users: dict[str, set[str]]  # channel → primary keys


class Presence:
    """Lives on a hub's loop. It is a member, which announces and is counted with, from its first stream on."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.knows: asyncio.Event = asyncio.Event()  # set once the others have had time to answer
        self._here: dict[str, Counter[str]] = {}  # channel → primary key → streams on this worker
        self._leaving: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._announced: dict[str, set[str]] = {}  # as of the last announcement that was sent
        self._number = 0
        self._born = 0  # the number under which it announced itself anew, after it was taken for dead
        self._is_member = False
        self._members: dict[str, _Member] = {}
        self._dead: dict[str, int] = {}  # worker → its last number before; the longest dead first
        self._ticks_at = 0.0  # loop time of the next tick; none while there is nobody to look after
        self._asked_at: dict[str, float] = {}
        self._changes = RecentChanges()
        hub.parts[Presence] = self
        hub.handlers[ANNOUNCE] = self._hear
        hub.observers.append(self)
        hub.spawn(self._begin())
        for client in hub.clients:
            self.joined(client)

    async def _begin(self) -> None:
        await self.hub.filled()
        if get_backend().carries_reports:
            self._publish({"ask": ""})
            await asyncio.sleep(ANSWER_SECONDS)
        self.knows.set()

    def users(self, channel: str) -> set[str]:
        """From any thread."""
        found: set[str] = set()
        for member in list(self._members.values()):
            found |= set(member.users.get(channel, ()))
        return found

    # Who comes and goes here

    def joined(self, client: Client) -> None:
        if not self._is_member:
            self._is_member = True
            self._members[self.hub.id] = _Member(0, float("inf"), {})
            self._announce_all()
            self._plan_tick()
        if client.resumed_from is not None:
            self._replay(client, client.resumed_from)
        if client.user_pk is None:
            return
        for channel in filter(is_watched, client.channels):
            here = self._here.setdefault(channel, Counter())
            here[client.user_pk] += 1
            if here[client.user_pk] == 1:
                leaving = self._leaving.pop((channel, client.user_pk), None)
                if leaving is not None:
                    leaving.cancel()
                else:
                    self._announce("came", channel, client.user_pk)

    def left(self, client: Client) -> None:
        if client.user_pk is None:
            return
        for channel in client.channels:
            here = self._here.get(channel)
            if here is None or not here[client.user_pk]:
                continue
            here[client.user_pk] -= 1
            if not here[client.user_pk]:
                del here[client.user_pk]
                # Not while this worker ends: they are about to come back on another.
                if not self.hub.is_closing:
                    key = (channel, client.user_pk)
                    grace = live_settings().presence_grace_seconds
                    self._leaving[key] = self.hub.loop.call_later(grace, self._went, key)
            if not here:
                del self._here[channel]

    def _went(self, key: tuple[str, str]) -> None:
        del self._leaving[key]
        self._announce("went", *key)

    # What is announced

    def _announce(self, what: str, channel: str, pk: str) -> None:
        users = self._announced.setdefault(channel, set())
        if what == "came":
            users.add(pk)
        else:
            users.discard(pk)
            if not users:
                del self._announced[channel]
        self._number += 1
        self._publish({"worker": self.hub.id, "number": self._number, what: [channel, pk]})

    def _announce_all(self) -> None:
        here = {channel: sorted(users) for channel, users in self._announced.items()}
        self._publish({"worker": self.hub.id, "number": self._number, "born": self._born, "here": here})

    def _announce_dead(self, worker: str, number: int) -> None:
        self._publish({"dead": worker, "number": number, "by": self.hub.id})

    def _publish(self, said: Announcement) -> None:
        self.hub.spawn(get_backend().apublish(control_event(ANNOUNCE, said)))

    # Who is dead

    def _plan_tick(self) -> None:
        if not self._ticks_at:
            seconds = live_settings().presence_seconds
            self._ticks_at = self.hub.loop.time() + seconds
            self.hub.loop.call_at(self._ticks_at, self._tick)

    def _tick(self) -> None:
        seconds, now = live_settings().presence_seconds, self.hub.loop.time()
        was_paused = now > self._ticks_at + seconds / 2  # and may not have read yet what the others said meanwhile
        self._ticks_at = 0.0
        if self.hub.is_closing or not (self._is_member or self._members):
            return
        self._plan_tick()
        is_available = get_backend().is_available
        if self._is_member and is_available:
            self._publish({"worker": self.hub.id, "number": self._number, "alive": True})
        if was_paused or not is_available:  # the others could not be heard: that does not make them dead
            for member in self._members.values():
                member.expires_at = max(member.expires_at, now + SILENCES_MAX * seconds)
        for worker, member in list(self._members.items()):
            if member.expires_at < now:
                if self._is_member:
                    self._announce_dead(worker, member.number)
                else:  # nobody may be left to announce it
                    del self._members[worker]

    def _remove_dead(self, worker: str, number: int, *, is_teller: bool) -> None:
        """It is dead, as far as it was heard up to that number: who has announced more since is not."""
        member = self._members.get(worker)
        if member is None or member.number > number:
            return
        del self._members[worker]
        self._dead[worker] = number
        if len(self._dead) > DEAD_WORKERS_MAX:
            del self._dead[next(iter(self._dead))]
        self._changed(member.users, {}, is_teller)
        if worker == self.hub.id and not self.hub.is_closing:
            self._born = self._number = self._number + 1
            self._announce_all()

    # What is heard

    def _hear(self, said: Announcement) -> None:
        if "ask" in said:
            if self._is_member and said["ask"] in ("", self.hub.id):
                self._announce_all()
            return
        if "told" in said:
            self._hand_on(said["channel"], said["told"], said["user"])
            return
        if "dead" in said:
            self._remove_dead(said["dead"], said["number"], is_teller=said["by"] == self.hub.id)
            return
        worker = said["worker"]
        member = self._members.get(worker)
        expected = None if member is None else member.number + ("alive" not in said)
        if "here" in said:
            if worker in self._dead:
                if said["born"] <= self._dead[worker]:  # it has missed that it was taken for dead
                    if self._is_member:
                        self._announce_dead(worker, said["number"])
                    return
                del self._dead[worker]
            before = member.users if member is not None else {}
            users = {channel: set(pks) for channel, pks in said["here"].items()}
            self._members[worker] = _Member(said["number"], self._expiry(worker), users)
            self._changed(before, users, worker == self.hub.id)
            self._plan_tick()
        elif member is None or said["number"] != expected:
            if member is None or said["number"] > member.number:  # an older one has been heard by way of "here"
                self._ask(worker)
        else:
            member.number = said["number"]
            member.expires_at = self._expiry(worker)
            for what in ("came", "went"):
                if what in said:
                    channel, pk = said[what]
                    self._move(member, what, channel, pk, is_teller=worker == self.hub.id)

    def _expiry(self, worker: str) -> float:
        if worker == self.hub.id:
            return float("inf")
        return self.hub.loop.time() + SILENCES_MAX * live_settings().presence_seconds

    def _ask(self, worker: str) -> None:
        now = self.hub.loop.time()
        if now - self._asked_at.get(worker, 0.0) > ASK_AGAIN_SECONDS:
            self._asked_at = {other: at for other, at in self._asked_at.items() if now - at < ASK_AGAIN_SECONDS}
            self._asked_at[worker] = now
            self._publish({"ask": worker})

    def _move(self, member: _Member, what: str, channel: str, pk: str, *, is_teller: bool) -> None:
        before = {channel: {pk} & member.users.get(channel, set())}
        if what == "came":
            member.users.setdefault(channel, set()).add(pk)
            self._changed(before, {channel: {pk}}, is_teller)
        else:
            users = member.users.get(channel, set())
            users.discard(pk)
            if not users:
                member.users.pop(channel, None)
            self._changed(before, {}, is_teller)

    def _changed(self, before: dict[str, set[str]], after: dict[str, set[str]], is_teller: bool) -> None:
        """One member's users were ``before`` and are ``after``, which it already holds: tell of those that nobody else
        has or had."""
        if not is_teller:
            return
        for channel in before.keys() | after.keys():
            old, new = before.get(channel, set()), after.get(channel, set())
            for pk in sorted(new - old):
                if sum(pk in member.users.get(channel, ()) for member in self._members.values()) == 1:
                    self._tell("presence_joined", channel, pk)
            for pk in sorted(old - new):
                if not any(pk in member.users.get(channel, ()) for member in self._members.values()):
                    self._tell("presence_left", channel, pk)

    def _tell(self, type: str, channel: str, pk: str) -> None:
        self._publish({"told": type, "channel": channel, "user": pk})
        signal = presence_joined if type == "presence_joined" else presence_left
        self.hub.notify(signal, namespace_of(channel), channel=plain_name(channel), user_pk=pk)

    # What this worker's clients hear of it

    def _hand_on(self, channel: str, type: str, pk: str) -> None:
        log = self.hub.log
        self._changes.add(log.epoch, channel, Change(log.head, type, pk))
        self.hub.tell(channel, type, json.dumps({"user": pk}), is_needed=True)

    def _replay(self, client: Client, position: int) -> None:
        """What changed while it was away. Some of it may be what it knew: a user who has joined joins again."""
        for channel in filter(is_watched, client.channels):
            changes = self._changes.since(self.hub.log.epoch, channel, position)
            if changes is None:
                client.lose()
                return
            for change in changes:
                frame = frame_without_id(client.form, (channel,), change.type, json.dumps({"user": change.user_pk}))
                client.tell(frame, is_needed=True)
