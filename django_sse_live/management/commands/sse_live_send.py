"""manage.py sse_live_send CHANNEL EVENT 'JSON': an event by hand, to see who hears it."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...backends import get_backend
from ...broadcasting import broadcast, broadcast_text
from ...hub.registry import open_hubs
from ...namespaces import use_namespace

BUS_SECONDS: Final = 5.0  # to wait for a bus that does not answer


class Command(BaseCommand):
    help = "Broadcasts one event, now."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("channel", help="such as comments, or user:42")
        parser.add_argument("event", help="the event's type, such as new_comment")
        parser.add_argument("data", nargs="?", default="null", help="its data as JSON, such as '{\"id\": 7}'")
        parser.add_argument("--text", action="store_true", help="the data is text (HTML, say), and is sent as it is")
        parser.add_argument("--namespace", help="the tenant that hears it, where SSE_LIVE has a NAMESPACE")

    def handle(
        self, *args: Any, channel: str, event: str, data: str, text: bool, namespace: str | None = None, **options: Any
    ) -> None:
        try:
            with nullcontext() if namespace is None else use_namespace(namespace):
                if text:
                    broadcast_text(channel, event, data, on_commit=False)
                else:
                    broadcast(channel, event, json.loads(data), on_commit=False)
        except json.JSONDecodeError as error:
            raise CommandError(
                f"The data is not JSON ({error}): {data!r}. Quote it for the shell, as in '{{\"id\": 7}}', "
                "or send it as text with --text."
            ) from error
        except (TypeError, ValueError) as error:
            raise CommandError(str(error)) from error
        backend = get_backend()
        if backend.buffered:
            self.stderr.write(f"The bus does not answer; the event waits for it, for {BUS_SECONDS:g} seconds.")
            until = time.monotonic() + BUS_SECONDS
            while backend.buffered and time.monotonic() < until:
                time.sleep(0.05)
            if backend.buffered:
                backend.close()
                raise CommandError(f"{event!r} was not sent: the bus does not answer.")
        if not backend.reaches_other_processes and not open_hubs():
            self.stderr.write(
                f"Nobody hears {event!r} on {channel!r}: {type(backend).__name__} reaches no other process."
            )
        else:
            self.stdout.write(f"Sent {event!r} on {channel!r}.")
