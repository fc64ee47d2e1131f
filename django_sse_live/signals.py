"""The public Django signals: one that comes in, five that go out.

``live_event.send(sender=Comment, channel="comments", type="new_comment", data={...})`` broadcasts, with the arguments
of broadcast(), without importing it.
"""

from __future__ import annotations

from django.dispatch import Signal

live_event: Signal = Signal()  # in: channel, type, data=None, on_commit=True, using=None

client_connected: Signal = Signal()  # out: client
client_disconnected: Signal = Signal()  # out: client; client.close_reason says why
event_broadcast: Signal = Signal()  # out: event, client_count
presence_joined: Signal = Signal()  # out: channel, user_pk (text); on one worker: the one where the user joined
presence_left: Signal = Signal()  # out: the same, on the worker that noticed
