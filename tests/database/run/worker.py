"""A worker with clients and without HTTP: what each client is sent is appended to its file, from where it last was.

python -m tests.database.run.worker FILE=CHANNEL …
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import django


def last_id(path: Path) -> str:
    """Of the last whole line."""
    lines = path.read_text().rpartition("\n")[0].split("\n") if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines if line))
    return lines[-1].split(" ")[0] if lines and lines[-1] else ""


async def read(path: Path, channel: str) -> None:
    from django_sse_live.backends import replay_history, running_hub
    from django_sse_live.events import parse_id
    from django_sse_live.hub.client_info import ClientInfo
    from django_sse_live.hub.clients import Client

    found = last_id(path)
    while True:
        hub = running_hub()
        await hub.filled()
        if not hub.is_ready:
            continue
        position = parse_id(found) if found else None
        client = Client(hub, ClientInfo((channel,)), last_id=position or (hub.log.epoch, 0))
        if client.needs_history:
            await replay_history(client)
        client.open()
        with path.open("ab", buffering=0) as file:
            while True:
                body = client.take()
                if body is None:
                    if client.close_reason is not None:
                        break
                    await client.wait()
                    continue
                lines = ""
                for id, type, data in re.findall(r"id: (.*)\nevent: (.*)\ndata: (.*)\n", body.decode()):
                    if type == "t":
                        found = id
                        lines += f"{id} {data}\n"
                    elif type == "reset":
                        lines += f"{id} RESET {data}\n"
                file.write(lines.encode())
        client.leave()
        await asyncio.sleep(0.2)


async def main() -> None:
    clients = [argument.partition("=") for argument in sys.argv[1:]]
    await asyncio.gather(*(read(Path(path), channel) for path, _, channel in clients))


if __name__ == "__main__":
    django.setup()
    asyncio.run(main())
