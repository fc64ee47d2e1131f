"""What an event is, its id, and how it looks on the wire.

Pure data and pure functions: nothing here knows of hubs, requests or buses.
The wire is the event stream of the HTML standard: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any, Final, Literal

Form = Literal["named", "envelope"]

ENVELOPES: Final = 8  # of an event on several channels, kept: one for each choice of them that somebody hears
NAME_MAX_LENGTH: Final = 200
RESERVED_TYPES: Final = frozenset({"connected", "heartbeat", "reset", "goodbye"})
RESERVED_PREFIX: Final = "sse."
NOW_PREFIX: Final = "sse.now."  # of control events that are worth nothing later: a backend need not keep them
CONTROL_CHANNEL: Final = "sse.control"  # what workers tell each other; nobody listens to it
FINAL_ID_SUFFIX: Final = "/end"  # stands behind the id of a goodbye that is final; who brings it back gets a 204

# Control characters (Unicode category Cc) would end a line of the stream; surrogates have no UTF-8 form.
_FORBIDDEN_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ID = re.compile(r"([0-9a-z]{1,32}):([0-9]{1,15})-([0-9]{1,20})", re.ASCII)
_SEQUENCE_BITS: Final = 64  # as wide as the sequence in a Redis stream's id
_SEQUENCE_MASK: Final = (1 << _SEQUENCE_BITS) - 1


class Event:
    """One event on its way to everyone who hears one of its channels.

    Made by broadcast() with its data already encoded; gets its position and id from the backend, once, under the
    publisher's lock. After that nothing changes but the two cached wire forms. Those are filled by whichever hub needs
    them first: two loops may both encode, and both get the same bytes.
    """

    __slots__ = ("channels", "type", "payload", "is_text", "position", "id", "_named", "_envelopes")

    def __init__(
        self,
        channels: tuple[str, ...],
        type: str,
        payload: str,
        *,
        is_text: bool = False,
        position: int = 0,
        id: str = "",
    ) -> None:
        self.channels: tuple[str, ...] = channels
        self.type: str = type
        self.payload: str = payload  # JSON text, or the text itself
        self.is_text: bool = is_text
        self.position: int = position
        self.id: str = id
        self._named: bytes | None = None
        self._envelopes: dict[tuple[str, ...], bytes] | bytes | None = None

    def __repr__(self) -> str:
        return f"<Event {self.type!r} on {', '.join(self.channels)} id={self.id!r}>"

    @property
    def data(self) -> Any:
        """The data as a browser gets it: parsed JSON, or the text of a text event."""
        return self.payload if self.is_text else json.loads(self.payload)

    @property
    def size(self) -> int:
        """About how many bytes the log keeps alive for this event, its wire forms included."""
        payload = self.payload
        return 2 * (len(payload) if payload.isascii() else len(payload.encode())) + 512

    def stamp(self, epoch: str, position: int) -> None:
        self.position = position
        self.id = format_id(epoch, position)

    def named(self) -> bytes:
        """The form for plain EventSource: the type in the event field."""
        body = self._named
        if body is None:
            body = self._named = frame(self.payload, id=self.id, event=self.type)
        return body

    def envelope(self, heard: frozenset[str]) -> bytes:
        """The form for our own client: type and channels inside the data.

        Only the channels in ``heard`` are named: an event on several channels does not tell a listener of one of them
        what the others are called.
        """
        if len(self.channels) == 1:
            body = self._envelopes
            if body is None:
                body = self._envelopes = self._encode_envelope(self.channels)
            return body  # type: ignore[return-value]
        if self._envelopes is None:
            self._envelopes = {}
        visible = tuple(channel for channel in self.channels if channel in heard)
        forms: dict[tuple[str, ...], bytes] = self._envelopes  # type: ignore[assignment]
        body = forms.get(visible)
        if body is None:
            body = self._encode_envelope(visible)
            if len(forms) < ENVELOPES:
                forms[visible] = body
        return body

    def _encode_envelope(self, channels: tuple[str, ...]) -> bytes:
        data = _compact(self.payload) if self.is_text else self.payload
        return frame(f'{{"type":{_compact(self.type)},"channels":{_compact(channels)},"data":{data}}}', id=self.id)


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


def _control(
    form: Form, type: str, fields: dict[str, Any], *, id: str | None = None, retry_ms: int | None = None
) -> bytes:
    data = _compact({"type": type, **fields})
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
) -> bytes:
    """The first frame of a stream. It has an id only for a client that brought none, so that one that saw nothing yet
    can still resume; any other is cut off safely between this frame and its replay. ``tokens``: the fresh one for all
    that was signed, then, where the client brought several, the one for each. ``own``: channels that need none. What
    only our own client makes use of is in the envelope alone."""
    fields: dict[str, Any] = {
        "client_id": client_id,
        "channels": list(channels),
        "heartbeat": heartbeat_seconds,
        "resumed": resumed,
        "token": tokens[0] if tokens else None,
    }
    if len(tokens) > 1:
        fields["tokens"] = tokens[1:]
    if form == "envelope":
        fields["retry"] = retry_ms  # an EventSource does not show the field of that name
        if own:
            fields["own"] = own
    return _control(form, "connected", fields, id=id, retry_ms=retry_ms)


def reset_frame(form: Form, *, id: str, reason: str) -> bytes:
    return _control(form, "reset", {"reason": reason}, id=id)


def heartbeat_frame(form: Form, *, id: str) -> bytes:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
    return _control(form, "heartbeat", {"timestamp": now}, id=id)


def goodbye_frame(form: Form, *, reason: str, retry_ms: int | None, id: str | None = None) -> bytes:
    """The last frame. With ``retry_ms`` the client comes back after that many milliseconds; with None it is final."""
    if retry_ms is None:
        final_id = None if id is None else id + FINAL_ID_SUFFIX
        return _control(form, "goodbye", {"reason": reason, "reconnect": False}, id=final_id)
    fields = {"reason": reason, "reconnect": True, "retry": retry_ms}
    return _control(form, "goodbye", fields, retry_ms=retry_ms)


def format_id(epoch: str, position: int) -> str:
    return f"{epoch}:{position >> _SEQUENCE_BITS}-{position & _SEQUENCE_MASK}"


def parse_id(text: str) -> tuple[str, int] | None:
    """(epoch, position) of an id as format_id() writes it; None for anything else."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    sequence = int(match[3])
    if sequence > _SEQUENCE_MASK:
        return None
    return match[1], int(match[2]) << _SEQUENCE_BITS | sequence


def make_position(milliseconds: int, sequence: int) -> int:
    """A place in a log: an int that grows as ids grow, so that a cursor needs no look-up."""
    return milliseconds << _SEQUENCE_BITS | sequence


def position_milliseconds(position: int) -> int:
    return position >> _SEQUENCE_BITS


def validate_name(kind: Literal["channel", "event type"], name: object) -> str:
    """The name itself. TypeError or ValueError says what is wrong with it."""
    if not isinstance(name, str):
        raise TypeError(f"The {kind} must be a str, not {type(name).__name__}: {name!r}.")
    if not 0 < len(name) <= NAME_MAX_LENGTH:
        raise ValueError(
            f"The {kind} must have 1 to {NAME_MAX_LENGTH} characters; this one has {len(name)}: {name[:50]!r}."
        )
    if _FORBIDDEN_IN_NAMES.search(name):
        raise ValueError(f"The {kind} must have no control characters (line breaks, tabs, NUL …): {name!r}.")
    return name


def validate_type(type: object) -> str:
    name = validate_name("event type", type)
    if name in RESERVED_TYPES or name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"The event type {name!r} is reserved for the stream itself, as are {', '.join(sorted(RESERVED_TYPES))} "
            f'and all that begin with "{RESERVED_PREFIX}". Choose another, such as "my_{name}".'
        )
    return name


def validate_channels(channel: str | Iterable[str]) -> tuple[str, ...]:
    """One channel or several, as a tuple without repetitions."""
    if isinstance(channel, str):
        return (validate_name("channel", channel),)
    try:
        names = tuple(channel)
    except TypeError:
        raise TypeError(f"The channel must be a str or an iterable of str, not {type(channel).__name__}.") from None
    if not names:
        raise ValueError("An event needs at least one channel; this list is empty.")
    return tuple(dict.fromkeys(validate_name("channel", name) for name in names))


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


def _compact(value: Any) -> str:
    return encode_json(value, json.JSONEncoder)
