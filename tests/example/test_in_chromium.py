"""The example in a real browser."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("chromium")


@pytest.fixture
def open_page(chromium, example):
    """Opens a path in a window of its own (its own cookies), and fails the test for whatever the page complains of."""
    contexts, complaints = [], []

    def open_page(path="/", **options):
        context = chromium.new_context(base_url=example.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A server that is restarted refuses connections: that is no fault of the page's.
    assert [text for text in complaints if "net::ERR_" not in text] == []


def log_in(page, name):
    page.goto("/login/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", name)
    page.click("main button")
    page.wait_for_url("**/")


def wait_until_live(page):
    page.locator("sse-live[state=connected]").wait_for()


def write(page, text, author=None):
    if author:
        page.fill("[name=author]", author)
    page.fill("[name=text]", text)
    page.click("#write button")


def test_a_comment_appears_in_the_other_window_once(open_page):
    one, other = open_page(), open_page()
    wait_until_live(one)
    wait_until_live(other)
    other.fill("[name=text]", "half a thought")

    write(one, "Seen from afar.", author="a visitor")

    for page in (one, other):
        page.get_by_text("Seen from afar.").wait_for()
        assert page.get_by_text("Seen from afar.").count() == 1
    assert other.locator("#comments > li").first.inner_text().endswith("Seen from afar.")
    assert other.input_value("[name=text]") == "half a thought"


def test_an_event_that_the_page_already_shows_changes_nothing(open_page):
    page = open_page()
    wait_until_live(page)
    before = page.locator("#comments > li").count()
    page.evaluate(
        """() => {
          const html = document.querySelector("#comments > li").outerHTML;
          document.dispatchEvent(new CustomEvent("sse:new_comment", {detail: {data: {html}}}));
        }"""
    )
    assert page.locator("#comments > li").count() == before


def test_a_mention_is_shown_to_the_one_who_is_meant(open_page):
    otter, writer = open_page(), open_page()
    log_in(otter, "otter")
    wait_until_live(otter)
    write(writer, "@otter, this one is yours.", author="a visitor")
    otter.locator("#mentions").get_by_text("@otter, this one is yours.").wait_for()


def test_without_javascript_the_board_is_a_board(open_page):
    page = open_page(java_script_enabled=False)
    write(page, "No script ran for this.", author="a visitor")
    page.locator("#comments").get_by_text("No script ran for this.").wait_for()


def test_the_admin_works_under_the_same_policy_and_reaches_the_page(open_page):
    page, admin = open_page(), open_page()
    wait_until_live(page)
    log_in(admin, "admin")
    admin.goto("/admin/board/comment/add/")
    admin.fill("[name=author]", "admin")
    admin.fill("[name=text]", "Written behind the scenes.")
    admin.click("[name=_save]")
    page.get_by_text("Written behind the scenes.").wait_for()

    admin.locator("#result_list").get_by_role("link", name="admin").first.click()
    admin.fill("[name=text]", "Corrected behind the scenes.")
    admin.click("[name=_save]")
    page.get_by_text("Corrected behind the scenes.").wait_for()
    assert page.get_by_text("Written behind the scenes.").count() == 0

    admin.locator("#result_list").get_by_role("link", name="admin").first.click()
    admin.click("a.deletelink")
    admin.click("#content form [type=submit]")
    page.get_by_text("Corrected behind the scenes.").wait_for(state="detached")


def test_after_a_restart_the_page_fetches_what_it_missed(open_page, example, request):
    page = open_page()
    wait_until_live(page)
    example.stop()
    request.addfinalizer(lambda: example.process or example.start())
    page.locator("sse-live:not([state=connected])").wait_for()
    save = "from board.models import Comment; Comment.objects.create(author='night', text='While you slept.')"
    example.manage("shell", "-c", save)
    example.start()
    page.get_by_text("While you slept.").wait_for(timeout=40_000)
    wait_until_live(page)


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_page_is_wider_than_its_window(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    for path in ("/", "/login/"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_twelve_tabs_are_live_over_one_stream(open_page, example):
    # HTTP/1.1 gives a browser six connections to a host: without sharing, the seventh tab would never load.
    first = open_page()
    wait_until_live(first)
    tabs = [first]
    for _ in range(11):
        tab = first.context.new_page()
        tab.set_default_timeout(15_000)
        tab.goto("/")
        wait_until_live(tab)
        tabs.append(tab)
    lines = example.log.read_text().splitlines()
    opened = sum("SSE client connected" in line for line in lines)
    closed = sum("SSE client disconnected" in line for line in lines)
    assert opened - closed == 1, "one stream for twelve tabs"

    write(tabs[5], "In all of them.", author="a visitor")
    for tab in tabs:
        tab.get_by_text("In all of them.").wait_for()
        assert tab.get_by_text("In all of them.").count() == 1
