"""The short form of each row; `python -m tests.live.bus` runs the long ones."""

from __future__ import annotations

import pytest

from tests.live.bus.rows import ROWS


@pytest.mark.needs("redis")
@pytest.mark.parametrize("name", ROWS)
async def test_the_bus_holds(name: str) -> None:
    print(await ROWS[name].run(**ROWS[name].short))
