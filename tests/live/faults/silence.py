"""Peers that are no longer there, and never said so: no FIN, no RST, no ACK."""

from __future__ import annotations

import time

from tests.live.faults.report import Row, first_lines
from tests.live.harness import Crowd, Server, until


async def half_open(name: str, *, clients: int = 200, heartbeat: float = 5, timeout: float = 5) -> Row:
    """Their packets are dropped by a filter on the socket. Others stay, and must not notice."""
    row = Row(
        "half-open peers",
        name,
        f"{clients} of {clients + 20}, HEARTBEAT_SECONDS {heartbeat:g}, SEND_TIMEOUT_SECONDS {timeout:g}",
    )
    # Granian shows us no socket: there MAX_AGE_SECONDS is the bound, unless the listening socket has a user timeout.
    max_age = 2 * heartbeat if name.startswith("granian") else None
    settings = {"HEARTBEAT_SECONDS": heartbeat, "SEND_TIMEOUT_SECONDS": timeout, "MAX_AGE_SECONDS": max_age}
    async with Server(name, **settings) as server:
        others = await Crowd.open(server, 20)
        silent = await Crowd.open(server, clients)
        began = time.monotonic()
        for client in silent:
            client.fall_silent()
        bound = (1.1 * max_age if max_age else heartbeat + 2 * timeout) + 2

        async def are_gone() -> bool:
            return (await server.state())["clients"] <= (20 if max_age is None else 0)

        await until(are_gone, bound + 30)
        took = time.monotonic() - began
        noise = server.noise()
        row.figures = {
            "gone after": f"{took:.1f} s",
            "bound": f"{bound:.1f} s",
            "by": f"MAX_AGE_SECONDS {max_age:g}" if max_age else "missing acknowledgements",
            "others cut off": others.count(lambda client: not client.is_open and not client.goodbyes),
            "lines above INFO": len(noise),
        }
        row.measure(took <= bound, f"took {took:.1f} s")
        row.require(row.figures["others cut off"] == 0, "others were cut off")
        row.require(not noise, first_lines(noise))
    return row
