"""Whatever is asked: an answer, never a 500, never a channel that was not granted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from django.core.asgi import get_asgi_application
from django.test import override_settings
from hypothesis import given
from hypothesis import strategies as st

from django_sse_live import sign_channels, stream_position
from tests.event_stream import parse
from tests.fuzz.conftest import Run, fuzz

SETTINGS: dict[str, Any] = {
    "SSE_LIVE": {
        "PUBLIC_CHANNELS": ["news", "post.*"],
        "ALLOWED_ORIGINS": ["https://app.example.com"],
        "PROXY_COUNT": 1,
        "MAX_CLIENTS_PER_ADDRESS": 1,
    },
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "LOGGING_CONFIG": None,
}

ANSWERS = {200, 204, 400, 403, 405, 406, 413, 414, 415}


@pytest.fixture(scope="module")
def application() -> Iterator[Any]:
    with override_settings(**SETTINGS):
        yield get_asgi_application()


@pytest.fixture(scope="module")
def token(application: Any) -> str:
    return sign_channels(["secret", "user:7"])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="django")
    caplog.set_level("CRITICAL", logger="django_sse_live")


TOKEN = "<token>"  # stands for the one that is valid
ID = "<id>"

text = st.text(max_size=20)
values = st.one_of(
    st.sampled_from(
        [
            TOKEN,
            TOKEN + "x",
            "x" + TOKEN,
            ID,
            ID + "/end",
            "/end",
            "news",
            "post.1",
            "user:7",
            "secret",
            "*",
            "named",
            "envelope",
            "30",
            "-1",
            "1e400",
            "nan",
            "",
            "\r\n",
            "a\ndata: x\n\n",
            "\x00",
            "x" * 201,
            "p" * 3000,
        ]
    ),
    text,
    st.from_regex(r"[0-9a-z]{1,34}:[0-9]{1,16}-[0-9]{1,21}(/end)?", fullmatch=True),
)
names = st.one_of(st.sampled_from(["channel", "token", "last_event_id", "format", "heartbeat"] * 3), text)
queries = st.one_of(
    st.lists(st.tuples(names, values), max_size=8).map(lambda pairs: urlencode(pairs).encode()),
    st.lists(st.tuples(names, values), max_size=4).map(lambda pairs: f"channel=news&{urlencode(pairs)}".encode()),
    st.binary(max_size=60),
    st.integers(0, 60).map(lambda count: b"&".join(b"channel=post.%d" % number for number in range(count))),
    st.integers(1, 3).map(lambda kibibytes: b"channel=news&x=" + b"x" * (kibibytes * 15_000)),
)
header_values = st.one_of(
    values.map(lambda value: value.encode()),
    values.map(lambda value: f"Bearer {value}".encode()),
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"text/event-stream",
            b"*/*",
            b"application/json",
            b"text/*;q=0.1, */*",
            b"https://app.example.com",
            b"null",
            b"no-cors",
            b"cross-site",
            b"1.2.3.4, ::1",
            b"2001:db8::1%eth0",
            b"sessionid=x; csrftoken=y",
            b"gzip",
        ]
    ),
)
headers = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"accept",
                b"last-event-id",
                b"authorization",
                b"cookie",
                b"origin",
                b"x-forwarded-for",
                b"host",
                b"sec-fetch-mode",
                b"sec-fetch-site",
                b"user-agent",
                b"accept-encoding",
                b"content-length",
                b"x-other",
                b"access-control-request-method",
                b"if-none-match",
                b"range",
                b"accept-language",
            ]
        ),
        header_values,
    ),
    max_size=6,
)
methods = st.sampled_from(["GET"] * 12 + ["HEAD", "OPTIONS", "POST", "DISPATCH", ""])
scopes = st.fixed_dictionaries(
    {
        "method": methods,
        "query_string": queries,
        "headers": headers,
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3"]),
        "client": st.sampled_from([None, ["1.2.3.4", 5], ["", 0], ["::1", 1]]),
    }
)


class Answer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""


async def ask(application: Any, scope: dict[str, Any]) -> Answer:
    """One request; of a stream, what comes at once. Then the client goes away."""
    import asyncio

    answer = Answer()
    heard, is_over = asyncio.Event(), False

    async def receive() -> dict[str, Any]:
        nonlocal is_over
        if not is_over:
            is_over = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not answer.status
            answer.status = message["status"]
            answer.headers = {name.lower(): value for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            heard.set()

    complete = {"type": "http", "path": "/events/", "scheme": "http", "root_path": "", "server": ("a", 80), **scope}
    await application(complete, receive, send)
    return answer


@fuzz(0.2, 300)
@given(scope=scopes)
def test_any_request(scope: Any, application: Any, token: str, run: Run, outcomes: Counter[str]) -> None:
    position = stream_position()

    def fill(raw: bytes) -> bytes:
        for word, value in ((TOKEN, token), (ID, position)):
            raw = raw.replace(word.encode(), value.encode()).replace(urlencode({"": word})[1:].encode(), value.encode())
        return raw

    scope = {
        **scope,
        "query_string": fill(scope["query_string"]),
        "headers": [(name, fill(value)) for name, value in scope["headers"]],
    }
    answer = run(ask(application, scope))
    assert answer.status in ANSWERS, scope
    for name, value in answer.headers.items():
        assert b"\r" not in name + value and b"\n" not in name + value
    kind = answer.headers.get(b"content-type", b"").decode()
    is_stream = answer.status == 200 and scope["method"] == "GET"
    error = answer.headers.get(b"sse-live-error", b"").decode()
    outcomes[f"{answer.status} {error or ('a stream' if is_stream else 'by Django' if kind != '' else '')}"] += 1
    origin = answer.headers.get(b"access-control-allow-origin")
    assert origin in (None, b"https://app.example.com")
    if is_stream:
        check_stream(answer, token if token.encode() in scope_bytes(scope) else None)
    elif error and scope["method"] != "HEAD":
        assert json.loads(answer.body)["error"] == error


def scope_bytes(scope: Any) -> bytes:
    return scope["query_string"] + b" ".join(value for _, value in scope["headers"])


def check_stream(answer: Answer, token: str | None) -> None:
    assert answer.headers[b"content-type"] == b"text/event-stream"
    first, *others = parse(answer.body)
    frame = first.json
    assert frame["type"] == "connected"
    for channel in frame["channels"]:
        is_public = channel == "news" or channel.startswith("post.")
        assert is_public or (token is not None and channel in ("secret", "user:7")), channel
    assert all(other.json["type"] in ("reset", "heartbeat") for other in others)
