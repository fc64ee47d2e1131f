"""Django below a path of another ASGI application, as Starlette's Mount has it, and live_application around both."""

import os
from typing import Any

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.project.settings")

django_application = get_asgi_application()

from django_sse_live.asgi import live_application  # noqa: E402

site = live_application(django_application)


async def router(scope: Any, receive: Any, send: Any) -> None:
    async def passed_on(message: Any) -> None:  # Starlette's middleware for exceptions wraps send() too
        await send(message)

    if scope["path"].startswith("/site/"):
        scope = {**scope, "root_path": "/site"}
    await site(scope, receive, passed_on)


application = live_application(router)
