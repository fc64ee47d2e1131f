"""The rows of docs/backends.md, each by one command:

python -m tests.live.bus order           as long as the documentation says
python -m tests.live.bus order --short   what CI runs
python -m tests.live.bus all
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from functools import partial

from tests.live.bus.rows import ROWS, Row
from tests.live.harness import raise_descriptor_limit
from tests.live.harness.rows import run_rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.bus", description="Many workers, one bus, and breaks.")
    parser.add_argument("row", choices=[*ROWS, "all"])
    parser.add_argument("--short", action="store_true", help="the load that CI uses")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    names = ROWS if arguments.row == "all" else [arguments.row]
    return run_rows({name: partial(run, ROWS[name], short=arguments.short) for name in names})


def run(row: Row, *, short: bool) -> str:
    return asyncio.run(row.run(**(row.short if short else row.long)))


if __name__ == "__main__":
    sys.exit(main())
