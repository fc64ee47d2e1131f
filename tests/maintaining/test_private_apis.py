"""One test for each row of docs/maintaining/private-apis.md: it fails, with a sentence, when an upgrade changes one."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from django.db import connection, transaction
from django.test import TestCase


def test_asgiref_keeps_the_thread_of_a_context() -> None:
    import threading

    from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async

    from django_sse_live.http import threads

    async def look() -> tuple[bool, bool, bool]:
        async with ThreadSensitiveContext() as context:
            before = await sync_to_async(threading.current_thread)()
            is_known = (
                SyncToAsync.thread_sensitive_context.get() is context
                and context in SyncToAsync.context_to_thread_executor
            )
            threads.release_request_thread()
            after = await sync_to_async(threading.current_thread)()
        lender = threads.OpeningThreads()
        async with lender.lend():
            lent = await sync_to_async(threading.current_thread)()
        async with lender.lend():
            is_lent_again = await sync_to_async(threading.current_thread)() is lent
        return is_known, before is not after, is_lent_again

    assert asyncio.run(look()) == (True, True, True), (
        "SyncToAsync.context_to_thread_executor no longer has the thread of a ThreadSensitiveContext: "
        "http/threads.py cannot end it, and each stream without live_application holds a thread."
    )
    if "executor" in inspect.signature(ThreadSensitiveContext).parameters:  # asgiref 3.13 and later
        from concurrent.futures import ThreadPoolExecutor

        given: Any = ThreadSensitiveContext
        assert hasattr(given(executor=ThreadPoolExecutor(1)), "_executor"), (
            "ThreadSensitiveContext no longer has _executor, by which http/threads.py knows what is somebody else's."
        )


def test_asgiref_keeps_the_thread_of_a_caller() -> None:
    import threading

    from asgiref.sync import AsyncToSync, ThreadSensitiveContext, async_to_sync, sync_to_async

    async def look() -> tuple[int, int]:
        before = await sync_to_async(threading.get_ident)()
        AsyncToSync.executors.current = None
        async with ThreadSensitiveContext():
            return before, await sync_to_async(threading.get_ident)()

    before, after = async_to_sync(look)()
    assert before == threading.get_ident() != after, (
        "AsyncToSync.executors no longer has the thread of a caller: hub/outgoing.py cannot leave it, and signals are "
        "lost whose event was broadcast by async_to_sync(abroadcast)()."
    )


async def test_django_send_in_send_response() -> None:
    from django.core.handlers.asgi import ASGIHandler
    from django.http import StreamingHttpResponse

    from django_sse_live.http.responses import find_send

    found: list[Any] = []

    class Stream:
        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> bytes:
            found.append(find_send())
            raise StopAsyncIteration

    async def send(message: Any) -> None:
        pass

    await ASGIHandler().send_response(StreamingHttpResponse(Stream()), send)
    assert found == [send], (
        "ASGIHandler.send_response() no longer has the server's send() in its local variable: http/responses.py does "
        "not find it, and without live_application Daphne's memory is not bounded."
    )


def source_of(server: str, module: str, name: str) -> str:
    import importlib
    import inspect

    pytest.importorskip(server)
    return inspect.getsource(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    ("server", "module", "name", "words"),
    [
        (
            "uvicorn",
            "uvicorn.protocols.http.h11_impl",
            "RequestResponseCycle",
            ["self.keep_alive", "self.disconnected", "self.transport", "async def send("],
        ),
        (
            "uvicorn",
            "uvicorn.protocols.http.httptools_impl",
            "RequestResponseCycle",
            ["self.chunked_encoding", "self.response_complete", "self.flow", 'b"%x\\r\\n" % len(body), body,'],
        ),
        (
            "uvicorn",
            "uvicorn.protocols.http.httptools_impl",
            "HttpToolsProtocol",
            ["self.cycle = RequestResponseCycle("],
        ),
        ("uvicorn", "uvicorn.protocols.http.flow_control", "FlowControl", ["self.write_paused"]),
        (
            "uvicorn",
            "uvicorn.server",
            "Server",
            ["self.should_exit", "self.servers", "signal.signal(sig, self.handle_exit)"],
        ),
        (
            "daphne",
            "twisted.web.http",
            "Request",
            [
                "self.sentLength = self.sentLength + len(data)",
                "if self.chunked:",
                "self.channel.writeSequence(toChunk(",
            ],
        ),
        ("daphne", "twisted.internet.tcp", "Connection", ["def writeSomeData("]),
        ("daphne", "twisted.internet.abstract", "FileDescriptor", ["self._tempDataBuffer", "self.dataBuffer"]),
        ("daphne", "daphne.server", "Server", ["partial(self.handle_reply, protocol)"]),
        (
            "hypercorn",
            "hypercorn.protocol.http_stream",
            "HTTPStream",
            ["self.context", "self.send", "async def app_send("],
        ),
        ("hypercorn", "hypercorn.asyncio.worker_context", "WorkerContext", ["self.terminated"]),
        ("h2", "hypercorn.protocol.h2", "H2Protocol", ["self.stream_buffers", "self.connection", "self.send"]),
        ("hypercorn", "hypercorn.asyncio.tcp_server", "TCPServer", ["self.writer"]),
    ],
)
def test_what_servers_are_asked(server: str, module: str, name: str, words: list[str]) -> None:
    missing = [word for word in words if word not in source_of(server, module, name)]
    assert not missing, (
        f"{module}.{name} no longer has {missing}: http/servers/ does not find what is behind its send(), and streams "
        "are no longer paced, dropped or ended there."
    )


class TestDjango(TestCase):
    def test_the_mark_of_a_testcase_on_its_atomic_blocks(self) -> None:
        with transaction.atomic():
            marks = [getattr(block, "_from_testcase", None) for block in connection.atomic_blocks]
        assert set(marks[:-1]) == {True} and marks[-1] is False, (
            f"TestCase no longer marks its own atomic block by _from_testcase ({marks}): capture_broadcasts() and "
            "savepoints.py cannot tell a test's transaction from one of the code under test."
        )


def test_the_model_of_a_database_cache() -> None:
    from django.core.cache.backends.db import DatabaseCache

    assert hasattr(DatabaseCache("t", {}), "cache_model_class"), (
        "The database cache has no cache_model_class: jobs/store.py cannot tell which connection it writes to."
    )


def test_django_the_mark_of_non_atomic_requests() -> None:
    marked: Any = transaction.non_atomic_requests(using="other")(lambda: None)
    assert "other" in getattr(marked, "_non_atomic_requests", ()), (
        "transaction.non_atomic_requests no longer marks a function by _non_atomic_requests: messages.py begins a "
        "transaction for handlers that want none."
    )


@pytest.mark.django_db(transaction=True)
def test_django_run_on_commit() -> None:
    def end(fails: bool) -> tuple[object, int]:
        try:
            with transaction.atomic():
                transaction.on_commit(lambda: None)
                callbacks = connection.run_on_commit
                if fails:
                    raise LookupError
        except LookupError:
            pass
        return callbacks, len(callbacks)

    for fails in (False, True):
        callbacks, count = end(fails)
        assert isinstance(callbacks, list) and count == 1 - (not fails), (
            "connection.run_on_commit is no longer the list of what waits for the commit: savepoints.py and rows.py."
        )
        assert connection.run_on_commit is not callbacks, (
            "connection.run_on_commit is the same list after a transaction: rows.py takes it for the same transaction."
        )


def test_django_the_engine_s_template_behind_get_template() -> None:
    from django.template import Context, Engine
    from django.template.loader import get_template

    template: Any = get_template("testapp/identified.html").template
    assert "x" in template.render(Context({"name": "x"})), "rendering.py cannot render with a context of its own."
    assert isinstance(template.engine, Engine) and template.engine.autoescape is True
    assert "django.contrib.auth.context_processors.auth" in template.engine.context_processors, (
        "An engine no longer names its context processors: rendering.py cannot tell what they make of a request."
    )


def test_django_get_accessor_name() -> None:
    from tests.testapp.models import Article

    names = [relation.get_accessor_name() for relation in Article._meta.related_objects]
    assert "keyed_set" in names, "live_model_checks.py no longer knows the other ends of relations by their names."


def test_django_url_patterns() -> None:
    from django.urls import get_resolver

    from django_sse_live.http.resolve import _is_steady

    assert _is_steady(get_resolver("tests.urls")), (
        "http/resolve.py no longer sees what a urlconf is made of, and so resolves the same url again and again."
    )


def test_session_cache_of_a_session() -> None:
    from django.contrib.sessions.backends.cache import SessionStore

    session = SessionStore()
    assert "_session_cache" not in session.__dict__, "A session is loaded when it is made: http/tickets.py asks it."
    session["a"] = 1
    assert session.__dict__["_session_cache"] == {"a": 1}, "A session keeps what it has loaded somewhere else."


def test_a_database_wrapper_made_by_hand() -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper
    from django.db.backends.sqlite3.base import DatabaseWrapper

    names = ("make_cursor", "create_cursor", "wrap_database_errors", "inc_thread_sharing", "ensure_connection")
    missing = [name for name in names if not hasattr(BaseDatabaseWrapper, name)]
    assert not missing, f"Django's database wrapper has no {missing}: database/session.py opens its connection by it."
    assert hasattr(DatabaseWrapper, "is_in_memory_db"), (
        "SQLite's wrapper does not say is_in_memory_db(): database/backend.py cannot tell whether others can hear it."
    )


async def test_django_lazy_user() -> None:
    from django.contrib.auth.middleware import AuthenticationMiddleware
    from django.contrib.auth.models import AnonymousUser
    from django.contrib.sessions.backends.cache import SessionStore
    from django.test import AsyncRequestFactory

    from django_sse_live.http.users import is_lookup_of_django

    request: Any = AsyncRequestFactory().get("/")
    request.session = SessionStore()
    AuthenticationMiddleware(lambda request: None).process_request(request)
    assert is_lookup_of_django(request.user), (
        "The user of AuthenticationMiddleware is another lazy object: http/users.py asks each user in a thread."
    )
    assert await request.auser() == AnonymousUser() and "_acached_user" in vars(request), (
        "auser() keeps its user somewhere else: http/socket_messages.py carries it on to the messages of a WebSocket."
    )


def test_django_headers_of_a_response() -> None:
    from django.http import HttpResponse

    response: Any = HttpResponse(headers={"X-Name": "value"})
    assert response.headers._store == {
        "content-type": ("Content-Type", "text/html; charset=utf-8"),
        "x-name": ("X-Name", "value"),
    }, "The headers of a response are kept in another way: http/responses.py gives all streams one table."
    assert "_has_been_logged" in inspect.getsource(__import__("django.utils.log", fromlist=["log"])), (
        "log_response() no longer asks _has_been_logged: refusals are logged as faults."
    )


def test_django_live_server() -> None:
    from django.test import LiveServerTestCase
    from django.test.testcases import LiveServerThread

    names = ("server_thread_class", "_start_server_thread", "_terminate_thread")
    missing = [name for name in names if not hasattr(LiveServerTestCase, name)]
    assert not missing, f"LiveServerTestCase has no {missing}: testing/servers.py starts its ASGI server by it."
    thread: Any = LiveServerThread("localhost", None, {"default": None})
    assert {"is_ready", "error", "connections_override"} <= vars(thread).keys(), "LiveServerThread is another one."


def test_django_base_scope() -> None:
    from django.test import AsyncRequestFactory

    factory: Any = AsyncRequestFactory()
    assert {"method", "path", "headers", "type"} <= factory._base_scope(path="/").keys(), (
        "AsyncRequestFactory._base_scope() gives no ASGI scope: testing/clients.py opens streams with it."
    )


def test_a_cursor_of_the_drivers_in_a_transaction_of_djangos() -> None:
    from django.db.backends.base.base import BaseDatabaseWrapper

    names = ("queries_logged", "validate_thread_sharing", "validate_no_broken_transaction", "wrap_database_errors")
    own = ("allow_thread_sharing", "_cursor", "create_cursor", "make_cursor")
    missing = [name for name in (*names, *own) if not hasattr(BaseDatabaseWrapper, name)]
    assert not missing and isinstance(connection.execute_wrappers, list), (
        f"Django's database wrapper has no {missing or 'list of execute_wrappers'}: database/dialects/postgresql.py "
        "inserts an event past it."
    )
    source = inspect.getsource(BaseDatabaseWrapper.cursor) + inspect.getsource(BaseDatabaseWrapper._cursor)
    assert "self._cursor()" in source and "self.create_cursor(name)" in source, (
        "A cursor is no longer made by _cursor() and create_cursor() alone: database/dialects/postgresql.py does not "
        "see any more who has a say in it."
    )


@pytest.mark.parametrize(
    "row",
    [
        "HttpToolsProtocol.cycle",
        "channel.write()",
        "_from_testcase",
        "cache_model_class",
        "_non_atomic_requests",
        "make_cursor()",
        "create_cursor()",
        "context_to_thread_executor",
        "AsyncToSync.executors",
        "run_on_commit",
        "get_template()",
        "get_accessor_name()",
        "URLResolver.url_patterns",
        "_setupfunc",
        "_store",
        "_start_server_thread()",
        "_base_scope()",
    ],
)
def test_the_list_names_it(row: str) -> None:
    from tests.docs.blocks import DOCS

    assert row in (DOCS / "maintaining" / "private-apis.md").read_text()


def test_uvicorn_websocket_protocols() -> None:
    import inspect

    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

    sansio, wsproto = inspect.getsource(WebSocketsSansIOProtocol), inspect.getsource(WSProtocol)
    assert "self.response = self.conn.accept(event)" in sansio and "self.conn.send_response(self.response)" in sansio, (
        "websockets-sansio no longer keeps its answer in .response: without_compression() takes an extension out of it."
    )
    assert "if self.config.ws_per_message_deflate:" in inspect.getsource(WSProtocol.send), (
        "wsproto's protocol no longer asks .config at the accept: without_compression() gives it one of its own."
    )
    assert "self.transport" in sansio and "self.transport" in wsproto


@pytest.mark.filterwarnings("ignore:websockets.legacy:DeprecationWarning", "ignore:The `websockets`")
def test_where_websockets_messages_are_bounded() -> None:
    from hypercorn.protocol.ws_stream import WebsocketBuffer, WSStream
    from uvicorn.protocols.websockets.websockets_impl import WebSocketProtocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from uvicorn.protocols.websockets.wsproto_impl import WebsocketBuffer as UvicornBuffer
    from uvicorn.protocols.websockets.wsproto_impl import WSProtocol
    from websockets.legacy.protocol import WebSocketCommonProtocol
    from websockets.protocol import Protocol

    told = "bound_messages() sets this attribute, and is of no use any more."
    assert issubclass(WebSocketProtocol, WebSocketCommonProtocol), told
    assert "max_size = self.max_size" in inspect.getsource(WebSocketCommonProtocol.read_message), told
    assert "self.conn = ServerProtocol(" in inspect.getsource(WebSocketsSansIOProtocol.__init__), told
    assert "max_size = self.max_message_size" in inspect.getsource(Protocol.parse), told
    for protocol, buffer in ((WSProtocol, UvicornBuffer), (WSStream, WebsocketBuffer)):
        assert "self.buffer = WebsocketBuffer(" in inspect.getsource(protocol.__init__), told
        assert "self.length > self.max_length" in inspect.getsource(buffer.extend), told


def test_hypercorn_websocket_handshake() -> None:
    from hypercorn.protocol.ws_stream import Handshake

    handshake = Handshake([(b"sec-websocket-extensions", b"permessage-deflate"), (b"sec-websocket-key", b"x")], "1.1")
    assert handshake.extensions, "Handshake.extensions is not what the client offers: without_compression() clears it."
    handshake.extensions = None
    _, headers, _ = handshake.accept(None, [])
    assert b"sec-websocket-extensions" not in dict(headers)


def test_daphne_websocket_protocol() -> None:
    from functools import partial

    from daphne.ws_protocol import WebSocketProtocol

    from django_sse_live.http.servers import daphne

    protocol = WebSocketProtocol()
    protocol.transport = object()
    assert daphne.socket_of(partial(print, protocol)) is protocol, (
        "Daphne's WebSocketProtocol has no sendMessage or no transport any more: its WebSockets have no pace."
    )
