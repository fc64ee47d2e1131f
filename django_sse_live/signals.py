"""Django signals: one that comes in, five that go out.

``live_event.send(sender=Comment, channel="comments", type="new_comment", data={...})`` broadcasts, with the arguments
of broadcast(), without importing it.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import connections
from django.dispatch import Signal

live_event: Signal = Signal()  # in: channel, type, data=None, on_commit=True, using=None

client_connected: Signal = Signal()  # out: client
client_disconnected: Signal = Signal()  # out: client; client.close_reason says why
event_broadcast: Signal = Signal()  # out: event, client_count
presence_joined: Signal = Signal()  # out: channel, user_pk (text); on one worker, whichever tells
presence_left: Signal = Signal()  # out: the same


async def notify(signal: Signal, **arguments: Any) -> None:
    """Send one of the outgoing signals. Sync receivers run in a thread, whose database connections are closed after.

    A receiver that fails is logged by Django (logger ``django.dispatch``) and harms nobody else.
    """
    async with ThreadSensitiveContext():
        await signal.asend_robust(sender=None, **arguments)
        await sync_to_async(connections.close_all)()
