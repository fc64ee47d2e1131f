"""What a browser meets at a running site, and what to change there: ``manage.py sse_live_doctor``.

Looks from outside, by HTTP. Knows nothing of hubs.
"""

from __future__ import annotations

import secrets
import ssl
import time
from base64 import b64encode
from collections.abc import Generator, Iterator
from datetime import datetime
from http.client import HTTPException
from typing import Final, cast
from urllib.parse import urljoin, urlsplit

from django.templatetags.static import static

from ..backends import get_backend
from ..broadcasting import broadcast
from ..events import parse_id
from ..http.tokens import sign_channels
from .reload import examine_reload
from .site import Finding, Frame, Site, Stream, trusting_anyone

CHANNEL: Final = "sse_live_doctor"
STREAMS_OPENED: Final = 8  # to meet several workers, if there are any
CLOCK_SECONDS: Final = 30  # that two clocks may differ by
EVENT_STREAM: Final = "text/event-stream"
SCRIPT: Final = "django_sse_live/sse-live.js"
SCRIPT_TYPES: Final = ("text/javascript", "application/javascript", "application/ecmascript", "text/ecmascript")

REFUSALS: Final = {
    301: "Ask for the url that it leads to: a page's EventSource would be led there with each connect.",
    302: "If it leads to a login page, exempt the stream's url from the middleware that asks for a login: the stream "
    "knows by itself who may hear what.",
    400: "Look at ALLOWED_HOSTS: the name in the url must be among them.",
    403: "The doctor signs a token with this project's SECRET_KEY: the site must have the same. Or give a token of one "
    "of its pages with --token.",
    404: 'Give the url at which the project has include("django_sse_live.urls").',
    500: "Look at the site's log.",
    501: "Serve the project's asgi.py by an ASGI server: Uvicorn, Daphne, Hypercorn or Granian.",
    502: "The proxy does not reach the application: is it running, and where the proxy looks for it?",
    503: "This worker is full, or stopping, or cannot reach its bus.",
    504: "The proxy got no answer from the application: is it running?",
}


def examine(url: str, *, token: str | None = None, reload: str | None = None, seconds: float = 20) -> Iterator[Finding]:
    """Findings, as they are made. ``token``: of one of the site's pages, where this project's own is not taken.
    ``reload``: a shell command that reloads the site. ``seconds``: to wait for what should come at once."""
    site = Site(url, token or sign_channels(CHANNEL), seconds)
    try:
        refusal = yield from _first_answer(site)
    except (OSError, HTTPException) as error:
        yield Finding("fault", f"Nothing answers there: {error}.", "Start the site, or give the url of its stream.")
        return
    if refusal:
        return
    try:
        stream = Stream(site)
        connected = stream.next(site.seconds) if stream.kind == EVENT_STREAM else None
    except TimeoutError:
        yield Finding(
            "fault",
            f"The stream is buffered: the site answers, but nothing of the stream came in {site.seconds:g} s.",
            "Have each proxy hand on what comes, as it comes. nginx: proxy_buffering off; gzip off; for the stream.",
        )
        return
    except (OSError, HTTPException) as error:
        yield Finding("fault", f"The stream broke as it opened: {error}.", "Look at the log of the proxy.")
        return
    yield from _opening(stream, connected)
    if connected is None or not _is_ours(connected):
        stream.close()
        return
    yield from _http_version(site)
    yield from _script(site)
    yield from _websocket(site)
    yield from _workers(site, connected)
    yield from _quiet(site, stream, float(connected.data["heartbeat"]), is_own=token is None)
    stream.close()
    if reload:
        yield from examine_reload(site, reload)


def _first_answer(site: Site) -> Generator[Finding, None, bool]:
    """What a HEAD is told. Returns whether that is the end."""
    try:
        answer = site.head()
    except ssl.SSLCertVerificationError as error:
        yield Finding(
            "fault",
            f"A browser would not trust the certificate: {error.verify_message}.",
            "Have the proxy send a valid certificate with its whole chain.",
        )
        site.tls = trusting_anyone()
        answer = site.head()
    if answer.status != 200:
        where = answer.headers.get("Location")
        yield Finding(
            "fault",
            f"The stream does not open: status {answer.status}" + (f", to {where}." if where else "."),
            REFUSALS.get(answer.status, "Look at the logs of the site and of the proxy."),
        )
        return True
    return False


def _opening(stream: Stream, first: Frame | None) -> Iterator[Finding]:
    if stream.kind != EVENT_STREAM:
        yield Finding("fault", f"What is there is no stream of django-sse-live, but {stream.kind}.", REFUSALS[404])
    elif first is None:
        yield Finding(
            "fault", "The stream ended before its first frame.", "Look at the logs of the site and the proxy."
        )
    elif first.type == "goodbye":
        yield Finding("fault", f"The site lets nobody in: {first.data.get('reason')}.", REFUSALS[503])
    elif not _is_ours(first):
        yield Finding("fault", "What is there is no stream of django-sse-live, but another's.", REFUSALS[404])
    else:
        yield Finding("good", "The stream opens, and its first frame comes at once.")
    if stream.encoding:
        yield Finding(
            "fault",
            f"The stream is compressed ({stream.encoding}): events wait until there is enough to compress.",
            "Switch compression off for text/event-stream. nginx: gzip off; in the location of the stream.",
        )


def _is_ours(first: Frame) -> bool:
    return first.type == "connected" and "heartbeat" in first.data


def _http_version(site: Site) -> Iterator[Finding]:
    if site.parts.scheme == "https":
        context = trusting_anyone()
        context.set_alpn_protocols(["h2", "http/1.1"])
        connection = site.connect(site.url, context)
        connection.connect()
        version = cast(ssl.SSLSocket, connection.sock).selected_alpn_protocol()
        connection.close()
        if version == "h2":
            yield Finding("good", "Browsers speak HTTP/2 with it: tabs share one connection.")
            return
        advice = "Switch HTTP/2 on. nginx: http2 on; (before 1.25.1: listen 443 ssl http2;)."
    else:
        advice = "HTTP/2 needs TLS: serve the site by https."
    yield Finding(
        "note",
        "Browsers speak HTTP/1.1 with it, by six connections at most: the seventh tab with a stream does not load.",
        advice + ' Or let tabs share one stream: {% sse_live "…" share=True %}.',
    )


def _script(site: Site) -> Iterator[Finding]:
    collect = "Run collectstatic, and have the proxy serve STATIC_ROOT at STATIC_URL. In development: runserver, or "
    collect += "ASGIStaticFilesHandler in asgi.py."
    try:
        url = urljoin(site.url, static(SCRIPT))
    except ValueError as error:  # the manifest of a storage that has not collected it
        yield Finding("fault", f"The page's script is not among the collected static files: {error}", collect)
        return
    connection = site.connect(url)
    try:
        connection.request("GET", urlsplit(url).path, headers={"Origin": site.origin})
        answer = connection.getresponse()
        answer.read()
    except (OSError, HTTPException) as error:
        yield Finding("fault", f"The page's script, {url}, cannot be had: {error}.", collect)
        return
    finally:
        connection.close()
    kind = answer.headers.get_content_type()
    if answer.status != 200:
        yield Finding("fault", f"The page's script is not there: {url} has status {answer.status}.", collect)
    elif kind not in SCRIPT_TYPES:
        yield Finding(
            "fault",
            f"The page's script is sent as {kind}: browsers run no module of that type.",
            "Send .js as text/javascript. nginx: include mime.types; in http { }.",
        )
    elif not url.startswith(f"{site.origin}/") and answer.headers.get("Access-Control-Allow-Origin") not in (
        "*",
        site.origin,
    ):
        yield Finding(
            "fault",
            f"The page's script is of another origin, which does not let pages of {site.origin} run it: {url}.",
            "Have it answer with Access-Control-Allow-Origin, or serve the script from the site's own origin.",
        )
    else:
        yield Finding("good", f"The page's script is there, as {kind}.")


def _websocket(site: Site) -> Iterator[Finding]:
    connection = site.connect(site.url)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": b64encode(secrets.token_bytes(16)).decode(),
        "Origin": site.origin,
    }
    try:
        connection.request("GET", site.path(), headers=headers)
        status = connection.getresponse().status
    except (OSError, HTTPException):
        status = 0
    finally:
        connection.close()
    if status == 101:
        yield Finding("good", "A WebSocket opens there too.")
    elif status == 403:
        yield Finding(
            "note",
            "A WebSocket of the site's own pages is refused (403): to the application they come from another origin.",
            "Hand on the Host with its port, and the scheme (X-Forwarded-Proto), and set SECURE_PROXY_SSL_HEADER. "
            "nginx: proxy_set_header Host $http_host;",
        )
    else:
        yield Finding(
            "note",
            f"No WebSocket opens there (status {status or 'none'}). Pages go on by SSE and POST.",
            "If you want them: live_application in asgi.py, a server that speaks them, and a proxy that hands on the "
            "upgrade. nginx: proxy_set_header Upgrade $http_upgrade; and Connection.",
        )


def _workers(site: Site, connected: Frame) -> Iterator[Finding]:
    """A bus has one epoch for all workers; each worker without one has its own."""
    seen, streams = [connected], []
    try:
        for _ in range(STREAMS_OPENED):
            streams.append(Stream(site))
            frame = streams[-1].next(site.seconds)
            if frame is not None and frame.type == "connected":
                seen.append(frame)
    except (OSError, HTTPException):
        pass  # a limit by address, say: what was seen is enough
    finally:
        for stream in streams:
            stream.close()
    epochs = {parsed[0] for frame in seen if (parsed := parse_id(frame.id)) is not None}
    if len({frame.data.get("client_id") for frame in seen}) < len(seen):
        yield Finding(
            "fault", "Two streams have one id: a cache answers for the application.", "Exempt the stream's url from it."
        )
    if len(epochs) > 1:
        yield Finding(
            "fault",
            f"At least {len(epochs)} workers answer, and each has events of its own: what one broadcasts the others "
            "never hear.",
            'Set SSE_LIVE["BACKEND"] to a bus between processes, such as "django_sse_live.database.DatabaseBackend", '
            "or run one worker.",
        )
    elif len(epochs) == 1:
        yield Finding("good", f"The workers that answered {len(seen)} streams have their events in common.")


def _quiet(site: Site, stream: Stream, heartbeat_seconds: float, *, is_own: bool) -> Iterator[Finding]:
    """Wait for a heartbeat, with nothing else on the stream but an event of the doctor's own."""
    is_sent = is_own and get_backend().reaches_other_processes
    if is_sent:
        broadcast(CHANNEL, CHANNEL, on_commit=False)
    has_come, heartbeat = False, None
    began_at = time.monotonic()
    try:
        while heartbeat is None and (frame := stream.next(heartbeat_seconds + site.seconds)) is not None:
            has_come = has_come or frame.type == CHANNEL
            heartbeat = frame if frame.type == "heartbeat" else None
            if frame.type == "goodbye":
                yield Finding("note", f"The stream was told goodbye meanwhile: {frame.data.get('reason')}. Ask again.")
                return
        came_to_its_end = heartbeat is None
    except TimeoutError:
        came_to_its_end = False
    if heartbeat is not None:
        yield Finding("good", f"A heartbeat comes through, every {heartbeat_seconds:g} s.")
        yield from _clock(heartbeat)
    elif came_to_its_end:
        yield Finding(
            "fault",
            f"The stream was cut off after {time.monotonic() - began_at:.0f} s without an event: its heartbeat comes "
            f"every {heartbeat_seconds:g} s.",
            "Give each proxy a longer timeout between two reads (nginx: proxy_read_timeout 90s;), or set "
            'SSE_LIVE["HEARTBEAT_SECONDS"] to less than the shortest.',
        )
    else:
        yield Finding(
            "fault",
            f"No heartbeat came in {heartbeat_seconds + site.seconds:g} s; one is sent every {heartbeat_seconds:g} s. "
            "Something holds it back.",
            "Have each proxy hand on what comes as it comes. nginx: proxy_buffering off;",
        )
    if is_sent and has_come:
        yield Finding("good", "An event from this process arrives: commands and Celery workers reach the pages.")
    elif is_sent and heartbeat is not None:
        yield Finding(
            "fault",
            "An event from this process did not arrive.",
            "Give the site and this command the same SSE_LIVE: BACKEND and OPTIONS.",
        )
    elif is_own and not is_sent:
        yield Finding(
            "note",
            f"{type(get_backend()).__name__} stays within one process: what a command or a Celery worker broadcasts "
            "reaches nobody.",
            'For more than one process: SSE_LIVE["BACKEND"] = "django_sse_live.database.DatabaseBackend".',
        )


def _clock(heartbeat: Frame) -> Iterator[Finding]:
    theirs = datetime.fromisoformat(heartbeat.data["timestamp"].replace("Z", "+00:00")).timestamp()
    ahead = theirs - time.time()
    if abs(ahead) > CLOCK_SECONDS:
        yield Finding(
            "fault",
            f"The site's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's: tokens of "
            "one are too old or too new for the other.",
            "Have both keep the time by NTP.",
        )
