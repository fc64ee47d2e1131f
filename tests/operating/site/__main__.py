"""Three workers, Redis between them, and a crowd of users: what the admin's page is tried and pictured with.

python -m tests.operating.site [--streams 50] [--seconds 60] [--pictures DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

from tests.backends.redis_process import RedisProcess
from tests.conftest import CHROMIUM_FLAGS, find_program
from tests.live.harness import Crowd, Server, until
from tests.live.harness.servers import ROOT

SCREENS = {"desktop": (1280, 800), "phone": (390, 844)}
NAMES = ["ada", "berta", "carl", "dora", "emil", "frida"]
AGENTS = ["Mozilla/5.0 Firefox/140.0", "Mozilla/5.0 Chrome/156.0", "curl/8.5.0"]
MAKE_PEOPLE = """
import json, sys, django
django.setup()
from django.contrib.auth import SESSION_KEY, BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.core.management import call_command
call_command("migrate", verbosity=0)
cookies = {}
for name in ["admin", *json.loads(sys.argv[1])]:
    user = get_user_model().objects.create_user(name, is_staff=name == "admin", is_superuser=name == "admin")
    session = SessionStore()
    session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session.save()
    cookies[name] = session.session_key
print(json.dumps(cookies))
"""


class Site:
    def __init__(self, servers: list[Server], cookies: dict[str, str]) -> None:
        self.servers = servers
        self.cookies = cookies  # user → session key

    def headers(self, name: str) -> dict[str, str]:
        return {"Cookie": f"sessionid={self.cookies[name]}"} if name else {}

    async def open(self, count: int) -> list[Crowd]:
        """That many streams, spread over workers, users and channels."""
        crowds = []
        for number in range(count):
            name = [*NAMES, ""][number % 7]
            channels = [["comments"], ["room.7", "comments"], ["prices"]][number % 3]
            path = "/events/?" + "&".join(f"channel={channel}" for channel in channels)
            headers = {**self.headers(name), "User-Agent": AGENTS[number % 3]}
            crowds.append(await Crowd.open(self.servers[number % len(self.servers)], 1, path, headers=headers))
        return crowds


@asynccontextmanager
async def site(
    workers: int = 3, bus: str = "redis_streams.RedisStreamsBackend", **sse_live: object
) -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisProcess())
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="sse-site-"))
        environment = {
            "DJANGO_SETTINGS_MODULE": "tests.operating.site.settings",
            "LIVE_DATABASE": str(Path(directory, "db.sqlite3")),
            "LIVE_REDIS": redis.url,
        }
        made = subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", MAKE_PEOPLE, json.dumps(NAMES)],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        servers = [
            Server(
                app="tests.operating.site.asgi:application",
                environment=environment,
                BACKEND=f"django_sse_live.backends.{bus}",
                OPTIONS={"URL": redis.url} if "redis" in bus else {},
                **sse_live,
            )
            for _ in range(workers)
        ]
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        for server in servers:
            await server.get("/events/health/")  # a worker has no hub before somebody wants something of it
        yield Site(servers, json.loads(made.stdout.splitlines()[-1]))


async def _pictures(streams: int, directory: Path, seconds: int) -> None:
    from playwright.async_api import Page, async_playwright

    async with site() as here, async_playwright() as playwright:
        crowds = await here.open(streams)
        for number, (channel, rate) in enumerate({"comments": 4, "room.7": 9}.items()):
            await here.servers[number].get(f"/publish/steadily/?channel={channel}&rate={rate}&size=40")
        browser = await playwright.chromium.launch(executable_path=find_program("chromium"), args=CHROMIUM_FLAGS)
        pages: dict[str, Page] = {}
        for scheme, device in product(("light", "dark"), SCREENS):
            width, height = SCREENS[device]
            viewport = {"width": width, "height": height}
            context = await browser.new_context(viewport=viewport, color_scheme=scheme)
            cookie = {"name": "sessionid", "value": here.cookies["admin"], "url": here.servers[0].url}
            await context.add_cookies([cookie])
            page = pages[f"{scheme}-{device}"] = await context.new_page()
            page.on("pageerror", lambda error: print("error", error))
            await page.goto(f"{here.servers[0].url}/admin/django_sse_live/liveconnection/")
        # Somewhat more or less each second, so that there is a line to see.
        for step in range(seconds):
            await here.servers[step % 3].get(f"/publish/?channel=prices&count={20 + (step * 7) % 23}")
            if step % 9 == 5:
                crowds += await here.open(3)
            await asyncio.sleep(1)
        for name, page in pages.items():

            async def is_drawn(page: Page = page) -> bool:
                return await page.locator("#sse-clients tbody tr").count() >= streams

            await until(is_drawn)
            await page.screenshot(path=directory / f"{name}.png")
        await browser.close()
        for crowd in crowds:
            crowd.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=60, help="how long the lines are to be")
    parser.add_argument("--pictures", type=Path, default=Path("build/pictures"))
    options = parser.parse_args()
    options.pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(_pictures(options.streams, options.pictures, options.seconds))
