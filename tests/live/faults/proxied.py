"""nginx in between: it is reloaded, and it loses patience."""

from __future__ import annotations

import asyncio

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Browser, Nginx, Server, until


async def nginx_reload(name: str, *, clients: int = 100, rate: int = 50, reloads: int = 10, pause: float = 3) -> Row:
    """Each reload cuts off the streams of the workers that it replaces."""
    row = Row("nginx reload", name, f"{clients} pages, {rate} events/s, {reloads} reloads")
    async with Server(name) as server, Nginx(server, worker_shutdown_timeout="1s") as nginx:

        async def break_it() -> None:
            for _ in range(reloads):
                await nginx.reload()
                await asyncio.sleep(pause)

        await with_pages(row, server, nginx, clients, rate, break_it())
    return row


async def nginx_timeout(name: str, *, clients: int = 100, timeout: int = 2, seconds: float = 30) -> Row:
    """Its timeout is shorter than the heartbeat, so a quiet stream is cut off again and again."""
    row = Row(
        "nginx with a short timeout",
        name,
        f"{clients} pages, proxy_read_timeout {timeout} s, a heartbeat every 30 s, an event every {timeout * 2} s",
    )
    async with Server(name) as server, Nginx(server, proxy_read_timeout=f"{timeout}s") as nginx:
        await with_pages(row, server, nginx, clients, 1 / (2 * timeout), asyncio.sleep(seconds))
    return row


async def with_pages(row, server: Server, nginx: Nginx, clients: int, rate: float, break_it) -> None:
    browsers = [Browser(nginx.port) for _ in range(clients)]
    try:
        for browser in browsers:
            browser.start()
        await until(lambda: all(browser.connects for browser in browsers), 60)
        await server.get(f"/publish/steadily/?rate={rate}")
        await break_it
        published = (await server.get_json("/publish/stop/"))["published"]
        await until(
            lambda: all(browser.numbers[-1:] == [published] for browser in browsers),
            60,
            say=lambda: f"{published} were published, heard were {[browser.numbers[-1:] for browser in browsers]}",
        )
        lost = sum(browser.numbers != [*range(1, published + 1)] for browser in browsers)
        resets = sum(browser.resets for browser in browsers)
        breaks = sum(browser.connects - 1 for browser in browsers)
        noise = server.noise()
        row.figures = {
            "events": published,
            "breaks": breaks,
            "pages that lost or doubled an event": lost,
            "resets": resets,
            "lines above INFO": len(noise),
        }
        row.require(breaks > 0, "nothing broke")
        row.require(not lost and not resets, "events were lost")
        row.require(not noise, first_lines(noise))
    finally:
        await asyncio.gather(*(browser.stop() for browser in browsers))
