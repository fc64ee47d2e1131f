"""broadcast_patch(): what changes on a page, said by the server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.db import transaction
from django.utils.safestring import mark_safe

from django_sse_live import abroadcast_patch, broadcast_patch
from django_sse_live.patches import root_elements
from django_sse_live.testing import StreamClient, capture_broadcasts


class TestByHand:
    def test_a_patch_is_an_event_of_its_own_type_without_data(self) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast_patch("a", "append", "list", html=mark_safe('<li id="x">é</li>'))
            broadcast_patch(["a", "b"], "remove", "x", type="gone")
            asyncio.run(abroadcast_patch("a", "refresh", "list"))
        assert [(b.channels, b.type, b.data, b.patch) for b in broadcasts] == [
            (("a",), "patch", None, {"action": "append", "target": "list", "html": '<li id="x">é</li>'}),
            (("a", "b"), "gone", None, {"action": "remove", "target": "x"}),
            (("a",), "patch", None, {"action": "refresh", "target": "list"}),
        ]

    @pytest.mark.parametrize("action", ["append", "prepend", "before", "after", "replace", "update"])
    def test_each_action_with_markup_takes_a_template_too(self, action: Any) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast_patch("a", action, "x", template="testapp/identified.html", context={"name": "<b>"})
        assert broadcasts[0].patch == {"action": action, "target": "x", "html": '<li id="one">&lt;b&gt;</li>\n'}

    @pytest.mark.django_db(transaction=True)
    def test_it_waits_for_the_commit_as_broadcast_does(self) -> None:
        with capture_broadcasts() as broadcasts:
            with transaction.atomic():
                broadcast_patch("a", "remove", "x")
                broadcast_patch("a", "remove", "y", on_commit=False)
                assert [b.patch["target"] for b in broadcasts if b.patch] == ["y"]
            assert len(broadcasts) == 2

    async def test_the_envelope_brings_it_and_the_named_form_does_not(self, settings: Any) -> None:
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}
        async with (
            StreamClient().stream("/events/", {"channel": "news", "format": "envelope"}) as envelope,
            StreamClient().stream("/events/", {"channel": "news"}) as named,
        ):
            await envelope.next()  # connected
            await abroadcast_patch("news", "remove", "x")
            assert (await envelope.next()).data == {
                "type": "patch",
                "channels": ["news"],
                "data": None,
                "patch": {"action": "remove", "target": "x"},
                "spread": 60,
            }
            event = await named.next()
            assert (event.type, event.data) == ("patch", None)


class TestBadCalls:
    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            (("add", "x"), {"html": ""}, r"'add'.*'append'"),
            (("append", "x"), {}, "html=… or template=…"),
            (("append", "x"), {"html": "", "template": "testapp/identified.html"}, "one of them"),
            (("append", "x"), {"html": "<li>no id</li>"}, r'without an id.*<li id="…">'),
            (("prepend", "x"), {"html": '<li id="a"></li>text'}, r"without an id \(text\)"),
            (("before", "x"), {"html": '<li id="a"></li><li></li>'}, "without an id"),
            (("after", "x"), {"html": '<li id="a"><b>'}, "ends early: <b> is not closed"),
            (("append", "x"), {"html": '<li id="a'}, "ends early"),
            (("append", "x"), {"html": 7}, "html must be a str, not int"),
            (("append", "x"), {"html": '<li id="a"></li>', "context": {}}, "context is for a template"),
            (("remove", "x"), {"html": ""}, "takes no markup"),
            (("remove", 7), {}, r"a str, not int: 7"),
            (("remove", "#x"), {}, r'without "#"'),
            (("remove", "x y"), {}, "white space"),
            (("remove", ""), {}, "id of an element"),
            (("remove", "x"), {"type": "patched"}, "reserved"),
        ],
    )
    def test_each_says_what_is_wrong(self, arguments: Any, options: dict[str, Any], message: str) -> None:
        with pytest.raises((TypeError, ValueError), match=message):
            broadcast_patch("a", *arguments, **options)

    def test_an_update_may_have_text(self) -> None:
        broadcast_patch("a", "update", "x", html="7 & <b>no id</b>")


class TestRoots:
    @pytest.mark.parametrize(
        ("html", "roots"),
        [
            ('<li id="a">x<br><img src="x"></li>', [("li", "a")]),
            ("\n<!-- c --><li id=a><p>one<p>two</li> <li>b", [("li", "a"), ("li", None)]),
            ('<tr id="r"><td>1<td>2', [("tr", "r")]),
            ('<svg id="s"><circle r="1"/><path d=""/></svg>', [("svg", "s")]),
            ('<div id="a"><script>if (1 < 2) "<p>"</script></div>', [("div", "a")]),
            ("a &amp; b", [("text", None)]),
            ("", []),
        ],
    )
    def test_are_found_as_a_browser_finds_them(self, html: str, roots: list[tuple[str, str | None]]) -> None:
        assert root_elements(html) == roots
