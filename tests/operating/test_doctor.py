"""What the doctor finds at real servers, alone and behind an nginx with each of the usual mistakes."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.test import override_settings

from django_sse_live.doctor import findings
from django_sse_live.doctor.findings import examine
from django_sse_live.doctor.site import Finding, Site
from tests.backends.redis_process import RedisProcess
from tests.docs.blocks import ROOT
from tests.live.harness import Nginx, Server, free_port

STATIC = f"""
        location /static/ {{
            alias {ROOT}/django_sse_live/static/;
        }}
        location / {{"""
REDIS = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
CONNECTED = b'id: e:1-1\nevent: connected\ndata: {"type":"connected","client_id":"same","heartbeat":1}\n\n'
# Whatever is held back or cut off is so for ever: these decide how long a test takes, not what it finds.
HEARTBEAT_SECONDS = 4
SECONDS_FOR_WHAT_NEVER_COMES = 3


async def found_at(url: str, *, seconds: float = 60, token: str | None = None, reload: str | None = None) -> str:
    """The findings, a line each."""

    def ask() -> list[Finding]:
        return list(examine(url, seconds=seconds, token=token, reload=reload))

    return "\n".join(f"{finding.level}: {finding.what} {finding.advice}" for finding in await asyncio.to_thread(ask))


@asynccontextmanager
async def behind(server: Server, *changes: tuple[str, str], listen: str = "") -> AsyncIterator[str]:
    """The url of a stream behind the nginx of docs/deploy, with static files, and with these changes in its file."""
    nginx = Nginx(server)
    text = nginx.file.read_text().replace("\n        location / {", STATIC)
    text = text.replace("http {", "http {\n    include /etc/nginx/mime.types;\n", 1)
    text = text.replace(f"listen 127.0.0.1:{nginx.port};", f"listen 127.0.0.1:{nginx.port} {listen};")
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    nginx.file.write_text(text)
    async with nginx:
        yield f"http://127.0.0.1:{nginx.port}/events/"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server("uvicorn", HEARTBEAT_SECONDS=HEARTBEAT_SECONDS, HEARTBEAT_MIN_SECONDS=1) as server:
        yield server


pytestmark = pytest.mark.needs("nginx")


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com:443/events/", "https://example.com"),
        ("http://example.com:80/events/", "http://example.com"),
        ("http://example.com:443/events/", "http://example.com:443"),
        ("https://[::1]:8443/events/", "https://[::1]:8443"),
    ],
)
def test_the_site_is_asked_as_browsers_write_its_address(url: str, origin: str) -> None:
    site = Site(url, "a token", 1)
    assert (site.origin, site.url) == (origin, f"{origin}/events/")


async def test_a_good_site_has_no_fault(server: Server) -> None:
    async with behind(server) as url:
        found = await found_at(url)
    assert "fault" not in found
    assert found.count("good: ") == 5, found
    assert "note: Browsers speak HTTP/1.1" in found and "share=True" in found
    assert "note: MemoryBackend stays within one process" in found


BUFFERING = ("proxy_buffering off;", "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;")
GZIP = ("gzip off;", "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (GZIP, "fault: The stream is compressed (gzip)"),
        (("proxy_read_timeout 90s;", "proxy_read_timeout 1s;"), "fault: The stream was cut off after"),
        (("include /etc/nginx/mime.types;", ""), "fault: The page's script is sent as text/plain"),
        (("location /static/", "location /elsewhere/"), "fault: The page's script is not there"),
        (("proxy_set_header Upgrade $http_upgrade;", ""), "note: No WebSocket opens there (status"),
        (("proxy_set_header Host $http_host;", "proxy_set_header Host $host;"), "note: A WebSocket of the site's own"),
    ],
)
async def test_a_mistake_in_nginx_is_the_one_thing_found(server: Server, change: tuple[str, str], finding: str) -> None:
    async with behind(server, change) as url:
        found = await found_at(url)
    assert finding in found, found
    assert found.count("fault: ") == finding.count("fault: "), found


async def test_static_files_of_another_origin(server: Server) -> None:
    allowing = ("location /static/ {", "location /static/ { add_header Access-Control-Allow-Origin *;")
    for change, finding in (
        ((" ", " "), "fault: The page's script is of another origin"),
        (allowing, "good: The page's"),
    ):
        async with behind(server, change) as url:
            with override_settings(STATIC_URL=url.replace("/events/", "/static/")):
                assert finding in await found_at(f"{server.url}/events/")


async def test_buffering(server: Server) -> None:
    """What nginx buffers it hands on as it comes, unless it compresses it too. Others hold everything back."""
    async with behind(server, BUFFERING, GZIP) as url:
        found = await found_at(url, seconds=SECONDS_FOR_WHAT_NEVER_COMES)
    assert found.startswith("fault: The stream is buffered") and "proxy_buffering off;" in found
    async with answering(b"Content-Type: text/event-stream\r\n", None) as url:
        found = await found_at(url, seconds=SECONDS_FOR_WHAT_NEVER_COMES)
    assert found.startswith("fault: The stream is buffered")


async def test_something_that_holds_back_what_comes_later() -> None:
    async with answering(b"Content-Type: text/event-stream\r\n", CONNECTED, stays=True) as url:
        assert "fault: No heartbeat came" in await found_at(url, seconds=SECONDS_FOR_WHAT_NEVER_COMES)


async def test_a_cache_in_between() -> None:
    """It gives what one stream was told to the next."""
    async with answering(b"Content-Type: text/event-stream\r\n", CONNECTED) as url:
        assert "fault: Two streams have one id" in await found_at(url)


async def test_several_workers_without_a_bus(server: Server) -> None:
    async with Server("uvicorn", HEARTBEAT_SECONDS=HEARTBEAT_SECONDS) as other:
        two = (f"server 127.0.0.1:{server.port};", f"server 127.0.0.1:{server.port}; server 127.0.0.1:{other.port};")
        async with behind(server, two) as url:
            assert "fault: At least 2 workers answer" in await found_at(url)


@pytest.mark.needs("redis")
async def test_the_bus_is_tried_from_outside() -> None:
    with RedisProcess() as redis:
        bus = {"BACKEND": REDIS, "OPTIONS": {"URL": redis.url}}
        async with Server("uvicorn", HEARTBEAT_SECONDS=HEARTBEAT_SECONDS, **bus) as server:
            url = f"{server.url}/events/"
            with override_settings(SSE_LIVE=bus):
                assert "good: An event from this process arrives" in await found_at(url)
            with override_settings(SSE_LIVE={**bus, "OPTIONS": {"URL": redis.url, "STREAM": "another"}}):
                assert "fault: An event from this process did not arrive" in await found_at(url)


async def test_a_clock_that_is_wrong(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "time", SimpleNamespace(time=lambda: time.time() + 3600, monotonic=time.monotonic))
    assert "s behind this machine's" in await found_at(f"{server.url}/events/")


async def test_who_does_not_answer_or_refuses(server: Server) -> None:
    assert "fault: Nothing answers there" in await found_at(f"http://127.0.0.1:{free_port()}/events/")
    assert "status 404" in await found_at(f"{server.url}/no/such/")
    assert "status 403" in (found := await found_at(f"{server.url}/events/", token="x:y:z")) and "SECRET_KEY" in found
    async with behind(server, (f"127.0.0.1:{server.port}", f"127.0.0.1:{free_port()}")) as url:
        assert "status 502" in (found := await found_at(url)) and "The proxy does not reach" in found


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        (b"text/html", b"<!doctype html>\n\n", "but text/html"),
        (b"text/html", b"<!doctype html>", "but text/html"),
        (b"text/event-stream", b"event: ping\r\ndata: 1\r\n\r\n", "but another's"),
        (b"text/event-stream", b"event: connected\ndata: {}\n\n", "but another's"),
    ],
)
async def test_what_is_no_stream_of_ours(kind: bytes, body: bytes, found: str) -> None:
    async with answering(b"Content-Type: %b\r\n" % kind, body, stays=True) as url:
        said = await found_at(url, seconds=SECONDS_FOR_WHAT_NEVER_COMES)
    assert said.startswith(f"fault: What is there is no stream of django-sse-live, {found}.") and said.count(": ") == 1


async def test_what_only_says_that_it_is_compressed() -> None:
    async with answering(b"Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n", CONNECTED) as url:
        assert "fault: The stream is compressed (gzip)" in await found_at(url)


async def test_a_worker_that_is_full() -> None:
    async with Server("uvicorn", MAX_CLIENTS=0) as server:
        found = await found_at(f"{server.url}/events/")
    assert "fault" in found and ("503" in found or "lets nobody in" in found)


@pytest.mark.parametrize(
    ("listen", "said"),
    [("ssl http2", "good: Browsers speak HTTP/2"), ("ssl", "note: Browsers speak HTTP/1.1 with it")],
)
async def test_https(server: Server, tmp_path: Path, listen: str, said: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl")
    command = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost -keyout key.pem -out cert.pem"
    run = partial(subprocess.run, [openssl, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    await asyncio.to_thread(run)
    certificate = f"ssl_certificate {tmp_path}/cert.pem; ssl_certificate_key {tmp_path}/key.pem;"
    async with behind(server, ("server {\n", f"server {{\n {certificate}\n"), listen=listen) as url:
        found = await found_at(url.replace("http:", "https:"))
    assert "fault: A browser would not trust the certificate" in found
    assert said in found and "The stream opens" in found, found


@asynccontextmanager
async def answering(headers: bytes, body: bytes | None, *, stays: bool = False) -> AsyncIterator[str]:
    """A server that has this one answer, None for never. ``stays``: with nothing more to say, but there."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_head = (await reader.readuntil(b"\r\n\r\n")).startswith(b"HEAD")
        if is_head or body is not None:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + headers + b"\r\n")
            writer.write(b"" if is_head else body or b"")
            await writer.drain()
        if not is_head and (stays or body is None):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/events/"


# Reloads


async def reloaded(server: Server, command: str) -> str:
    return await found_at(f"{server.url}/events/", reload=command)


async def test_a_graceful_reload_says_goodbye() -> None:
    async with Server("gunicorn", HEARTBEAT_SECONDS=HEARTBEAT_SECONDS) as server:
        assert server.process is not None
        found = await reloaded(server, f"kill -HUP {server.process.pid}")
    # Without a proxy that tries again, a worker that ends may reset what it has just accepted: that is told.
    assert "good: The open stream is told goodbye" in found and "other request" in found


async def test_a_stop_is_no_reload(server: Server) -> None:
    assert server.process is not None
    async with behind(server) as url:
        found = await found_at(url, reload=f"kill {server.process.pid}", seconds=15)
    assert "good: The open stream is told goodbye" in found
    assert "fault: No new stream opened" in found and "other requests failed meanwhile (502)" in found


async def test_a_worker_that_is_killed_says_no_goodbye() -> None:
    async with Server("gunicorn", HEARTBEAT_SECONDS=HEARTBEAT_SECONDS) as server:
        assert server.process is not None
        found = await reloaded(server, f"kill -KILL $(cat /proc/{server.process.pid}/task/*/children)")
    assert "fault: The open stream was cut off without a goodbye" in found


async def test_a_command_that_fails(server: Server) -> None:
    assert "fault: The command failed: no" in await reloaded(server, "echo no >&2; exit 3")


# The command


async def test_the_exit_status_says_whether_something_must_be_changed(server: Server) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.live.project.settings", "PYTHONPATH": str(ROOT)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "django", "sse_live_doctor", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)

    async with behind(server) as url:
        good = await asyncio.to_thread(run, url)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "good   The stream opens, and its first frame comes at once.\n" in good.stdout
    bad = await asyncio.to_thread(run, f"{server.url}/events/")
    assert bad.returncode == 1
    assert "fault  The page's script is not there" in bad.stdout and "One thing to be changed." in bad.stderr
    for url in ("events/", "http://[::1/events/"):
        assert "is no url" in (await asyncio.to_thread(run, url)).stderr
    assert "status 404" in (await asyncio.to_thread(run, f"{server.url}/événements/")).stdout
