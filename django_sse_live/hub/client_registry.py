"""ClientRegistry: who is here, and how many of whom.

Touched on the hub's loop alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..conf import live_settings
from ..identity import address_group
from .clients import Client


class ClientRegistry:
    """Who is here, by id, with what the limits and disconnect_clients() ask."""

    __slots__ = ("_by_id", "_per_address", "_per_session", "_per_user")

    def __init__(self) -> None:
        self._by_id: dict[str, Client] = {}
        self._per_user: Counter[str] = Counter()
        self._per_session: Counter[str] = Counter()
        self._per_address: Counter[str] = Counter()  # by address_group()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._by_id.values()))

    def get(self, client_id: str) -> Client | None:
        return self._by_id.get(client_id)

    @property
    def is_full(self) -> bool:
        return len(self._by_id) >= live_settings().max_clients

    def has_room_for(self, user_pk: str | None, address: str) -> bool:
        settings = live_settings()
        if len(self._by_id) >= settings.max_clients:
            return False
        if user_pk is not None and settings.max_clients_per_user is not None:
            if self._per_user[user_pk] >= settings.max_clients_per_user:
                return False
        if settings.max_clients_per_address is not None and address:
            return self._per_address[address_group(address)] < settings.max_clients_per_address
        return True

    def add(self, client: Client) -> None:
        self._by_id[client.id] = client
        for counter, key in self._counters(client):
            counter[key] += 1

    def remove(self, client: Client) -> None:
        del self._by_id[client.id]
        for counter, key in self._counters(client):
            counter[key] -= 1
            if not counter[key]:
                del counter[key]

    def _counters(self, client: Client) -> Iterator[tuple[Counter[str], str]]:
        if client.user_pk is not None:
            yield self._per_user, client.user_pk
        if client.session is not None:
            yield self._per_session, client.session
        if client.address:
            yield self._per_address, address_group(client.address)

    def matching(self, **conditions: str | None) -> list[Client]:
        """The clients for whom Client.matches() says yes."""
        client_id = conditions.get("client_id")
        if client_id is not None:
            candidates: Iterable[Client] = filter(None, [self._by_id.get(client_id)])
        else:
            # Most logouts and saved users concern nobody here: no walk past every client for them.
            for counter, key in ((self._per_user, "user_pk"), (self._per_session, "session")):
                value = conditions.get(key)
                if value is not None and not counter[value]:
                    return []
            candidates = self._by_id.values()
        return [client for client in candidates if client.matches(**conditions)]
