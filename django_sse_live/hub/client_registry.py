"""ClientRegistry: the open clients of a hub, and their numbers for each user and address.

Touched on the hub's loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..conf import live_settings
from ..identity import address_group
from .client_info import ClientInfo, user_key
from .clients import Client


class _Index:
    """Clients by a key. A key's only client is stored without a dict: a dict for each would cost 200 bytes."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, Client | dict[Client, None]] = {}

    def add(self, key: str | None, client: Client) -> None:
        if key is None:
            return
        before = self._found.get(key)
        if before is None:
            self._found[key] = client
        elif isinstance(before, Client):
            self._found[key] = {before: None, client: None}
        else:
            before[client] = None

    def remove(self, key: str | None, client: Client) -> None:
        if key is None:
            return
        found = self._found[key]
        if isinstance(found, dict):
            del found[client]
            if found:
                return
        del self._found[key]

    def count(self, key: str) -> int:
        found = self._found.get(key)
        return 0 if found is None else 1 if isinstance(found, Client) else len(found)

    def clients(self, key: str) -> list[Client]:
        found = self._found.get(key)
        return [] if found is None else [found] if isinstance(found, Client) else list(found)


def _of_user(info: ClientInfo) -> str | None:
    return None if info.user_key is None else f"user {info.user_key}"


def _of_session(info: ClientInfo) -> str | None:
    return None if info.session is None else f"session {info.session}"


def _of_address(info: ClientInfo) -> str:
    return f"address {address_group(info.address)}"


def _what_limits_count(info: ClientInfo) -> tuple[str | None, str | None, str]:
    return _of_user(info), _of_session(info), _of_address(info)


def _count_down(counter: Counter[Any], key: str | None) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]


class ClientRegistry:
    """Clients by id, by the keys of the limits, and by the conditions of disconnect_clients().

    A browser that renews its stream opens the new one first, and closes the old one once the new one is connected.
    Meanwhile the two count as one.
    """

    __slots__ = ("_by_id", "_by_session", "_by_user", "_doubled", "_pairs", "_per_address")

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._by_user = _Index()
        self._by_session = _Index()
        self._per_address: Counter[str] = Counter()  # by address_group()
        self._pairs: dict[str, str] = {}  # ids of two open clients that count as one, both ways
        self._doubled: Counter[str | None] = Counter()  # by key of a limit: how many clients are counted twice

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_id.values()))

    def get(self, client_id: str) -> Client | None:
        return self._by_id.get(client_id)

    @property
    def is_full(self) -> bool:
        return len(self._by_id) - len(self._pairs) // 2 >= live_settings().max_clients

    def has_room_for(self, info: ClientInfo) -> bool:
        if self._predecessor(info) is not None:
            return True
        settings = live_settings()
        if self.is_full:
            return False
        if info.user_key is not None and settings.max_clients_per_user is not None:
            if self._by_user.count(info.user_key) - self._doubled[_of_user(info)] >= settings.max_clients_per_user:
                return False
        if settings.max_clients_per_address is not None and info.address:
            return self._count_at_address(info) < settings.max_clients_per_address
        return True

    def count_like(self, info: ClientInfo) -> int:
        """The number of streams that the same browser seems to have: by its session, or without one, its address."""
        if info.session is not None:
            return self._by_session.count(info.session) - self._doubled[_of_session(info)]
        return self._count_at_address(info) if info.address else 1

    def _count_at_address(self, info: ClientInfo) -> int:
        return self._per_address[address_group(info.address)] - self._doubled[_of_address(info)]

    def add(self, client: Client) -> None:
        info = client.info
        old = self._predecessor(info)
        if old is not None:
            self._pairs[old.id], self._pairs[info.id] = info.id, old.id
            self._doubled.update(_what_limits_count(info))
        self._by_id[info.id] = client
        self._by_user.add(info.user_key, client)
        self._by_session.add(info.session, client)
        if info.address:
            self._per_address[address_group(info.address)] += 1

    def remove(self, client: Client) -> None:
        info = client.info
        del self._by_id[info.id]
        other = self._pairs.pop(info.id, None)
        if other is not None:
            del self._pairs[other]  # the other keeps their place
            for key in _what_limits_count(info):
                _count_down(self._doubled, key)
        self._by_user.remove(info.user_key, client)
        self._by_session.remove(info.session, client)
        if info.address:
            _count_down(self._per_address, address_group(info.address))

    def _predecessor(self, info: ClientInfo) -> Client | None:
        """The open client that this newcomer renews. Both must have the same user, session and address. At most two
        clients share a place."""
        old = self._by_id.get(info.replaces) if info.replaces else None
        if old is None or old.id in self._pairs:
            return None
        known = old.info
        if (known.user_key, known.session, known.address) != (info.user_key, info.session, info.address):
            return None
        return old

    def candidates(
        self,
        *,
        user_pk: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        namespace: str | None = None,
        **_: str,
    ) -> list[Client] | None:
        """The clients for which the first given condition is true; None if no condition is given."""
        if client_id is not None:
            client = self._by_id.get(client_id)
            return [] if client is None else [client]
        if session is not None:
            return self._by_session.clients(session)
        settings = live_settings()
        is_known = namespace is not None or settings.namespace is None or settings.shared_users
        if user_pk is not None and is_known:  # a user of no known namespace has a key in each
            return self._by_user.clients(user_key(user_pk, namespace or ""))
        return None
