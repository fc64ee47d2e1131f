"""Waiting for something to be true."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 60, *, say: Callable[[], Any] | str = "") -> Any:
    """Wait until ``condition()``, or what it gives when awaited, is true, and give that.

    AssertionError after ``seconds``, with what ``say`` says.
    """
    deadline = time.monotonic() + seconds
    pause = 0.005
    while True:
        value = condition()
        if isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            words = say() if callable(say) else say
            raise AssertionError(f"Not within {seconds:g} s: {words or condition}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)
