from __future__ import annotations

from django_sse_live import Message, on_message


@on_message("found in testapp/live.py")
def found(message: Message) -> None:
    pass
