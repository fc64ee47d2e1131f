"""Answers whose text is known beforehand.

python -m tests.live.browser.work.producer KEY COUNT RATE: begins the job KEY, says its id, and writes COUNT tokens,
RATE of them a second.
"""

from __future__ import annotations

import random
import time
from typing import Any

WORDS = "the of otter 😀 heron\n é <b>bold</b> &amp; 한국 \r\n שלום tide \x00 \ud800 reeds 👩‍👩‍👧 \t".split(" ")


def tokens(key: str, count: int) -> list[str]:
    choice = random.Random(key)
    return [choice.choice(WORDS) + choice.choice(("", " ", " ", "  ")) for _ in range(count)]


def text_of(key: str, count: int) -> str:
    """As a page is to show it: what cannot be said in UTF-8 or in HTML is U+FFFD."""
    return "".join(tokens(key, count)).replace("\ud800", "\ufffd").replace("\x00", "\ufffd")


def produce(job: Any, key: str, count: int, rate: float) -> dict[str, int]:
    began = time.monotonic()
    for number, token in enumerate(tokens(key, count), 1):
        if job.is_cancelled:
            break
        job.write(token)
        if number % 50 == 0:
            job.progress(number / count, f"{number} of {count}")
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
    return {"count": count}


def main(key: str, count: str, rate: str) -> None:
    import django

    django.setup()
    from django_sse_live import start_job

    job = start_job(owner=None, key=key)
    print(job.id, flush=True)
    job.finish(produce(job, key, int(count), float(rate)))


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:])
