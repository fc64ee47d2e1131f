"""RecentChanges: who joined and left a channel a moment ago, for the clients that come back after a break.

Apart from the events' log, so that users who come and go push no event out of it. Bounded for each channel, so that one
channel's traffic costs no other its changes. Touched on a hub's loop alone.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

CHANGES_MAX: Final = 100  # of one channel
CHANNELS_MAX: Final = 500


class Change(NamedTuple):
    position: int  # the head of the hub's log when the change was heard of
    type: str  # presence_joined or presence_left
    user_pk: str


class RecentChanges:
    __slots__ = ("_by_channel", "_epoch", "_floor")

    def __init__(self) -> None:
        self._by_channel: OrderedDict[str, deque[Change]] = OrderedDict()  # the longest quiet channel first
        self._epoch = ""  # of the positions
        self._floor = -1  # the newest position of a channel that is no longer known

    def add(self, epoch: str, channel: str, change: Change) -> None:
        if epoch != self._epoch:
            self._epoch, self._floor = epoch, -1
            self._by_channel.clear()
        changes = self._by_channel.setdefault(channel, deque(maxlen=CHANGES_MAX + 1))
        changes.append(change)
        self._by_channel.move_to_end(channel)
        if len(self._by_channel) > CHANNELS_MAX:
            _, dropped = self._by_channel.popitem(last=False)
            self._floor = max(self._floor, dropped[-1].position)

    def since(self, epoch: str, channel: str, position: int) -> list[Change] | None:
        """What a client that has been served up to that position may have missed; None if more than is known."""
        if epoch != self._epoch:
            return []
        changes = self._by_channel.get(channel)
        if changes is None:
            return None if position <= self._floor else []
        if len(changes) > CHANGES_MAX and changes[0].position >= position:
            return None
        return [change for change in changes if change.position >= position]
