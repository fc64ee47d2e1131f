"""What an event is, its id, and the names that it may have.

Pure data and pure functions: nothing here knows of hubs, requests or buses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Final, Literal

from .identity import namespace_of, plain_name
from .wire import Form, compact_json, event_field, frame, line

ENVELOPES_MAX: Final = 8  # kept of an event on several channels: one for each set of them that clients hear …
ENVELOPES_BYTES_MAX: Final = 2048  # … as far as they fit in here; one is kept however long it is
CHANNELS_SCANNED_MAX: Final = 64  # an event on more channels has a table to find those that a client hears
NAME_MAX_LENGTH: Final = 200
# Of the stream's own frames, and of events that the browser client and an EventSource dispatch by themselves.
RESERVED_TYPES: Final = frozenset(
    {"connected", "heartbeat", "reset", "goodbye", "answer", "statechange", "error", "open", "stale", "patched"}
)
RESERVED_PREFIX: Final = "sse."
NOW_PREFIX: Final = "sse.now."  # of control events that are worth nothing later: a backend need not keep them
CONTROL_CHANNEL: Final = "sse.control"  # what workers tell each other; nobody listens to it
# The types of the control events that every hub obeys. They travel in order with all other events.
DISCONNECT: Final = RESERVED_PREFIX + "disconnect"  # disconnect_clients(): a final goodbye
REVOKE: Final = RESERVED_PREFIX + "revoke"  # clients are to come back and be checked anew
ENDS: Final = frozenset({DISCONNECT, REVOKE})
LOST_EVENTS: Final = RESERVED_PREFIX + "lost"  # a publisher has dropped events before this one

# Control characters (Unicode category Cc) would end a line of the stream; surrogates have no UTF-8 form.
_FORBIDDEN_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ID = re.compile(r"([0-9a-z]{1,32}):([0-9]{1,15})-([0-9]{1,20})", re.ASCII)
_Bodies = dict[tuple[str, ...], bytes] | bytes | None  # of an event on several channels, by those that are heard
_SEQUENCE_BITS: Final = 64  # as wide as the sequence in a Redis stream's id
_SEQUENCE_MASK: Final = (1 << _SEQUENCE_BITS) - 1


@dataclass(slots=True, eq=False, repr=False)
class Event:
    """One event on its way to everyone who hears one of its channels.

    Made by broadcast() with its data already encoded; gets its position and id from the backend, once, under the
    publisher's lock. After that nothing changes but ``spread_ms`` and the cached wire forms. Those are filled by
    whichever hub needs them first: two loops may both encode, and both get the same bytes.

    An event with ``finish`` is not complete: its data or its patch can be known only after the commit. Its
    publisher calls ``complete()`` first, and drops it where the answer is False.
    """

    channels: tuple[str, ...]  # with their namespace, where NAMESPACE is set: see ``names``
    type: str
    payload: str  # JSON text, or the text itself
    _: KW_ONLY
    patch: str | None = None  # JSON text without a line break: what the event changes on a page
    is_text: bool = False
    # After the commit, once: gives the event the payload and patch of the row as it is then. False: do not send it.
    # Never raises. Until then the event has what is right without it: a plain payload, and a refresh for a patch.
    finish: Callable[[Event], bool] | None = None
    position: int = 0
    id: str = ""
    spread_ms: int = field(default=0, init=False)  # of a patch: over how long pages spread what they fetch for it
    _named: bytes | None = field(default=None, init=False)
    _envelopes: _Bodies = field(default=None, init=False)
    _lines: _Bodies = field(default=None, init=False)
    _places: dict[str, int] | None = field(default=None, init=False)  # channel → place, where there are many

    def __repr__(self) -> str:
        return f"<Event {self.type!r} on {', '.join(self.channels)} id={self.id!r}>"

    @property
    def data(self) -> Any:
        """The data as a browser gets it: parsed JSON, or the text of a text event."""
        return self.payload if self.is_text else json.loads(self.payload)

    @property
    def names(self) -> tuple[str, ...]:
        """The channels as the project and its browsers know them: without their namespace."""
        return tuple([plain_name(channel) for channel in self.channels])

    @property
    def namespace(self) -> str:
        """Whose event it is, where NAMESPACE is set; else ""."""
        return namespace_of(self.channels[0])

    @property
    def is_control(self) -> bool:
        """Whether workers tell each other by it: no client gets it."""
        return self.type.startswith(RESERVED_PREFIX)

    @property
    def is_of_now(self) -> bool:
        """Whether it is a presence or worker report, or deltas of jobs: worthless later."""
        return self.type.startswith(NOW_PREFIX)

    @property
    def data_bytes(self) -> int:
        """Of its data and its patch, as UTF-8."""
        return _utf8_length(self.payload) + (0 if self.patch is None else _utf8_length(self.patch))

    @property
    def size(self) -> int:
        """About how many bytes the log keeps alive for this event, its wire forms included."""
        payload = self.payload
        # Not data_bytes: this is asked of each event that a client has missed.
        size = 512 + 2 * (len(payload) if payload.isascii() else _utf8_length(payload))
        if self.patch is not None:
            size += 2 * _utf8_length(self.patch)
        count = len(self.channels)
        if count > 1:
            size += ENVELOPES_BYTES_MAX // 2 + sum(map(len, self.channels)) + count * 80
            if count > CHANNELS_SCANNED_MAX:
                size += count * 80
        return size

    def complete(self) -> bool:
        """Run ``finish``, unless it has run. Returns whether the event is to be sent."""
        finish, self.finish = self.finish, None
        return finish is None or finish(self)

    def stamp(self, epoch: str, position: int) -> None:
        self.position = position
        self.id = format_id(epoch, position)

    def named(self) -> bytes:
        """The form for plain EventSource: the type in the event field. A patch is for our own client alone."""
        body = self._named
        if body is None:
            body = self._named = frame(self.payload, id=self.id, event=event_field(self.type))
        return body

    def envelope(self, heard: frozenset[str]) -> bytes:
        """The form for our own client: type and channels inside the data.

        Only the channels in ``heard`` are named: an event on several channels does not tell a listener of one of them
        what the others are called.
        """
        known = self._envelopes
        if isinstance(known, bytes):  # most often: of one channel
            return known
        known, body = self._body(known, heard, self._encode_envelope)
        self._envelopes = known
        return body

    def lines(self, heard: frozenset[str]) -> bytes:
        """The envelope for a carrier that has messages of its own: one JSON object with the id inside, and a line
        break."""
        known = self._lines
        if isinstance(known, bytes):
            return known
        known, body = self._body(known, heard, self._encode_line)
        self._lines = known
        return body

    def _body(
        self, known: _Bodies, heard: frozenset[str], encode: Callable[[tuple[str, ...]], bytes]
    ) -> tuple[_Bodies, bytes]:
        """What is known of a form from now on, and the body for those who hear these channels."""
        if len(self.channels) == 1:
            body = encode(self.channels)
            return body, body
        forms: dict[tuple[str, ...], bytes] = {} if known is None else known  # type: ignore[assignment]
        visible = self._visible(heard)
        body = forms.get(visible, b"")
        if not body:
            body = encode(visible)
            if not forms or (len(forms) < ENVELOPES_MAX and len(body) * (len(forms) + 1) <= ENVELOPES_BYTES_MAX):
                forms[visible] = body
        return forms, body

    def _visible(self, heard: frozenset[str]) -> tuple[str, ...]:
        """Those of the channels, in their order, that are heard."""
        if len(self.channels) <= CHANNELS_SCANNED_MAX:
            return tuple([channel for channel in self.channels if channel in heard])
        places = self._places
        if places is None:
            places = self._places = {channel: place for place, channel in enumerate(self.channels)}
        return tuple(sorted([channel for channel in heard if channel in places], key=places.__getitem__))

    def _encode_envelope(self, channels: tuple[str, ...]) -> bytes:
        return frame(f"{{{self._members(channels)}}}", id=self.id)

    def _encode_line(self, channels: tuple[str, ...]) -> bytes:
        return line(f'{{"id":"{self.id}",{self._members(channels)}}}')

    def _members(self, channels: tuple[str, ...]) -> str:
        data = compact_json(self.payload) if self.is_text else self.payload
        patch = "" if self.patch is None else f',"patch":{self.patch}'
        if self.spread_ms:
            patch += f',"spread":{self.spread_ms}'
        return f"{_members(channels, self.type, data)}{patch}"


def control_event(type: str, said: Mapping[str, Any]) -> Event:
    """What workers tell each other."""
    return Event((CONTROL_CHANNEL,), type, compact_json(said))


def frame_without_id(form: Form, channels: Iterable[str], type: str, data: str) -> bytes:
    """The frame of what is told as an event is, and stands in no log. ``data``: JSON."""
    if form == "named":
        return frame(data, event=event_field(type))
    text = f"{{{_members(channels, type, data)}}}"
    return line(text) if form == "lines" else frame(text)


def _members(channels: Iterable[str], type: str, data: str) -> str:
    names = [plain_name(channel) for channel in channels]
    return f'"type":{compact_json(type)},"channels":{compact_json(names)},"data":{data}'


def format_id(epoch: str, position: int) -> str:
    return f"{epoch}:{position >> _SEQUENCE_BITS}-{position & _SEQUENCE_MASK}"


NO_STREAM_ID: Final = format_id("0", 0)  # an id of no stream: a client that sends it gets a reset


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


def next_position(head: int, milliseconds: int) -> int:
    """The position of an event of this time, after ``head``: positions do not go back with a clock that is set back."""
    return make_position(milliseconds, 0) if milliseconds > position_milliseconds(head) else head + 1


def plain_text(text: str) -> str:
    """The text itself of an enum's member, of SafeString, or of any other subclass of str: each may write itself
    differently in an f-string, in JSON, or on a bus."""
    return str.__str__(text)


def validate_name(kind: Literal["channel", "event type"], name: object) -> str:
    """The name itself, as plain text. TypeError or ValueError says what is wrong with it."""
    if not isinstance(name, str):
        raise TypeError(f"The {kind} must be a str, not {type(name).__name__}: {name!r}.")
    name = plain_text(name)
    if not 0 < len(name) <= NAME_MAX_LENGTH:
        raise ValueError(
            f"The {kind} must have 1 to {NAME_MAX_LENGTH} characters; this one has {len(name)}: {name[:50]!r}."
        )
    if _FORBIDDEN_IN_NAMES.search(name):
        raise ValueError(f"The {kind} must have no control characters (line breaks, tabs, NUL …): {name!r}.")
    if kind == "channel" and ", " in name:
        each = [part.strip() for part in name.split(",") if part.strip()]
        tag = " ".join(f'"{part}"' for part in each)
        raise ValueError(
            f"The channel {name!r} reads like several. Write them one by one: {each!r}, or {{% sse_live {tag} %}} in a "
            'template. The name of one channel has no ", " in it.'
        )
    return name


def validate_type(type: object) -> str:
    name = validate_name("event type", type)
    if name in RESERVED_TYPES or name.startswith(RESERVED_PREFIX):
        raise ValueError(
            f"The event type {name!r} is reserved for the stream itself and its client in the browser, as are "
            f'{", ".join(sorted(RESERVED_TYPES))} and all that begin with "{RESERVED_PREFIX}". Choose another, such as '
            f'"my_{name.removeprefix(RESERVED_PREFIX)}".'
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


def refuse_reserved(channels: Iterable[str]) -> None:
    """ValueError if the project names a channel of those that workers tell each other by."""
    for name in channels:
        if name.startswith(RESERVED_PREFIX):
            raise ValueError(
                f'The channel {name!r} is reserved: names that begin with "{RESERVED_PREFIX}" belong to '
                "django-sse-live. Put a prefix of your own before names that users choose."
            )


def received_event(
    channels: object, type: object, payload: object, *, patch: object = None, is_text: object = False
) -> Event:
    """An event as it came over a bus, where anything may have been written. TypeError, ValueError or
    RecursionError for what broadcast() never sends."""
    if not isinstance(channels, (list, tuple)):
        raise TypeError("its channels are no list")
    if not isinstance(payload, str) or not isinstance(is_text, bool):
        raise TypeError("its data is no text")
    if patch is not None and not (isinstance(patch, str) and isinstance(json.loads(patch), dict)):
        raise TypeError("its patch is no object")
    name = validate_name("event type", type)
    names = tuple(dict.fromkeys(channels))
    validate_channels(map(plain_name, names))  # a namespace stands in front of a name, behind a separator
    event = Event(names, name, payload, patch=patch, is_text=is_text)
    if event.is_control and not isinstance(event.data, dict):
        raise TypeError("a control event whose data is no object")
    return event


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
