"""The short form of every row of docs/faults.md: what must hold on any machine. The figures are the long form's."""

from __future__ import annotations

import pytest

from tests.live.faults.rows import ROWS


def cases():
    for name, row in ROWS.items():
        marks = [pytest.mark.needs("nginx")] if name.startswith("nginx") else []
        for server in row.short_servers or row.servers:
            yield pytest.param(name, server, id=f"{name}-{server}", marks=marks)


@pytest.mark.parametrize(("name", "server"), [*cases()])
async def test_short_form(name: str, server: str) -> None:
    pytest.importorskip(server.partition("-")[0], reason=f"needs {server.partition('-')[0]}")
    row = await ROWS[name].run(server, **ROWS[name].short)
    assert not row.failures, str(row)
