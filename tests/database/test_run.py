"""The randomised run, as short as CI has it: python -m tests.database."""

from __future__ import annotations

import pytest

from tests.database.__main__ import SHORT, run


@pytest.mark.timeout(280)
def test_whatever_happens_each_event_is_heard_once_and_in_one_order(kind: str) -> None:
    print(run(kind, **SHORT))
