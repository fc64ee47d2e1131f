"""answer_message(): takes what a browser has sent and makes the answer, the same over POST and WebSocket.

A message passes, in this order: its form; its sender; their permission; their rate; the line of messages; whether it
has run before; its handler. From the line on it runs in its own task, to its end, even if the sender leaves.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from hashlib import sha256
from typing import Any, Final, Protocol

from asgiref.sync import sync_to_async
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..answers import RENEW_SECONDS, Answers, CacheAnswers, Found, TableAnswers
from ..backends import running_hub
from ..callables import in_thread
from ..conf import live_settings
from ..events import RESERVED_PREFIX, validate_name
from ..hub.client_info import ClientInfo
from ..hub.failures import is_being_cancelled
from ..hub.hub import Hub
from ..hub.registry import count, process_part
from ..identity import as_digest, auth_marks, scope_name, session_digest, user_pk
from ..messages import Message, call_handler, on_message
from ..namespaces import request_namespace, use_namespace
from ..wire import encode_json
from .addresses import line_address, scope_of
from .handoff import handoff_of, let_go_of_thread
from .message_line import MessageRate
from .message_tasks import Answer, Messages, in_turn, lend, refusal
from .refusals import Refused
from .shutdown import stop_gracefully
from .subscription import check_sender, hide_tokens
from .threads import has_request_thread, has_waiting_caller

MESSAGE_MAX_BYTES: Final = 64 * 1024
ANSWER_MAX_BYTES: Final = 64 * 1024
# Far below Python's own limit: what could be read deep in the stack could not be written deeper in it.
LEVELS_MAX: Final = 100
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")  # 128 random bits as hex, as a UUID or in base64url
_RETRY_SOON: Final = {"Retry-After": "1"}

logger: logging.Logger = logging.getLogger("django_sse_live")


class MessageView(Protocol):
    """The part of an EventStreamView that is needed here. Its hooks are called for each message."""

    def _is_default(self, method: str) -> bool: ...

    async def identify(self, request: HttpRequest) -> tuple[Any, tuple[str, ...]]: ...

    def authorize(self, request: HttpRequest, channel: str) -> Any: ...

    def receive(self, request: HttpRequest, message: Message) -> Any: ...


def parse_message(raw: bytes) -> Mapping[str, Any]:
    """Parse the JSON of a message. Raises Refused."""
    if len(raw) > MESSAGE_MAX_BYTES:
        raise Refused(413, "too_large", f"A message has at most {MESSAGE_MAX_BYTES} bytes. Upload files to a view.")
    try:
        data = json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "malformed_json", "The message is no JSON in UTF-8.") from None
    if not isinstance(data, dict):
        raise Refused(400, "malformed_message", 'A message is an object: {"id": …, "type": …, "channel": …, "data": …}')
    if raw.count(b"[") + raw.count(b"{") > LEVELS_MAX and _has_more_levels(data):
        raise Refused(400, "malformed_message", f"A message has at most {LEVELS_MAX} levels of lists and objects.")
    return data


def _has_more_levels(data: Any) -> bool:
    level = [data]
    for _ in range(LEVELS_MAX):
        level = [
            part
            for each in level
            if isinstance(each, (list, dict))
            for part in (each.values() if isinstance(each, dict) else each)
        ]
    return any(isinstance(each, (list, dict)) for each in level)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON.")


@sensitive_variables()
async def answer_message(
    view: MessageView,
    request: HttpRequest,
    data: Mapping[str, Any],
    *,
    client_id: str | None = None,
    namespace: str | None = None,
) -> Answer:
    """Handle one message and return its answer. Raises only if it is cancelled; a handler that has begun then runs on.

    ``request``: of the POST, or made from the handshake for this message. ``data``: the parsed frame: ``id``, ``type``,
    ``channel``, ``data``, ``client_id``, ``as``; other members are ignored. ``client_id`` and ``namespace``: of the
    WebSocket, which sends its next message after this answer; None for POST.
    """
    count(_count_message)
    try:
        exchange = _Exchange(view, request, data, client_id)
        if namespace is None:
            namespace = await request_namespace(request)
        with use_namespace(namespace):
            return await exchange.run(namespace)
    except Refused as refused:
        return refusal(refused)
    except PermissionDenied as error:  # from get_user() or NAMESPACE
        return refusal(Refused(403, "forbidden", str(error) or "You may not send this."))
    except Http404 as error:  # from get_channels(), for a room that is not there: no failure, as for a GET
        return refusal(Refused(404, "not_found", str(error) or "What this is about is not there."))
    except Exception:
        hide_tokens(request)
        logger.exception("A message could not be handled.", extra={"status_code": 500, "request": request})
        return refusal(Refused(500, "server_error", "The server failed."))


def _count_message(counts: Any) -> None:
    counts.messages += 1


class _Exchange:
    """One message on its way. Raises Refused if it ends before its handler."""

    def __init__(self, view: MessageView, request: HttpRequest, data: Mapping[str, Any], client_id: str | None) -> None:
        self.view = view
        self.request = request
        self.is_on_socket = client_id is not None
        self.id: str = _id(data.get("id"))
        self.type: str = _name(data, "type")
        self.is_reserved: bool = self.type.startswith(RESERVED_PREFIX)  # this package's own type, not the project's
        self.channel: str | None = None if data.get("channel") is None else _name(data, "channel")
        self.data: Any = data.get("data")
        self.client_id = client_id if client_id is not None else str(data.get("client_id") or "")[:64] or None
        self.sent_as: Any = data.get("as")
        self.namespace = ""
        self.has_session = False  # the sender is nobody, with a session
        self.user: Any = None  # its sender, once checked; None for nobody

    async def run(self, namespace: str) -> Answer:
        self.namespace = namespace
        address = line_address(scope_of(self.request))
        if not isinstance(self.request, ASGIRequest):  # WSGI: the server bounds their number and their time
            return await self._handle(await self._check(address))
        hub = running_hub()
        stop_gracefully(hub)
        if hub.is_closing:
            raise Refused(503, "shutdown", "This worker is shutting down. Try again.", _RETRY_SOON)
        parts: Messages = hub.parts.setdefault(Messages, Messages())
        key: str | None = None
        needs_thread, in_request_thread = True, False
        checked_at, entry = 0.0, ""  # of a POST: before its check (loop time), and its key among the POSTs
        if self.is_on_socket:
            sender = address, f"client:{self.client_id}"
        else:
            handoff = handoff_of(self.request)
            checked_at = hub.loop.time() if handoff is None else handoff.began_at
            key = await self._check(address)
            sender = address, key
            entry, digest = self._entry(key)
            for sent in (entry, self._earlier):
                if sent in parts.posted:  # it must not wait in line behind itself
                    return self._known(Found(parts.posted[sent], is_running=True), digest)
            has_tenants = live_settings().namespace is not None  # the thread is kept: release_waiting_thread()
            if has_tenants or (handoff is not None and handoff.is_in_line and parts.line.is_free(*sender)):
                needs_thread, in_request_thread = False, True
            else:
                needs_thread, in_request_thread = has_request_thread(), has_waiting_caller()
                let_go_of_thread(self.request)
            parts.posted[entry] = digest

        async def work() -> Answer:
            async with lend(parts.threads) if needs_thread else nullcontext():
                if key is None:
                    return await self._handle(await self._check(address))
                self._check_again(hub, checked_at)
                return await self._handle(key)

        when_done = partial(parts.posted.pop, entry, None)
        return await in_turn(hub, parts, sender, work, when_done, in_request_thread=in_request_thread)

    def _entry(self, key: str) -> tuple[str, str]:
        """The message's key in the store of answers, and a digest of its content."""
        said = json.dumps([self.type, self.channel, self.data], sort_keys=True)
        entry = scope_name(self.namespace, f"{key}\n{self.id}")
        return sha256(entry.encode()).hexdigest(), sha256(said.encode()).hexdigest()

    @property
    def _earlier(self) -> str | None:
        """Its key if it was sent before the sender had a session: another page may have begun one since."""
        return self._entry("")[0] if self.has_session else None

    async def _check(self, address: str) -> str:
        """Check that the sender may send this. Returns the sender's key."""
        user, fixed = await self.view.identify(self.request)
        self.user, pk = user, None if user is None else user_pk(user)
        if self.sent_as is not None and self.sent_as != as_digest(pk, self.namespace):
            raise Refused(
                409, "other_user", "Another user wrote this message than is logged in now: it was not handled."
            )
        await check_sender(self.request, user, fixed, self.view.authorize, self.channel, namespace=self.namespace)
        if (self.view._is_default("receive") or self.is_reserved) and on_message.find(self.type, self.channel) is None:
            where = " without a channel" if self.channel is None else f" on {self.channel!r}"
            wanted = "a function with @on_message(…) does, in the module live.py of an app"
            raise Refused(404, "no_handler", f"Nothing answers messages of the type {self.type!r}{where}: {wanted}.")
        if pk is not None:
            key = f"user:{pk}"
        else:
            session = await _session_key(self.request)
            self.has_session = session is not None
            key = f"session:{session}" if session else ""
        key = scope_name(self.namespace, key) if key else ""
        process_part(MessageRate).take(key or f"address:{address}")
        return key

    def _check_again(self, hub: Hub, since: float) -> None:
        """It may have waited for minutes. Raises Refused if the sender's access may have been revoked meanwhile."""
        session = getattr(getattr(self.request, "session", None), "session_key", None)
        sender = ClientInfo(
            () if self.channel is None else (scope_name(self.namespace, self.channel),),
            namespace=self.namespace,
            user_pk=None if self.user is None else user_pk(self.user),
            auth="" if self.user is None else auth_marks(self.user),
            session=session_digest(session) if session else None,
        )
        if hub.was_ended(sender, since):
            raise Refused(503, "revoked", "Your access changed while the message waited. Try again.", _RETRY_SOON)

    async def _handle(self, key: str) -> Answer:
        """Run the handler, unless this message has run before."""
        store = _answers()
        entry, digest = self._entry(key)
        try:
            found = await _ask(store, store.begin, entry, digest, self._earlier)
        except Exception as error:
            logger.error("The store of answers does not say whether a message has run: %r", error)
            raise Refused(
                503, "answers_unavailable", "The message was not handled: try again later.", {"Retry-After": "5"}
            ) from None
        if found is not None:
            return self._known(found, digest)
        renewal = asyncio.get_running_loop().create_task(_renew(store, entry)) if not store.is_local else None
        try:
            status, text = await self._call_handler()
        except asyncio.CancelledError:
            if store.is_local:  # the loop ends, and the answer is lost
                await _ask(store, store.end, entry, digest, _said("outcome_unknown", OUTCOME_UNKNOWN, 409))
            raise
        finally:
            if renewal is not None:
                renewal.cancel()
        try:
            await _ask(store, store.end, entry, digest, (status, text))
        except Exception as error:
            logger.error("The answer to a message cannot be kept, and will be unknown if it is asked again: %r", error)
        return self._answer(status, text)

    def _known(self, found: Found, digest: str) -> Answer:
        if found.digest != digest:
            raise Refused(422, "other_body", "Another message was sent under this id. Each needs an id of its own.")
        if found.answer is not None:
            return self._answer(*found.answer)
        if found.is_running:
            raise Refused(409, "running", "This message is being handled. Ask again for its answer.", _RETRY_SOON)
        raise Refused(409, "outcome_unknown", OUTCOME_UNKNOWN)

    async def _call_handler(self) -> tuple[int, str]:
        request = self.request
        message = Message(
            id=self.id,
            type=self.type,
            channel=self.channel,
            data=self.data,
            user=getattr(request, "user", None),
            client_id=self.client_id,
            request=request,
        )
        began_at = time.monotonic()
        try:
            handler = on_message.find(self.type, self.channel) if self.is_reserved else None
            if handler is not None:
                answer = 200, _encode(await call_handler(handler, message))
            else:
                answer = 200, _encode(await call_handler(self.view.receive, request, message))
        except (Exception, SystemExit, asyncio.CancelledError) as error:  # sys.exit() would end the worker
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():  # the loop ends
                raise
            refused = told(error)
            if refused is None:
                hide_tokens(request)
                logger.exception(
                    "The handler of a message %r failed.", self.type, extra={"status_code": 500, "request": request}
                )
            answer = refused or _said("server_error", "The server failed.", 500)
        seconds = time.monotonic() - began_at

        def add(counts: Any) -> None:
            counts.answers[str(answer[0])] += 1
            counts.message_seconds.observe(seconds)

        count(add)
        return answer

    def _answer(self, status: int, text: str) -> Answer:
        said = json.loads(text)
        return Answer(status, {"id": self.id, "data": said} if status == 200 else said)


def _encode(result: Any) -> str:
    try:
        text = encode_json(result, live_settings().json_encoder)
    except ValueError as error:  # which would look like an error of the handler
        raise TypeError(f"The answer is no JSON: {error}") from error
    if len(text.encode()) > ANSWER_MAX_BYTES:
        raise TypeError(f"The answer has more than {ANSWER_MAX_BYTES} bytes as JSON.")
    return text


OUTCOME_UNKNOWN: Final = "The handler was started, and its outcome is not known. The message is not handled again."


def _said(error: str, detail: str, status: int) -> tuple[int, str]:
    return status, json.dumps({"error": error, "detail": detail[:2000]})


def told(error: BaseException) -> tuple[int, str] | None:
    """The answer to what a handler raises on purpose. None for a failure, or if its text cannot be had."""
    try:
        if isinstance(error, Refused):
            return _said(error.error, error.detail, error.status)
        if isinstance(error, PermissionDenied):
            return _said("forbidden", str(error) or "You may not send this.", 403)
        if isinstance(error, Http404):
            return _said("not_found", str(error) or "What this is about is not there.", 404)
        if isinstance(error, ValidationError):
            return _said("invalid", " ".join(error.messages), 400)
        if isinstance(error, ValueError):
            return _said("invalid", str(error), 400)
    except Exception as of_text:  # such as of a ValidationError whose params lack a name
        logger.debug("The text of %s cannot be had: %r", type(error).__name__, of_text)
    return None


def _id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise Refused(400, "malformed_id", "The id of a message is 128 random bits: 32 hexadecimal digits, or a UUID.")
    return value


def _name(data: Mapping[str, Any], name: str) -> str:
    try:
        return validate_name("channel" if name == "channel" else "event type", data.get(name))
    except (TypeError, ValueError) as error:
        raise Refused(400, f"malformed_{name}", str(error)) from None


async def _session_key(request: HttpRequest) -> str | None:
    """A digest of the key of an existing session, not of any cookie value that was sent."""
    session = getattr(request, "session", None)
    if session is None or not session.session_key or not await session.akeys():
        return None
    return session_digest(session.session_key) if session.session_key else None


def _answers() -> Answers:
    alias = live_settings().messages_cache
    return process_part(TableAnswers) if alias is None else CacheAnswers(alias)


async def _ask(store: Answers, method: Callable[..., Any], *args: Any) -> Any:
    return method(*args) if store.is_local else await sync_to_async(method)(*args)


async def _renew(store: Answers, entry: str) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await in_thread(store.renew, entry)  # the handler may still use the request's thread
        except Exception as error:
            logger.warning("The lease of a running message was not renewed; it is tried again: %r", error)
