"""What the arguments of the commands may be."""

from __future__ import annotations

from typing import Final

SECONDS_MAX: Final = 1_000_000.0  # sockets take little more


def seconds(text: str) -> float:
    """Of an argument such as ``--seconds``. For a ValueError argparse says that the value is invalid."""
    value = float(text)
    if not 0 < value <= SECONDS_MAX:  # nan too
        raise ValueError(text)
    return value
