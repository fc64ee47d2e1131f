"""The example on its SQLite: other processes are heard, and a restart of the server is no break."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx

from tests.runserver import Runserver

SAVE = "from board.models import Comment; Comment.objects.create(author='shell', text={!r})"


def listen(example: Runserver, last_id: str = "") -> Any:
    parameters = {"channel": "comments", "format": "envelope", **({"last_event_id": last_id} if last_id else {})}
    return httpx.stream("GET", f"{example.url}/events/", params=parameters, timeout=60)


def test_a_comment_saved_in_the_shell_appears_in_the_open_page(example: Runserver) -> None:
    with listen(example) as response:
        frames = response.iter_lines()
        assert any("connected" in line for line in iter(lambda: next(frames), ""))
        example.manage("shell", "-c", SAVE.format("from another process"))
        line = next(line for line in frames if "from another process" in line or "new_comment" in line)
        assert re.search(r'"type":"new_comment"', line)


def test_a_restart_of_the_server_resumes_exactly(example: Runserver) -> None:
    with listen(example) as response:
        lines = response.iter_lines()
        assert any("connected" in line for line in iter(lambda: next(lines), ""))
        example.manage("shell", "-c", SAVE.format("before the restart"))
        last_id = ""
        for line in lines:
            if line.startswith("id: "):
                last_id = line[4:]
            if '"new_comment"' in line:
                break
    example.kill()
    example.manage("shell", "-c", SAVE.format("while it was away"))
    example.start()
    with listen(example, last_id) as response:
        example.manage("shell", "-c", SAVE.format("after the restart"))
        types, count = [], 0
        for line in response.iter_lines():
            if line.startswith("data: "):
                types.append(json.loads(line[6:])["type"])
                count += types[-1] == "new_comment"
                if count == 2:
                    break
    assert types.count("new_comment") == 2 and "reset" not in types
