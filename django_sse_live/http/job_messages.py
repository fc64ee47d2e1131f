"""The two messages of a page that watches a job: stop it, and send its state again."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.utils.translation import gettext as _

from ..backends import get_backend
from ..callables import in_thread
from ..events import control_event
from ..jobs.job import Job, read_job
from ..jobs.records import ASK, CHANNEL_PREFIX, STATE_MESSAGE, STOP_MESSAGE
from ..jobs.watching import ask_here
from ..messages import Message, on_message
from ..namespaces import current_namespace, scope_channels
from .subscription import may_stop


async def stop(message: Message) -> dict[str, Any]:
    """Stop the job. Returns its state, which stays as it was if the job had ended before."""
    channel = _channel(message)
    user = message.user if getattr(message.user, "is_authenticated", False) else None
    if not await may_stop(message.request, user, channel, namespace=current_namespace()):
        raise PermissionDenied(_("You may watch this job, but not stop it."))
    found = await read_job(channel.removeprefix(CHANNEL_PREFIX))
    if found is None:
        raise Http404(_("This job is not known any more."))
    job = Job.of(found)
    await job.acancel()
    return {"state": job.state}


async def tell_state(message: Message) -> dict[str, Any]:
    """Have the state sent on the page's stream, on whichever worker that is."""
    (channel,) = scope_channels((_channel(message),))
    if message.client_id and not ask_here(channel, message.client_id):
        said = {"channel": channel, "client": message.client_id}
        await in_thread(get_backend().publish_deltas, control_event(ASK, said))
    return {}


def _channel(message: Message) -> str:
    """The job's channel. The sender is known to hear it."""
    if message.channel is None or not message.channel.startswith(CHANNEL_PREFIX):
        raise ValueError(f'The channel of this message is that of a job: "{CHANNEL_PREFIX}…".')
    return message.channel


def connect() -> None:
    """Called once, when the app is ready."""
    on_message.add(STOP_MESSAGE, None, stop)
    on_message.add(STATE_MESSAGE, None, tell_state)
