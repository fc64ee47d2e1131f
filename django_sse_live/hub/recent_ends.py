"""RecentEnds: which clients were ended lately, for clients that were checked before that and open after it.

A hub has one by loop time, of the last minute, for requests whose checks run; and one by position, of a day at most,
for tickets. Touched on the hub's loop alone, or under its owner's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from ..conf import live_settings
from ..events import make_position
from ..identity import scope_name
from .client_info import ClientInfo

REMEMBERED_SECONDS: Final = 60.0  # longer than a request's checks take; a slower one is checked again
KEYS_MAX: Final = 10_000
REVOKED_KEYS_MAX: Final = 100_000
TICKET_SECONDS_MAX: Final = 86_400.0  # since its checks, whatever MAX_AGE_SECONDS is
CONDITIONS_MAX: Final = 8  # kept for one key; beyond it, all clients of the key are checked again
KEY_NAMES: Final = ("client_id", "session", "user_pk", "channel")  # the first one given is the key
CONDITION_NAMES: Final = frozenset({*KEY_NAMES, "namespace", "not_auth"})

Key = tuple[str, str]
Conditions = tuple[tuple[str, str], ...]


class RecentEnds:
    """Ends by client id, session, user or channel, so that the end of one user never concerns another."""

    __slots__ = ("_by_key", "_forgotten_at", "_keys_max", "_newest")

    def __init__(self, *, forgotten_at: float = float("-inf"), keys_max: int = KEYS_MAX) -> None:
        self._by_key: dict[Key, dict[Conditions, float]] = {}  # to times or positions; the newest last in both dicts
        self._forgotten_at = forgotten_at  # of the newest end that was forgotten
        self._newest: float = -1  # of the newest end
        self._keys_max = keys_max

    def add(self, now: float, conditions: Mapping[str, str], *, kept: float = REMEMBERED_SECONDS) -> None:
        """Note an end. ``now``: later than all before, or already known. ``kept``: older ends are forgotten by this
        much. Raises ValueError for unknown conditions, such as those of a newer version on another worker."""
        name = next((name for name in KEY_NAMES if name in conditions), None)
        if name is None or not CONDITION_NAMES.issuperset(conditions):
            raise ValueError(f"Unknown conditions: {dict(conditions)!r}.")
        self._newest = max(self._newest, now)
        key = (name, conditions[name])
        if name == "user_pk" and "namespace" in conditions:  # user keys are unique in a namespace only
            key = (name, scope_name(conditions["namespace"], conditions[name]))
        ends = self._by_key.pop(key, {})
        if len(ends) >= CONDITIONS_MAX:
            ends, conditions = {}, {same: conditions[same] for same in (name, "namespace") if same in conditions}
        items = tuple(sorted(conditions.items()))
        ends[items] = max(ends.pop(items, now), now)
        self._by_key[key] = ends
        self._forget(now - kept)

    def lose(self, up_to: float) -> None:
        """Note that some ends up to then may be unknown."""
        self._forgotten_at = max(self._forgotten_at, up_to)

    def _forget(self, before: float) -> None:
        while self._by_key:
            key = next(iter(self._by_key))
            newest = next(reversed(self._by_key[key].values()))
            if newest >= before and len(self._by_key) <= self._keys_max:
                break
            del self._by_key[key]
            self.lose(newest)

    def concern(self, info: ClientInfo, since: float) -> bool:
        """Whether an open client would have been ended since then."""
        if since <= self._forgotten_at:
            return True
        if since > self._newest:  # the usual case
            return False
        return any(
            at >= since and info.matches(**dict(conditions))
            for key in _keys_of(info)
            for conditions, at in self._by_key.get(key, {}).items()
        )


class Revocations(RecentEnds):
    """By position: every end after a position of one epoch, as far back as tickets live. Of equal conditions only the
    newest position is kept, so that many saves of one user are one entry."""

    __slots__ = ()

    def __init__(self, since: int, ends: Iterable[tuple[int, Mapping[str, str]]] = ()) -> None:
        """``since``: every later end is known. ``ends``: positions and conditions; unknown conditions concern every
        client."""
        super().__init__(forgotten_at=since, keys_max=REVOKED_KEYS_MAX)
        for position, conditions in sorted(ends, key=lambda end: end[0]):
            self.revoke(position, conditions)

    def revoke(self, position: int, conditions: Mapping[str, str]) -> None:
        try:
            self.add(position, conditions, kept=make_position(kept_milliseconds(), 0))
        except (ValueError, TypeError):  # from a newer version on another worker
            self.lose(position)

    def has_all(self, since: float) -> bool:
        """Whether every end since then is known."""
        return since > self._forgotten_at

    def names_client(self, client_id: str, since: float) -> bool:
        """Whether the client of this id may have been ended since then."""
        ends = self._by_key.get(("client_id", client_id))
        return ends is not None and max(ends.values()) >= since

    def copy(self) -> Revocations:
        """A copy for another owner."""
        twin = Revocations(0)
        twin._forgotten_at, twin._newest = self._forgotten_at, self._newest
        twin._by_key = {key: dict(ends) for key, ends in self._by_key.items()}
        return twin


def ticket_milliseconds() -> int:
    """How long after its checks a ticket is good: the longest life of a stream."""
    max_age = live_settings().max_age_seconds
    return int(1000 * min(TICKET_SECONDS_MAX, TICKET_SECONDS_MAX if max_age is None else 1.1 * max_age))


def kept_milliseconds() -> int:
    """How long a revocation is kept."""
    return ticket_milliseconds() + 60_000


def _keys_of(info: ClientInfo) -> Iterator[Key]:
    yield "client_id", info.id
    if info.session is not None:
        yield "session", info.session
    if info.user_pk is not None:
        yield "user_pk", info.user_pk
        if info.namespace:
            yield "user_pk", scope_name(info.namespace, info.user_pk)
    for channel in info.channels:
        yield "channel", channel
