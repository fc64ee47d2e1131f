"""The example as a visitor meets it: a running server, cookies, forms, the stream. Nothing is imported from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from tests.runserver import ROOT, Runserver


class Frame(NamedTuple):
    type: str
    data: Any
    patch: dict[str, str] | None


class Visitor(httpx.Client):
    """A browser without JavaScript: it keeps cookies, fills in forms, and can hold a stream open."""

    def submit(self, path: str, **fields: str) -> httpx.Response:
        page = self.get(path)
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)
        assert token, page.text
        return self.post(path, data={**fields, "csrfmiddlewaretoken": token[1]})

    def log_in(self, name: str) -> Visitor:
        response = self.submit("/login/", username=name, password=name)
        assert response.status_code == 302, response.text
        return self

    @contextmanager
    def listen(self) -> Iterator[Iterator[Frame]]:
        """Each event on the channel comments, from `connected` on; waits 10 s for each, at most."""
        parameters = {"channel": "comments", "format": "envelope"}
        with self.stream("GET", "/events/", params=parameters) as response:
            assert response.status_code == 200, response.read()
            yield self.events(response)

    @staticmethod
    def events(response: httpx.Response) -> Iterator[Frame]:
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "data":
                frame = json.loads(value)
                yield Frame(frame["type"], frame.get("data"), frame.get("patch"))


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """The example project, with a database of its own."""
    directory = tmp_path_factory.mktemp("example")
    project = ROOT / "example_project"
    example = Runserver("config.settings", directory, project=project, EXAMPLE_DATABASE=str(directory / "db.sqlite3"))
    example.manage("seed")
    example.start()
    yield example
    example.kill()


@pytest.fixture
def visitor(example: Runserver) -> Iterator[Any]:
    """A new visitor at each call."""
    visitors: list[Visitor] = []

    def new() -> Visitor:
        visitors.append(Visitor(base_url=example.url, timeout=60))
        return visitors[-1]

    yield new
    for visitor in visitors:
        visitor.close()
