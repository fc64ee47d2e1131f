"""ClientInfo: what a client's request has shown. It never changes while the stream is open.

Hubs, and how far a client was served, are unknown here.
"""

from __future__ import annotations

import secrets
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

from ..conf import live_settings
from ..identity import have_auth_in_common, plain_name, scope_name
from ..wire import Form


def _new_id() -> str:
    return secrets.token_hex(8)


def _usual_heartbeat_seconds() -> float:
    return live_settings().heartbeat_seconds


def user_key(user_pk: str, namespace: str) -> str:
    """The name that all streams of one user share."""
    return user_pk if live_settings().shared_users else scope_name(namespace, user_pk)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """Who reads a stream, and what it hears."""

    channels: tuple[str, ...]
    form: Form = "named"
    _: KW_ONLY
    namespace: str = ""  # with NAMESPACE set; the channels begin with it
    id: str = field(default_factory=_new_id)
    user_pk: str | None = None
    auth: str = ""  # auth_marks() of the user; a password change changes them
    session: str | None = None  # a digest of the session key, never the key
    address: str = ""
    user_agent: str = ""
    heartbeat_seconds: float = field(default_factory=_usual_heartbeat_seconds)
    replaces: str = ""  # for a renewal: the id of the older client that its browser is about to close
    user_key: str | None = field(init=False)

    def __post_init__(self) -> None:
        key = None if self.user_pk is None else user_key(self.user_pk, self.namespace)
        object.__setattr__(self, "user_key", key)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels without their namespace, as the project and its browsers know them."""
        return tuple([plain_name(channel) for channel in self.channels])

    def matches(
        self,
        *,
        namespace: str | None = None,
        user_pk: str | None = None,
        channel: str | None = None,
        client_id: str | None = None,
        session: str | None = None,
        not_auth: str | None = None,
    ) -> bool:
        """Whether all conditions that are not None are met. ``not_auth``: its ``auth`` differs, so its password is
        another."""
        return (
            (namespace is None or self.namespace == namespace)
            and (user_pk is None or self.user_pk == user_pk)
            and (channel is None or channel in self.channels)
            and (client_id is None or self.id == client_id)
            and (session is None or self.session == session)
            and (not_auth is None or not have_auth_in_common(self.auth, not_auth))
        )


class Admission(NamedTuple):
    """The earlier checks on which a ticket lets a client in."""

    client_id: str  # of the stream that was checked
    epoch: str
    position: int  # of the bus, known before the checks began: they have seen every revocation up to it
