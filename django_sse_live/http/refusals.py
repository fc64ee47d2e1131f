"""Refused: a request that gets no stream, and why."""

from __future__ import annotations


class Refused(Exception):
    """A request that gets no stream: the status, a word for programs, and a sentence that says how to fix it."""

    def __init__(self, status: int, error: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        # In a header too, as SSE-Live-Error: neither an EventSource nor a HEAD request sees the body.
        self.headers: dict[str, str] = {"SSE-Live-Error": error, "X-Content-Type-Options": "nosniff", **(headers or {})}
