"""The project on a machine whose wall clock jumps: GET /jump/?<seconds>, which may be negative."""

import time

from tests.live.project.asgi import application as project

real_time, real_time_ns = time.time, time.time_ns
skew = 0
time.time = lambda: real_time() + skew
time.time_ns = lambda: real_time_ns() + skew * 1_000_000_000


async def application(scope, receive, send):
    global skew
    if scope["type"] == "http" and scope["path"] == "/jump/":
        skew += int(scope["query_string"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
    else:
        await project(scope, receive, send)
