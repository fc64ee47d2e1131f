"""The rows of docs/backends.md, each by one command:

python -m tests.live.bus order           as long as the documentation says
python -m tests.live.bus order --short   what CI runs
python -m tests.live.bus all
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.live.bus.rows import ROWS
from tests.live.harness import raise_descriptor_limit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.bus", description="Many workers, one bus, and breaks.")
    parser.add_argument("row", choices=[*ROWS, "all"])
    parser.add_argument("--short", action="store_true", help="the load that CI uses")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    failed = False
    for name in ROWS if arguments.row == "all" else [arguments.row]:
        row = ROWS[name]
        try:
            print(f"{name}: {asyncio.run(row.run(**(row.short if arguments.short else row.long)))}", flush=True)
        except AssertionError as error:
            failed = True
            print(f"{name}: FAILED: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
