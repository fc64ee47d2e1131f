"""Server-Sent Events for Django: a model save becomes an event in every open browser.

The public API, and nothing else.
"""

from .broadcasting import (
    abroadcast,
    adisconnect_clients,
    asend_to_user,
    broadcast,
    broadcast_template,
    broadcast_text,
    disconnect_clients,
    send_to_user,
    stream_position,
)
from .http.tokens import sign_channels
from .model_broadcasts import live_model
from .presence import apresence, presence

__all__ = [
    "abroadcast",
    "adisconnect_clients",
    "apresence",
    "asend_to_user",
    "broadcast",
    "broadcast_template",
    "broadcast_text",
    "disconnect_clients",
    "live_model",
    "presence",
    "send_to_user",
    "sign_channels",
    "stream_position",
]
