"""docs/security.md says what is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text()


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`(tests/[^`]+)`", TEXT))))
def test_each_test_that_is_named_exists(reference: str) -> None:
    path, _, name = reference.partition("::")
    assert (ROOT / path).exists()
    if name:
        assert re.search(rf"def {name}\(", (ROOT / path).read_text())


def test_the_example_for_native_clients_is_the_tested_one() -> None:
    pytest.importorskip("rest_framework", reason="needs djangorestframework")
    from tests.access.test_rest_framework import NativeEventStreamView

    source = re.sub(r"  # type: ignore\S*", "", inspect.getsource(NativeEventStreamView))
    assert f"```python\n{source}```" in TEXT


def test_each_word_of_a_refusal_is_in_the_code() -> None:
    code = "".join(path.read_text() for path in (ROOT / "django_sse_live/http").glob("*.py"))
    words = set(re.findall(r"\| \d{3} `(\w+)`", TEXT))
    assert len(words) > 10
    for word in words:
        assert f'"{word}"' in code
