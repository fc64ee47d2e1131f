"""within(): waits for foreign code, and returns at once when cancelled, whatever that code does.

Client libraries sometimes turn a cancellation into a timeout or a broken connection of their own. Before Python 3.12,
asyncio.wait_for() loses one that comes together with the result. Code that retries after an error would then go on for
ever, and the loop that waits for its tasks would never close.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

CANCEL_AGAIN_SECONDS: Final = 1.0  # a cancelled task that still runs after this has lost the cancellation
Result = TypeVar("Result")


async def within(seconds: float | None, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``, within so many seconds; None: no limit. Raises asyncio.TimeoutError if it takes longer.

    A cancellation leaves this function at once. The work is cancelled too, again and again until it ends.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task], timeout=seconds)
    finally:
        if not task.done():
            task.add_done_callback(_look_at)
            _cancel(task)
    if not task.done():
        raise asyncio.TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


def _cancel(task: asyncio.Task[Any]) -> None:
    if task.cancel():
        task.get_loop().call_later(CANCEL_AGAIN_SECONDS, _cancel, task)


def _look_at(task: asyncio.Task[Any]) -> None:
    """Retrieve the task's exception: otherwise asyncio logs that nobody did."""
    if not task.cancelled():
        task.exception()
