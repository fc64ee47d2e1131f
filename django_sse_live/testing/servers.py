"""A real ASGI server in a thread of the test process, for tests with browsers and sockets. It is Uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.apps import apps
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import LiveServerTestCase as DjangoLiveServerTestCase
from django.test import modify_settings
from django.test.testcases import LiveServerThread
from django.utils.module_loading import import_string

from ..http.types import Receive, Scope, Send
from ..hub.registry import find_hub
from .isolation import own_bus

STOP_SECONDS = 2


class ASGIServerThread(LiveServerThread):
    """What Django's LiveServerTestCase starts, with the project's ASGI application in it."""

    _end_serving: Callable[[], object] | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self.error = error  # type: ignore[assignment]
        finally:
            self.is_ready.set()

    async def _serve(self) -> None:
        try:
            import uvicorn
        except ImportError as error:
            raise ImproperlyConfigured("The live server of tests is Uvicorn: pip install uvicorn.") from error
        config = uvicorn.Config(
            sharing_connections(project_application(), self.connections_override),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        server = uvicorn.Server(config)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            hub = find_hub(loop)
            if hub is not None:
                hub.shut_down()  # else Uvicorn would wait for streams that never end
            server.should_exit = True

        with socket.create_server((self.host, self.port)) as listening:
            self.port: int = listening.getsockname()[1]
            serving = asyncio.ensure_future(server.serve(sockets=[listening]))
            while not server.started and not serving.done():  # Uvicorn has nothing that could be waited for
                await asyncio.sleep(0.005)
            self._end_serving = partial(loop.call_soon_threadsafe, stop)
            self.is_ready.set()
            await serving

    def terminate(self) -> None:
        self.is_ready.wait()
        if self._end_serving is not None and self.is_alive():
            self._end_serving()
        self.join()


class LiveServerTestCase(DjangoLiveServerTestCase):
    """Django's LiveServerTestCase, on an ASGI server: ``live_server_url`` serves streams too, and static files."""

    server_thread_class = ASGIServerThread

    @classmethod
    def setUpClass(cls) -> None:
        bus = ExitStack()
        bus.enter_context(own_bus())
        cls.addClassCleanup(bus.close)
        super().setUpClass()


@contextmanager
def live_server(host: str = "localhost") -> Iterator[str]:
    """The url of a server that runs for the length of the block. The test's database must be one that commits."""
    case = type("Case", (LiveServerTestCase,), {"host": host})
    with own_bus(), modify_settings(ALLOWED_HOSTS={"append": host}):
        case._start_server_thread()  # type: ignore[attr-defined]
        try:
            yield case.live_server_url  # type: ignore[attr-defined]
        finally:
            case._terminate_thread()  # type: ignore[attr-defined]


def project_application() -> Any:
    path = getattr(settings, "ASGI_APPLICATION", None)
    application = import_string(path) if path else get_asgi_application()
    return ASGIStaticFilesHandler(application) if apps.is_installed("django.contrib.staticfiles") else application


def sharing_connections(application: Any, shared: Mapping[str, Any] | None) -> Any:
    """Each request's thread works on the test's own connection, where a second one would see another database: SQLite's
    in memory."""
    if not shared:
        return application

    def use() -> None:
        for alias, connection in shared.items():
            connections[alias] = connection

    async def share(scope: Scope, receive: Receive, send: Send) -> None:
        async with ThreadSensitiveContext():
            await sync_to_async(use)()
            await application(scope, receive, send)

    return share
