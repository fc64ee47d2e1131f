"""A process that saves rows and broadcasts what it saved, in every way in which a project does it.

python -m tests.database.run.publisher NAME FILE SEED

A row of the table `saved` and an event have the same key; the two must be committed together or not at all. Keys of
events outside a transaction begin with "n"; they are appended to FILE before they are broadcast, and a line "end" tells
that the process ended in good order (on SIGTERM).
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import threading
import time

import django

must_stop = threading.Event()


class Publisher:
    """In one thread."""

    def __init__(self, name: str, path: str, seed: str) -> None:
        self.name = name
        self.random = random.Random(f"{seed}{name}")
        self.number = 0
        self.file = open(path, "ab", buffering=0)

    def key(self, prefix: str = "s") -> str:
        self.number += 1
        return f"{prefix}.{self.name}.{self.number}"

    def save(self, key: str) -> None:
        """A row, and its event."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO saved (name) VALUES (%s)", [key])
        self.broadcast(key)

    def broadcast(self, key: str) -> None:
        from django_sse_live.broadcasting import send_event
        from django_sse_live.events import Event

        channels = ("all", f"x{self.random.randrange(3)}")
        if self.random.random() < 0.3:
            channels = channels[:1]
        event = Event(channels, "t", json.dumps(key))
        if key.startswith("s") and self.random.random() < 0.3:

            def finish(event: Event) -> bool:
                time.sleep(self.random.random() * 0.01)
                return True

            event.finish = finish
        send_event(event)

    def step(self) -> None:
        from django.db import transaction

        kind = self.random.randrange(8)
        if kind == 0:  # rolled back
            try:
                with transaction.atomic():
                    self.save(self.key("r"))
                    raise LookupError
            except LookupError:
                pass
        elif kind == 1:  # nested, and one of the blocks rolled back
            with transaction.atomic():
                self.save(self.key())
                try:
                    with transaction.atomic():
                        self.save(self.key("r"))
                        raise LookupError
                except LookupError:
                    pass
                with transaction.atomic():
                    self.save(self.key())
        elif kind == 2:
            with transaction.atomic(durable=True):
                for _ in range(self.random.randrange(1, 20)):
                    self.save(self.key())
        elif kind == 3:  # without a transaction
            key = self.key("n")
            self.file.write(f"{key}\n".encode())
            self.broadcast(key)
        elif kind == 4 and self.random.random() < 0.05:  # open for long
            with transaction.atomic():
                self.save(self.key())
                time.sleep(self.random.random() * 3)
        else:
            with transaction.atomic():
                self.save(self.key())

    def run(self) -> None:
        from django.db import Error, connection

        while not must_stop.is_set():
            try:
                self.step()
            except Error as error:
                print(f"{self.name}: {error!r}", file=sys.stderr)
                connection.close()
                time.sleep(0.1)
            if self.random.random() < 0.02:
                time.sleep(self.random.random() * 0.05)
        connection.close()

    async def run_async(self) -> None:
        from django_sse_live.backends import get_backend
        from django_sse_live.events import Event

        while not must_stop.is_set():
            key = self.key("n")
            self.file.write(f"{key}\n".encode())
            await get_backend().apublish(Event(("all",), "t", json.dumps(key)))
            await asyncio.sleep(0.02)


def hold(publisher: Publisher, seconds: float) -> None:
    """One transaction that stays open; and one of another database, on whose snapshot nobody may depend."""
    from django.db import connection, connections, transaction

    while not must_stop.is_set():
        try:
            with transaction.atomic(), transaction.atomic(using="other"):
                connections["other"].cursor().execute("SELECT 1")
                publisher.save(publisher.key())
                must_stop.wait(seconds)
        except Exception as error:
            print(f"{publisher.name}: {error!r}", file=sys.stderr)
            connection.close()
            connections["other"].close()
            time.sleep(1)


def main() -> None:
    name, path, seed = sys.argv[1:4]
    django.setup()
    from django.db import connection

    signal.signal(signal.SIGTERM, lambda *_: must_stop.set())
    threads = [threading.Thread(target=Publisher(f"{name}{letter}", path, seed).run) for letter in "ab"]
    if connection.vendor != "sqlite" and name.startswith("0"):
        threads.append(threading.Thread(target=hold, args=[Publisher(f"{name}h", path, seed), 60.0]))
    for thread in threads:
        thread.start()
    asyncio.run(Publisher(f"{name}c", path, seed).run_async())
    for thread in threads:
        thread.join()
    from django_sse_live.backends import get_backend

    get_backend().close()
    with open(path, "ab") as file:
        file.write(b"end\n")


if __name__ == "__main__":
    main()
