"""What the live tests ask of a site: to publish, to say how it is, and to do what any other site does."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from django_sse_live import broadcast, on_message
from django_sse_live.http.views import EventStreamView
from django_sse_live.hub.registry import open_hubs, process_counts


class Publisher(threading.Thread):
    """Broadcasts numbered events in a thread, as a site's sync views do."""

    def __init__(self, channel: str, rate: float, size: int) -> None:
        super().__init__(daemon=True)
        self.channel = channel
        self.rate = rate  # events per second; 0 is without any pause
        self.padding = "x" * size
        self.published = 0
        self.must_stop = threading.Event()

    def run(self) -> None:
        began = time.monotonic()
        while not self.must_stop.is_set():
            if self.rate:
                pause = began + self.published / self.rate - time.monotonic()
                if pause > 0 and self.must_stop.wait(pause):
                    break
            self.published += 1
            publish_one(self.channel, self.published, self.padding)


def publish_one(channel: str, number: int, padding: str = "") -> None:
    """``n`` counts, ``t`` is the system's monotonic clock at the broadcast: every process of the machine reads it."""
    broadcast(channel, "tick", {"n": number, "t": round(time.monotonic(), 6), "x": padding})


_publishers: dict[str, Publisher] = {}


def publish(request: HttpRequest) -> HttpResponse:
    """?channel=&from=&count=&size=: that many events, numbered, at once."""
    query = request.GET
    first = int(query.get("from", 1))
    for number in range(first, first + int(query.get("count", 1))):
        publish_one(query.get("channel", "ticks"), number, "x" * int(query.get("size", 0)))
    return JsonResponse({"pid": os.getpid()})


def publish_steadily(request: HttpRequest) -> HttpResponse:
    """?channel=&rate=&size=: begin; one publisher for each channel."""
    query = request.GET
    channel = query.get("channel", "ticks")
    _publishers[channel] = publisher = Publisher(channel, float(query.get("rate", 0)), int(query.get("size", 0)))
    publisher.start()
    return JsonResponse({"pid": os.getpid()})


def publish_stop(request: HttpRequest) -> HttpResponse:
    """?channel=: end, and say how many there were."""
    publisher = _publishers.pop(request.GET.get("channel", "ticks"))
    publisher.must_stop.set()
    publisher.join()
    return JsonResponse({"published": publisher.published})


def _process_status() -> dict[str, str]:
    return dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())


async def forget_cancelled_timers() -> None:
    """asyncio keeps cancelled timers, and what they hold, until they are most of its heap: make them most of it."""
    loop = asyncio.get_running_loop()
    for _ in range(1000):
        loop.call_later(3600, int).cancel()
    await asyncio.sleep(0)


async def state(request: HttpRequest) -> HttpResponse:
    """What this worker holds now. ``?collect=1``: after a collection of garbage."""
    if request.GET.get("collect"):
        await forget_cancelled_timers()
        gc.collect()
    status = _process_status()
    descriptors = os.listdir("/proc/self/fd")
    sockets = 0
    for name in descriptors:
        try:
            sockets += os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
        except OSError:
            pass
    return JsonResponse(
        {
            "pid": os.getpid(),
            "hubs": len(open_hubs()),
            "clients": sum(len(hub.clients) for hub in open_hubs()),
            "writers": sum(
                client.writer is not None and client.writer.has_room() for hub in open_hubs() for client in hub.clients
            ),
            "tasks": len(asyncio.all_tasks()),
            "threads": threading.active_count(),
            "os_threads": int(status["Threads"]),
            "descriptors": len(descriptors),
            "sockets": sockets,
            "blocks": sys.getallocatedblocks(),
            "rss_kib": int(status["VmRSS"].split()[0]),
            "log_events": sum(len(hub.log) for hub in open_hubs()),
            "other_streams": _other_streams,
            "tickets": process_counts().tickets,
            "tickets_refused": process_counts().tickets_refused,
        }
    )


async def authorize(request: HttpRequest, channel: str) -> bool:
    """Slow, for channels that are called so."""
    await asyncio.sleep(float(request.GET.get("wait", 0)))
    return True


class Snapshot(EventStreamView):
    """Sync methods, which take a thread: ?wait= seconds in each."""

    def get_channels(self, request: HttpRequest) -> Iterable[str]:
        time.sleep(float(request.GET.get("wait", 0)))
        return ["ticks"]

    def get_initial_events(self, request: HttpRequest, channels: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
        time.sleep(float(request.GET.get("wait", 0)))
        return [("snapshot", {"language": getattr(request, "LANGUAGE_CODE", None)})]


def plain_sync(request: HttpRequest) -> HttpResponse:
    return HttpResponse("sync")


async def plain_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("async")


async def plain_slow(request: HttpRequest) -> HttpResponse:
    """?seconds= it takes."""
    await asyncio.sleep(float(request.GET.get("seconds", 1)))
    return HttpResponse("slow")


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    """The length and the digest of the body."""
    body = request.read()
    return JsonResponse({"length": len(body), "sha256": hashlib.sha256(body).hexdigest()})


_other_streams = 0


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    """A streaming view that is none of ours. Its number in state() goes down when it learns that its client left."""

    async def content() -> AsyncIterator[bytes]:
        global _other_streams
        _other_streams += 1
        try:
            for number in range(int(request.GET.get("count", 1_000_000))):
                yield b"part %d\n" % number
                await asyncio.sleep(0.01)
        finally:
            _other_streams -= 1

    return StreamingHttpResponse(content(), content_type=request.GET.get("type", "text/plain"))


@on_message("echo")
async def echo(message: Any) -> Any:
    return message.data


@on_message("say")
def say(message: Any) -> None:
    """To who hears its channel, and its sender with them."""
    broadcast(message.channel, "tick", {"n": message.data})


@on_message("sleep")
async def sleep(message: Any) -> None:
    """Its data: seconds, or a list that begins with them."""
    await asyncio.sleep(message.data[0] if isinstance(message.data, list) else message.data)


@on_message("block")
def block(message: Any) -> None:
    """The same, in a thread."""
    time.sleep(message.data)
