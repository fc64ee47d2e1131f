"""How things are written on the wire: frames of an event stream, lines of a WebSocket, and JSON.

Pure functions: nothing here knows what an event is. The event stream is that of the HTML standard:
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

Form = Literal["named", "envelope", "lines"]

UNNAMED_TYPE: Final = "message"  # what an EventSource calls an event without an ``event:`` line, and so do we
FINAL_ID_SUFFIX: Final = "/end"  # stands behind the id of a goodbye that is final; who brings it back gets a 204


@lru_cache(maxsize=8)
def _encoder(encoder_class: Any, ensure_ascii: bool) -> json.JSONEncoder:
    # NaN and Infinity are not JSON: JSON.parse() in the browser would throw.
    return encoder_class(ensure_ascii=ensure_ascii, allow_nan=False, separators=(",", ":"))  # type: ignore[no-any-return]


def encode_json(data: Any, encoder_class: type[json.JSONEncoder]) -> str:
    """Compact JSON text that has a UTF-8 form. TypeError or ValueError if ``data`` is not JSON-able."""
    encoder: Any = encoder_class
    text = _encoder(encoder, False).encode(data)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, from broken input; JSON can carry it, escaped
        text = _encoder(encoder, True).encode(data)
    return text


def compact_json(value: Any) -> str:
    return encode_json(value, json.JSONEncoder)


def event_field(type: str) -> str | None:
    """What the ``event:`` line of the named form says; None: there is none, which an EventSource reads the same, and
    which is all that some readers take (htmx)."""
    return None if type == UNNAMED_TYPE else type


def frame(data: str, *, id: str | None = None, event: str | None = None, retry_ms: int | None = None) -> bytes:
    """One block of an event stream. A line break in ``data`` (CR, LF or CRLF) begins another ``data:`` line."""
    head = ""
    if retry_ms is not None:
        head = f"retry: {retry_ms}\n"
    if id is not None:
        head += f"id: {id}\n"
    if event is not None:
        head += f"event: {event}\n"
    if "\n" in data or "\r" in data:
        data = data.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\ndata: ")
    return f"{head}data: {data}\n\n".encode()


def line(text: str) -> bytes:
    """One line of the form ``lines``. A line break in JSON is white space, and nothing else."""
    if "\n" in text or "\r" in text:
        text = text.replace("\n", " ").replace("\r", " ")
    return f"{text}\n".encode()


def _control(
    form: Form, type: str, fields: dict[str, Any], *, id: str | None = None, retry_ms: int | None = None
) -> bytes:
    if form == "lines":
        return line(compact_json({"type": type, **fields} if id is None else {"id": id, "type": type, **fields}))
    data = compact_json({"type": type, **fields})
    return frame(data, id=id, event=type if form == "named" else None, retry_ms=retry_ms)


def connected_frame(
    form: Form,
    *,
    id: str | None,
    retry_ms: int,
    client_id: str,
    channels: Iterable[str],
    heartbeat_seconds: float,
    resumed: bool,
    tokens: tuple[str, ...],
    own: tuple[str, ...] = (),
    ends_seconds: float | None = None,
    streams: int = 1,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """The first frame of a stream. It has an id only for a client that brought none, so that one that saw nothing yet
    can still resume; any other is cut off safely between this frame and its replay. ``tokens``: the fresh one for all
    that was signed, then, where the client brought several, the one for each. ``own``: channels that need none.
    ``ends_seconds``: after which the stream will be told goodbye for its age; None for never. ``streams``: how many its
    browser has open here, this one included. ``more``: further members. What only our own client makes use of is not in
    the named form."""
    fields: dict[str, Any] = {
        "client_id": client_id,
        "channels": list(channels),
        "heartbeat": heartbeat_seconds,
        "resumed": resumed,
        "token": tokens[0] if tokens else None,
    }
    if len(tokens) > 1:
        fields["tokens"] = tokens[1:]
    if form != "named":
        fields["retry"] = retry_ms  # an EventSource does not show the field of that name
        if own:
            fields["own"] = own
        if ends_seconds is not None:
            fields["ends"] = round(ends_seconds, 1)
        if streams > 1:
            fields["streams"] = streams
        fields.update(more)
    return _control(form, "connected", fields, id=id, retry_ms=retry_ms)


def reset_frame(form: Form, *, id: str, reason: str) -> bytes:
    return _control(form, "reset", {"reason": reason}, id=id)


def heartbeat_frame(form: Form, *, id: str, spread_ms: int = 0) -> bytes:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    more = {} if form == "named" else {"spread": spread_ms}
    return _control(form, "heartbeat", {"timestamp": now, **more}, id=id)


def goodbye_frame(form: Form, *, reason: str, retry_ms: int | None, id: str | None = None) -> bytes:
    """The last frame. With ``retry_ms`` the client comes back after that many milliseconds; with None it is final."""
    if retry_ms is None:
        final_id = None if id is None else id + FINAL_ID_SUFFIX
        return _control(form, "goodbye", {"reason": reason, "reconnect": False}, id=final_id)
    fields = {"reason": reason, "reconnect": True, "retry": retry_ms}
    return _control(form, "goodbye", fields, retry_ms=retry_ms)


def refusal_line(said: dict[str, Any]) -> bytes:
    """A goodbye for a client that gets no stream, in the form ``lines``.
    ``said``: ``reason``, ``reconnect`` and what else is known of it."""
    return _control("lines", "goodbye", said)
