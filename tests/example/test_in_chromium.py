"""The example in a real browser."""

from __future__ import annotations

import time

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
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A server that is restarted refuses connections, and a message may be refused: that is no fault of the page's.
    expected = ("net::ERR_", "status of 400")
    assert [text for text in complaints if not any(part in text for part in expected)] == []


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


def test_two_windows_see_each_other_writing_and_not_themselves(open_page):
    one, other = open_page(), open_page()
    log_in(one, "otter")
    log_in(other, "heron")
    for page in (one, other):
        wait_until_live(page)
        page.locator("[name=text]").press_sequentially("Half a thought")
    one.get_by_text("heron is writing…").wait_for()
    other.get_by_text("otter is writing…").wait_for()
    assert "otter" not in one.locator("#writing").inner_text()
    for page in (one, other):
        page.locator("#writing:empty").wait_for(state="attached")


def test_a_comment_is_sent_without_a_page_load_and_one_that_is_refused_shows_why(open_page):
    page = open_page()
    wait_until_live(page)
    page.evaluate("window.isSame = true")
    write(page, "As somebody else.", author="otter")
    page.get_by_role("alert").get_by_text("That is the name of a user.").wait_for()
    assert page.input_value("[name=text]") == "As somebody else."
    write(page, "As myself.", author="a visitor")
    page.locator("#comments").get_by_text("As myself.").wait_for()
    page.locator("#refusal:empty").wait_for(state="attached")
    assert page.evaluate("window.isSame") is True
    page.locator("#comments").get_by_role("link", name="UTC").first.click()
    page.get_by_role("button", name="Delete").wait_for()  # who wrote it may change it


def test_a_double_click_sends_a_comment_once(open_page):
    page = open_page()
    wait_until_live(page)
    page.fill("[name=author]", "a visitor")
    page.fill("[name=text]", "Once is enough.")
    page.dblclick("#write button")
    write(page, "And another.")
    page.locator("#comments").get_by_text("And another.").wait_for()
    assert page.locator("#comments").get_by_text("Once is enough.").count() == 1


def test_a_comment_that_is_changed_and_deleted_is_so_in_the_other_window(open_page):
    writer, other = open_page(), open_page()
    wait_until_live(other)
    write(writer, "First thought.", author="a visitor")
    other.get_by_text("First thought.").wait_for()
    other.fill("[name=text]", "half a thought")
    place = other.locator("#comments > li").count()

    writer.locator("#comments > li", has_text="First thought.").locator("a:has(time)").click()
    detail = open_page(writer.url.replace(writer.evaluate("location.origin"), ""))
    wait_until_live(detail)
    writer.fill("[name=text]", "Second thought.")
    writer.get_by_role("button", name="Save").click()
    for page in (other, detail):
        page.get_by_text("Second thought.").wait_for()
        assert page.get_by_text("First thought.").count() == 0
    assert other.locator("#comments > li").count() == place

    writer.get_by_role("button", name="Delete").click()
    for page in (other, detail):
        page.get_by_text("Second thought.").wait_for(state="detached")
    detail.get_by_text("This comment has been deleted.").wait_for()
    assert other.input_value("[name=text]") == "half a thought"


def test_a_mention_is_shown_to_the_one_who_is_meant(open_page):
    otter, writer = open_page(), open_page()
    log_in(otter, "otter")
    wait_until_live(otter)
    write(writer, "@otter, this one is yours.", author="a visitor")
    mention = otter.locator("#mentions").get_by_text("@otter, this one is yours.")
    mention.wait_for()

    writer.locator("#comments > li", has_text="this one is yours").locator("a:has(time)").click()
    writer.get_by_role("button", name="Delete").click()
    mention.wait_for(state="detached")


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
    page.get_by_text("While you slept.").wait_for(timeout=90_000)
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
        tab.set_default_timeout(60_000)
        tab.goto("/")
        wait_until_live(tab)
        tabs.append(tab)

    def streams():
        return int(example.log.read_text().rpartition("Total clients: ")[2].split()[0])

    deadline = time.monotonic() + 90
    while streams() != 1 and time.monotonic() < deadline:  # the server may hear late that an earlier page has gone
        first.wait_for_timeout(100)
    assert streams() == 1, "one stream for twelve tabs"

    write(tabs[5], "In all of them.", author="a visitor")
    for tab in tabs:
        tab.get_by_text("In all of them.").wait_for()
        assert tab.get_by_text("In all of them.").count() == 1


def ask(page, question):
    page.fill("[name=question]", question)
    page.get_by_role("button", name="Answer", exact=True).click()
    page.locator("sse-live-job[state=running]").wait_for()


def words_of(page):
    return page.locator("[data-job=text]").text_content().split()


def test_an_answer_goes_on_over_a_reload_and_in_a_second_tab_and_is_whole(open_page):
    page = open_page()
    ask(page, "Do otters dream?")
    page.get_by_text("dream? Otters").wait_for()
    before = words_of(page)
    page.reload()
    other = page.context.new_page()
    other.goto(page.url)
    for each in (page, other):
        each.locator("sse-live-job[state=finished]").wait_for(timeout=90_000)
        assert len(words_of(each)) == 200
        assert words_of(each)[: len(before)] == before
    page.reload()
    assert words_of(page) == words_of(other)
    assert page.locator("sse-live").count() == 1


def test_an_answer_is_stopped_from_either_tab_and_another_begins(open_page):
    page = open_page()
    ask(page, "Do herons?")
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Stop").click()
    for each in (page, other):
        each.locator("sse-live-job[state=cancelled]").wait_for()
        each.get_by_role("status").get_by_text("Stopped").wait_for()
        assert each.get_by_role("button", name="Stop").count() == 0
    assert len(words_of(page)) < 200
    ask(page, "And now?")
    page.get_by_text("You asked: And now?").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator("sse-live-job[state=cancelled]").wait_for()
