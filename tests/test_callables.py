"""What is asked of the project's functions where they are given."""

from __future__ import annotations

import sys
from functools import partial, wraps
from operator import attrgetter
from typing import Any
from unittest.mock import Mock

import pytest

from django_sse_live.callables import check_sync, signature_of, takes


def with_an_argument_more(function: Any) -> Any:
    @wraps(function)
    def inner(instance: Any) -> Any:
        return function(instance, "more")

    return inner


class Slotted:
    """Called as some middleware is, such as Sentry's."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = lambda instance: None


class Asked:
    async def __call__(self, instance: Any) -> None: ...

    def named(self, instance: Any, *, deep: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("function", "is_right"),
    [
        (lambda instance: None, True),
        (lambda *args: None, True),
        (lambda instance, action="created": None, True),
        (lambda: None, False),
        (lambda instance, action: None, False),
        (lambda instance, *, action: None, False),
        (partial(lambda action, instance: None, "created"), True),
        (Slotted(), True),
        (Asked().named, True),
        (Asked.named, False),
        (Mock(), True),
        (with_an_argument_more(lambda instance, more: None), True),
        (attrgetter("slug"), True),
        ("post.{0.pk}".format, True),
        (str, True),  # Python knows no signature, or one that takes it
    ],
)
def test_whether_a_function_takes_one_argument(function: Any, is_right: bool) -> None:
    assert takes(function, "instance") is is_right


@pytest.mark.parametrize("function", [Asked(), Asked().__call__, partial(Asked().__call__)])
def test_a_coroutine_function_is_told_from_a_sync_one(function: Any) -> None:
    with pytest.raises(TypeError, match=r"^channel must be a sync function \(instance\)"):
        check_sync("channel", function, "instance")


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated where they stand")
def test_an_annotation_that_is_known_to_type_checkers_alone() -> None:
    names: dict[str, Any] = {}
    exec(compile("def shown(instance: Nowhere) -> Nowhere: ...", "<test>", "exec", dont_inherit=True), names)
    assert takes(names["shown"], "instance")
    assert list(signature_of(names["shown"]).parameters) == ["instance"]  # type: ignore[union-attr]
