"""Real servers, raw clients, and ways to break what is between them.

    server = await Server.start("uvicorn", HEARTBEAT_SECONDS=1)     # or the fixture start_server
    crowd = await Crowd.open(server, 1000, "/ticks/")
    await server.get("/publish/?count=5")
    await until(lambda: all(client.numbers == [1, 2, 3, 4, 5] for client in crowd))
    await crowd.reset(crowd.clients[:10])                           # RST
    assert server.noise() == []
    await server.stop()

Everything waits for conditions, with a deadline; nothing waits for a time.
"""

from .browsers import Browser
from .clients import Client, Crowd
from .conditions import until
from .proxies import Nginx
from .servers import ALL, FOUR, Server, free_port, raise_descriptor_limit

__all__ = [
    "ALL",
    "FOUR",
    "Browser",
    "Client",
    "Crowd",
    "Nginx",
    "Server",
    "free_port",
    "raise_descriptor_limit",
    "until",
]
