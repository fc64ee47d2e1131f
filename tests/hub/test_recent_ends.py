"""Which clients were told to end a moment ago: asked for those that were checked before and open after."""

from __future__ import annotations

import pytest

from django_sse_live.hub.client_info import ClientInfo
from django_sse_live.hub.recent_ends import CONDITIONS_MAX, KEYS_MAX, REMEMBERED_SECONDS, RecentEnds

ADA = ClientInfo(("a", "b"), user_pk="1", session="s1", auth="old")
EVE = ClientInfo(("b",), user_pk="2", session="s2")


def ends(*conditions: dict[str, str], at: float = 10.0) -> RecentEnds:
    made = RecentEnds()
    for each in conditions:
        made.add(at, each)
    return made


@pytest.mark.parametrize(
    "conditions",
    [
        {"user_pk": "1"},
        {"session": "s1"},
        {"channel": "a"},
        {"client_id": ADA.id},
        {"user_pk": "1", "channel": "b"},
        {"user_pk": "1", "not_auth": "new"},
    ],
)
def test_an_end_concerns_who_was_checked_before_it_and_no_other(conditions: dict[str, str]) -> None:
    found = ends(conditions)
    assert found.concern(ADA, 9.0) and found.concern(ADA, 10.0)
    assert not found.concern(ADA, 10.1)
    assert not found.concern(EVE, 9.0)


def test_every_condition_counts() -> None:
    assert not ends({"user_pk": "1", "channel": "c"}).concern(ADA, 9.0)
    assert not ends({"user_pk": "1", "not_auth": "old"}).concern(ADA, 9.0)


def test_many_ends_of_one_user_are_few_and_send_no_other_away() -> None:
    found = RecentEnds()
    for number in range(20_000):
        found.add(10.0, {"user_pk": "1", "not_auth": f"hash-{number}"})
    assert len(found._by_key) == 1 and len(found._by_key["user_pk", "1"]) <= CONDITIONS_MAX
    assert found.concern(ADA, 9.0) and not found.concern(EVE, 9.0)


def test_the_same_end_again_is_as_new_as_the_last() -> None:
    found = ends({"user_pk": "1"}, at=10.0)
    found.add(20.0, {"user_pk": "1"})
    assert found.concern(ADA, 15.0)


def test_what_is_too_old_is_forgotten_and_who_was_checked_before_is_checked_again() -> None:
    found = ends({"user_pk": "1"}, at=10.0)
    found.add(10.0 + REMEMBERED_SECONDS + 1, {"user_pk": "3"})
    assert list(found._by_key) == [("user_pk", "3")]
    assert found.concern(EVE, 10.0)  # nobody knows any more what has ended since
    assert not found.concern(EVE, 10.1)


def test_the_number_of_keys_is_bounded() -> None:
    found = RecentEnds()
    for number in range(KEYS_MAX):
        found.add(10.0, {"client_id": f"other-{number}"})
    assert not found.concern(EVE, 9.0)
    found.add(11.0, {"client_id": "one more"})
    assert len(found._by_key) == KEYS_MAX
    assert found.concern(EVE, 10.0) and not found.concern(EVE, 10.1)


def test_conditions_that_are_not_known_are_refused_and_not_kept() -> None:
    found = RecentEnds()
    for unknown in ({"device": "x"}, {"user_pk": "1", "device": "x"}, {"not_auth": "x"}, {}):
        with pytest.raises(ValueError, match="Unknown conditions"):
            found.add(1.0, unknown)
    assert not found.concern(ADA, 0.5)
