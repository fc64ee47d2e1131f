"""The rows of docs/faults.md, each by one command:

python -m tests.live.faults sigterm                      on every server it is about
python -m tests.live.faults sigterm --server granian-2   on one
python -m tests.live.faults sigterm --short              what CI runs
python -m tests.live.faults all
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.live.faults.report import HEADER, Row
from tests.live.faults.rows import ROWS
from tests.live.harness import raise_descriptor_limit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.live.faults", description="Break what can break.")
    parser.add_argument("row", choices=[*ROWS, "all"])
    parser.add_argument("--server", help="one of tests.live.harness.servers.COMMANDS")
    parser.add_argument("--short", action="store_true", help="the load that CI uses")
    arguments = parser.parse_args()
    raise_descriptor_limit()
    print(HEADER, flush=True)
    is_good = True
    for name in ROWS if arguments.row == "all" else [arguments.row]:
        row = ROWS[name]
        for server in [arguments.server] if arguments.server else row.servers:
            try:
                result = asyncio.run(row.run(server, **(row.short if arguments.short else {})))
            except AssertionError as error:  # a condition that never came true
                result = Row(name, server, "", failures=[str(error)[-1000:]])
            is_good &= result.is_good
            print(result, flush=True)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
