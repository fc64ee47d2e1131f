from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

INPUTS = int(os.environ.get("SSE_LIVE_FUZZ_INPUTS", "0"))  # 0: the short form, the same inputs each time

settings.register_profile(
    "fuzz",
    deadline=None,
    database=None,
    derandomize=not INPUTS,
    suppress_health_check=list(HealthCheck),
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def fuzz(share: float, short: int) -> settings:
    """A test's part of the inputs: ``share`` of the long form, or ``short`` of the short one."""
    return settings(settings.get_profile("fuzz"), max_examples=int(INPUTS * share) if INPUTS else short)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a coroutine to its end, which must come within ten seconds; all on one loop."""
    loop = asyncio.new_event_loop()
    yield lambda coroutine: loop.run_until_complete(asyncio.wait_for(coroutine, 60))
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Counts what became of the inputs, and says so at the end."""
    counter: Counter[str] = Counter()
    yield counter
    print(f"\n{request.module.__name__}: {sum(counter.values()):,} inputs")
    for outcome, count in counter.most_common():
        print(f"  {count:>8,}  {outcome}")
