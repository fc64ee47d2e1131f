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
from .jobs import Job, JobOver, afind_job, astart_job, find_job, start_job
from .messages import Message, on_message
from .model_broadcasts import live_model
from .patches import abroadcast_patch, broadcast_patch
from .presence import apresence, presence

__all__ = [
    "Job",
    "JobOver",
    "Message",
    "abroadcast",
    "abroadcast_patch",
    "adisconnect_clients",
    "afind_job",
    "apresence",
    "asend_to_user",
    "astart_job",
    "broadcast",
    "broadcast_patch",
    "broadcast_template",
    "broadcast_text",
    "disconnect_clients",
    "find_job",
    "live_model",
    "on_message",
    "presence",
    "send_to_user",
    "sign_channels",
    "start_job",
    "stream_position",
]
