"""Whatever calls itself a token: only what was signed here, unchanged, opens anything."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from django_sse_live import sign_channels
from django_sse_live.events import RESERVED_PREFIX
from django_sse_live.http.refusals import Refused
from django_sse_live.http.tokens import grant
from tests.fuzz.conftest import fuzz

# Those that sign_channels() takes. Hypothesis also tries strings of the code, such as the reserved prefix.
channel_names = st.text(st.characters(blacklist_categories=("Cc", "Cs")), min_size=1, max_size=60).filter(
    lambda name: not name.startswith(RESERVED_PREFIX) and ", " not in name
)


@fuzz(0.05, 100)
@given(channels=st.lists(channel_names, min_size=1, max_size=10))
def test_what_was_signed_is_what_is_granted(channels: list[str], outcomes: Counter[str]) -> None:
    granted, fresh = grant([sign_channels(channels)], None, "")[:2]
    assert granted == list(dict.fromkeys(channels))
    (token,) = fresh
    assert grant([token], None, "").channels == granted
    outcomes["signed, granted"] += 1


@st.composite
def changes(draw: st.DrawFn) -> tuple[int, int, str]:
    """Cut these characters out, put those in."""
    start = draw(st.integers(0, 400))
    return start, draw(st.integers(start, 420)), draw(st.text(max_size=10))


@fuzz(0.2, 400)
@given(channels=st.lists(channel_names, min_size=1, max_size=10), change=changes())
def test_a_changed_token_grants_nothing(
    channels: list[str], change: tuple[int, int, str], outcomes: Counter[str]
) -> None:
    token = sign_channels(channels)
    start, end, replacement = change
    changed = token[:start] + replacement + token[end:]
    try:
        grant([changed], None, "")
    except Refused as refused:
        assert (refused.status, refused.error) == (403, "token_invalid")
        outcomes["changed, refused"] += 1
    else:
        assert changed == token
        outcomes["not changed after all"] += 1


@fuzz(0.05, 200)
@given(token=st.text(max_size=200))
def test_any_text(token: str, outcomes: Counter[str]) -> None:
    try:
        grant([token], None, "")
    except Refused as refused:
        assert refused.error == "token_invalid"
        outcomes["any text, refused"] += 1
    else:
        raise AssertionError(token)
