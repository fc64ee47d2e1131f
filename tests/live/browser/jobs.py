"""Answers of 2,000 tokens, and what happens to their pages at random moments: every page must show what was written.

python -m tests.live.browser.jobs [chromium|firefox|webkit] [moments] [seed]
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.backends.redis_process import RedisProcess
from tests.live.browser import histories
from tests.live.browser.network import Network
from tests.live.browser.work.producer import text_of
from tests.runserver import Runserver

SETTINGS = "tests.live.browser.work.settings"
TOKENS = 2_000
TOKENS_PER_SECOND = 250.0
MOMENTS_OF_ONE_ANSWER = 5
# What happens, and how often.
MOMENTS = {"reload": 4, "tab": 4, "cut": 4, "restart": 2, "stop and start": 2, "untab": 1, "twin": 1, "move": 1}


@contextmanager
def site(directory: Path, redis: str = "") -> Iterator[Runserver]:
    """With a Redis, producers are processes of their own; else they are in the server's."""
    server = Runserver(SETTINGS, directory, WORK_REDIS=redis)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Producer:
    """A process that writes an answer."""

    def __init__(self, server: Runserver, key: str, count: int = TOKENS, rate: float = TOKENS_PER_SECOND) -> None:
        command = [sys.executable, "-m", "tests.live.browser.work.producer", key, str(count), str(rate)]
        with server.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=server.environment, stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        self.job = self.process.stdout.readline().decode().strip()
        assert self.job, server.log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Browser:
    """One page, and the iframes that are its other tabs; it is told what to do on a way that is never cut."""

    def __init__(self, url: str) -> None:
        self.page = histories.Page()
        self.site = url
        self.blank = f"{url}/?control={self.page.port}"

    def wait(self) -> dict[str, Any]:
        return self.page.results.get(timeout=90)

    def do(self, act: str, **more: Any) -> dict[str, Any]:
        self.page.orders.put(json.dumps({"act": act, **more}))
        return self.wait()

    def open(self, *jobs: str, options: str = "") -> None:
        """The page itself is another then."""
        query = "".join(f"&job={job}" for job in jobs)
        self.do("open", url=f"{self.blank}{query}{options}")

    def settled(self, *states: str, count: int = 1, seconds: float = 60) -> list[dict[str, Any]]:
        """How the jobs stand in every tab, so many at least; each must have come to one of these states."""
        result = self.do("settled", states=states, seconds=seconds, count=count)
        assert result["problems"] == [], result
        jobs: list[dict[str, Any]] = result["jobs"]
        assert len(jobs) >= count and {each["state"] for each in jobs} <= set(states), summary(jobs)
        return jobs

    def end(self) -> None:
        self.page.server.shutdown()


def summary(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**each, "text": len(each["text"] or ""), "shown": len(each["shown"] or "")} for each in jobs]


def assert_shows(jobs: list[dict[str, Any]], text: str) -> None:
    for each in jobs:
        for shown in (each["text"], each["shown"]):
            pairs = zip(shown, text, strict=False)
            at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(shown), len(text)))
            assert shown == text, (at, shown[at - 5 : at + 5], text[at - 5 : at + 5], summary(jobs))


class Answers:
    """One browser, before which answers are written, one after the other."""

    def __init__(self, server: Runserver, seed: int) -> None:
        self.server, self.seed = server, seed
        self.random = random.Random(seed)
        self.network = Network(server)
        self.browser = Browser(self.network.url)
        self.moments: Counter[str] = Counter()
        self.pages = 0

    def run(self, moments: int) -> None:
        self.agent = self.browser.wait()["agent"]
        while (left := moments - sum(self.moments.values())) > 0:
            self._answer(min(left, MOMENTS_OF_ONE_ANSWER))

    def _answer(self, moments: int) -> None:
        key = f"{self.seed} {self.random.random()}"
        producer = Producer(self.server, key)
        try:
            self.browser.open(producer.job, options=self.random.choice(("", "&share", "&alone")))
            times = sorted(self.random.random() * TOKENS / TOKENS_PER_SECOND for _ in range(moments))
            began = time.monotonic()
            for at in times:
                time.sleep(max(0.0, began + at - time.monotonic()))
                self._moment()
            assert producer.process.wait(60) == 0, self.server.log.read_text()
        finally:
            producer.kill()
        jobs = self.browser.settled("finished")
        assert_shows(jobs, text_of(key, TOKENS))
        self.pages += len(jobs)

    def _moment(self) -> None:
        act = self.random.choices(list(MOMENTS), list(MOMENTS.values()))[0]
        self.moments[act] += 1
        if act == "cut":
            self.network.cut()
            time.sleep(self.random.random() * 1.5)
            self.network.mend()
        elif act in ("restart", "stop and start"):
            if act != "restart" and self.server.process is not None:
                self.server.signal(signal.SIGTERM)
                self.server.process.wait(60)  # a busy machine is not what is judged here
            self.server.kill()
            self.server.start()
        else:
            self.browser.do(act)

    def end(self) -> None:
        self.network.cut()
        self.browser.end()


def play(driven: Callable[[str], AbstractContextManager[None]], directory: Path, moments: int, seed: int) -> Answers:
    with RedisProcess() as redis, site(directory, redis.url) as server:
        answers = Answers(server, seed)
        try:
            with driven(answers.browser.blank):
                answers.run(moments)
        finally:
            answers.end()
    return answers


def main(engine: str = "chromium", moments: str = "300", seed: str = "") -> None:
    number = int(seed or random.randrange(10**6))
    print(f"{engine} seed {number}: begins", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        answers = play(partial(histories.driven, engine, Path(directory)), Path(directory), int(moments), number)
    print(answers.agent, dict(answers.moments), sep="\n")
    print(f"{answers.pages} pages of answers, 0 differences, {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
