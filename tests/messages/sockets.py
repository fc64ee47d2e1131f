"""A sender of messages over WebSockets, for the suites of POST."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from django.http import HttpResponse

from django_sse_live.testing import StreamClient
from tests.messages.conftest import Sender

OPEN = "room.open"  # what a socket hears, where a test says nothing of it


class SocketSender(Sender):
    """Opens a WebSocket for each message; its answers look like those of a POST."""

    async def send(
        self,
        type: Any = "typing",
        data: Any = None,
        *,
        id: Any = None,
        query: str = "",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        client = StreamClient(transport="websocket")
        cookie = {"Cookie": cookies_of(self)} if self.cookies else {}
        message = {"id": uuid4().hex if id is None else id, "type": type, "data": data, **more}
        said: dict[str, Any] = {}
        # A stream hears something; that is not what these tests are about.
        for heard in (f"&channel={OPEN}", f"&channel={more.get('channel')}", ""):
            async with client.stream(
                f"{self.path}{query or '?'}{heard}", headers={**cookie, **(headers or {})}
            ) as stream:
                if stream.connected is None:
                    said = said or (await stream.next()).data
                    continue
                stream.send_text(json.dumps(message))
                said = (await stream.next("answer")).data
                assert said["to"] == message["id"]
                break
        self.response = HttpResponse(json.dumps(said))
        if said["type"] == "goodbye" or "error" in said:
            return said["status"], {"error": said.get("error") or said["reason"], "detail": said.get("detail")}
        return 200, {"id": said["to"], "data": said["data"]}


def cookies_of(client: Any) -> str:
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())
