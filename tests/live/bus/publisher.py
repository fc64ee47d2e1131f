"""A process that broadcasts and serves nobody, as a management command or a Celery worker does.

python -m tests.live.bus.publisher RATE SECONDS FIRST

Each broadcast is made inside a transaction, and what is timed is the whole of it: what a save would have to wait. Ends
with one line of JSON, after SECONDS or when it reads the line "stop".
"""

from __future__ import annotations

import json
import sys
import threading
import time

import django


def main() -> None:
    rate, seconds, first = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    django.setup()
    from django.db import connection, transaction

    from django_sse_live.backends import get_backend
    from tests.live.project.views import publish_one

    connection.ensure_connection()
    slowest = 0.0
    number = first
    began = time.monotonic()
    must_stop = threading.Event()

    def listen() -> None:
        if sys.stdin.readline() == "stop\n":
            must_stop.set()

    threading.Thread(target=listen, daemon=True).start()
    while time.monotonic() - began < seconds and not must_stop.is_set():
        begin = time.perf_counter()
        with transaction.atomic():
            publish_one("ticks", number)
        slowest = max(slowest, time.perf_counter() - begin)
        if number == first:
            print("ready", flush=True)
        number += 1
        pause = began + (number - first) / rate - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    backend = get_backend()
    dropped = getattr(backend, "dropped", 0)
    print(json.dumps({"count": number - first, "slowest_ms": round(slowest * 1000, 1), "dropped": dropped}), flush=True)


if __name__ == "__main__":
    main()
