from __future__ import annotations

import pytest

from django_sse_live.backends.outage import Outage


@pytest.mark.parametrize(("error", "said"), [(OSError("refused"), "refused"), (TimeoutError(), "TimeoutError")])
def test_the_log_says_why_the_bus_is_lost(error: Exception, said: str, caplog: pytest.LogCaptureFixture) -> None:
    Outage("a bus").fails("a part", error)
    assert f"SSE bus lost (a bus): {said}. Streams" in caplog.text
