"""A site as a browser meets it: how it is asked, and how its streams are read. Standard library alone."""

from __future__ import annotations

import json
import ssl
import time
import zlib
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal, NamedTuple
from urllib.parse import SplitResult, urlencode, urlsplit


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing seen: as it should be (``good``), worth knowing (``note``) or to be changed (``fault``)."""

    level: Literal["good", "note", "fault"]
    what: str
    advice: str = ""


def trusting_anyone() -> ssl.SSLContext:
    """To look on where a browser would not."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Frame(NamedTuple):
    type: str
    data: Any
    id: str


class Site:
    """Where the stream is, and how to ask for it."""

    def __init__(self, url: str, token: str, seconds: float) -> None:
        self.token = token
        self.seconds = seconds  # to wait for what should come at once
        parts = urlsplit(url)
        usual_port = ":443" if parts.scheme == "https" else ":80"
        # As browsers write it.
        self.parts: SplitResult = parts._replace(netloc=parts.netloc.lower().removesuffix(usual_port))
        self.url: str = self.parts.geturl()
        self.origin: str = f"{self.parts.scheme}://{self.parts.netloc}"
        self.tls: ssl.SSLContext = ssl.create_default_context()

    def connect(self, url: str, tls: ssl.SSLContext | None = None) -> HTTPConnection:
        parts = urlsplit(url)
        if parts.scheme == "https":
            return HTTPSConnection(parts.netloc, timeout=self.seconds, context=tls or self.tls)
        return HTTPConnection(parts.netloc, timeout=self.seconds)

    def path(self, **query: str) -> str:
        return f"{self.parts.path or '/'}?{urlencode({'token': self.token, **query})}"

    def head(self, path: str = "") -> HTTPResponse:
        """The answer to a HEAD of the stream, or of another path."""
        connection = self.connect(self.url)
        try:
            connection.request("HEAD", path or self.path(), headers={"Accept": "text/event-stream"})
            return connection.getresponse()
        finally:
            connection.close()


class Stream:
    """One stream, read as an EventSource reads it. TimeoutError from whatever takes longer than the site's seconds."""

    def __init__(self, site: Site, **query: str) -> None:
        connection = site.connect(site.url)
        connection.connect()
        self._socket = connection.sock
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, deflate", "Cache-Control": "no-cache"}
        connection.request("GET", site.path(**query), headers=headers)
        self.response: HTTPResponse = connection.getresponse()
        self.kind: str = self.response.headers.get_content_type()
        self.encoding: str = self.response.headers.get("Content-Encoding", "")
        self._decompress = zlib.decompressobj(47) if self.encoding in ("gzip", "deflate") else None
        self._rest = b""
        self.last_id: str = ""

    def next(self, seconds: float) -> Frame | None:
        """The next frame; None at the stream's end."""
        end = time.monotonic() + seconds
        while b"\n\n" not in self._rest:
            self._socket.settimeout(max(end - time.monotonic(), 0.001))
            try:
                piece = self.response.read1(65536)
                more = piece if self._decompress is None else self._decompress.decompress(piece)
            except TimeoutError:
                raise
            except (OSError, HTTPException, zlib.error):
                return None
            if not piece:
                return None
            self._rest = (self._rest + more).replace(b"\r\n", b"\n")
        text, _, self._rest = self._rest.partition(b"\n\n")
        fields = dict(line.partition(": ")[::2] for line in text.decode(errors="replace").split("\n"))
        self.last_id = fields.get("id", self.last_id)
        try:
            data = json.loads(fields.get("data", ""))
        except ValueError:
            data = None
        return Frame(fields.get("event", "message"), data if isinstance(data, dict) else {}, self.last_id)

    def close(self) -> None:
        self.response.close()
        self._socket.close()
