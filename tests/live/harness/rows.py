"""Rows of the documentation, each run by one command: what it found out is printed, or that it failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def run_rows(rows: Mapping[str, Callable[[], object]]) -> int:
    """The exit code of the command."""
    failed = False
    for name, run in rows.items():
        try:
            print(f"{name}: {run()}", flush=True)
        except AssertionError as error:
            failed = True
            print(f"{name}: FAILED: {error}", flush=True)
    return int(failed)
