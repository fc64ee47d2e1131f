"""What the example shows a visitor, with no browser: forms, the stream, the admin."""

from __future__ import annotations

import re
import time
from html import unescape

import httpx
import pytest

from tests.runserver import ROOT, Runserver


def comment_id(page: str, text: str) -> str:
    """The id of the comment that says `text`, as the page has it."""
    for match in re.finditer(r'<li class="comment" id="comment-(\d+)">(.*?)</li>', page, re.DOTALL):
        if text in unescape(match[2]):
            return match[1]
    raise AssertionError(f"no comment says {text!r}")


def test_the_board_works_without_javascript(visitor):
    reader, writer = visitor(), visitor()
    answer = writer.submit("/", author="a visitor", text="Plain forms are enough.")
    assert (answer.status_code, answer.headers["location"]) == (302, "/")
    assert "Plain forms are enough." in reader.get("/").text


def test_a_form_that_is_not_right_is_shown_again_with_its_errors(visitor):
    answer = visitor().submit("/", author="a visitor", text="")
    assert answer.status_code == 200
    assert "This field is required." in answer.text


def test_nobody_signs_with_the_name_of_a_user(visitor):
    answer = visitor().submit("/", author="Otter", text="It is me.")
    assert "That is the name of a user." in answer.text
    assert "It is me." not in visitor().get("/").text.partition('id="comments"')[2]


def test_who_is_logged_in_signs_with_that_name(visitor):
    visitor().log_in("heron").submit("/", author="somebody else", text="Signed by the server.")
    page = visitor().get("/").text
    assert re.search(r"<b>heron</b>(?:(?!</li>).)*Signed by the server\.", page, re.DOTALL)
    assert "somebody else" not in page


def test_a_saved_comment_is_on_every_open_stream(visitor):
    with visitor().listen() as one, visitor().log_in("heron").listen() as other:
        assert next(one)[0] == next(other)[0] == "connected"
        visitor().submit("/", author="a visitor", text="To all.")
        for stream in (one, other):
            event = next(stream)
            assert (event.type, event.data["author"], event.data["text"]) == ("new_comment", "a visitor", "To all.")


def test_the_event_brings_the_markup_that_the_page_has(visitor):
    with visitor().listen() as stream:
        next(stream)
        visitor().log_in("otter").submit("/", text="<b>Markup</b> & more")
        patch = next(stream).patch
    assert (patch["action"], patch["target"]) == ("prepend", "comments")
    assert "&lt;b&gt;Markup&lt;/b&gt; &amp; more" in patch["html"]
    for page in (visitor().get("/"), visitor().log_in("admin").get("/")):
        assert patch["html"].strip() in page.text


def test_who_wrote_a_comment_may_change_and_delete_it_and_nobody_else(visitor):
    writer, other, admin = visitor(), visitor().log_in("heron"), visitor().log_in("admin")
    writer.submit("/", author="a visitor", text="I shall think better of it.")
    number = comment_id(writer.get("/").text, "I shall think better of it.")
    path, id = f"/{number}/", f"comment-{number}"
    token = re.search(r'csrfmiddlewaretoken" value="(\w+)"', other.get("/").text)[1]
    for fields in ({"text": "By a stranger."}, {"delete": ""}):
        assert other.post(path, data={**fields, "csrfmiddlewaretoken": token}).status_code == 403
    with visitor().listen() as stream:
        next(stream)
        assert "This field is required." in writer.submit(path, text="").text
        assert writer.submit(path, text="I did.").headers["location"] == path
        event = next(stream)
        assert (event.type, event.patch["action"], event.patch["target"]) == ("comment_updated", "replace", id)
        assert "I did." in event.patch["html"]
        assert "a visitor" in admin.get(path).text
        admin.submit(path, text="The admin did.")
        assert "a visitor" in next(stream).patch["html"]
        assert writer.submit(path, delete="").headers["location"] == "/"
        event = next(stream)
        assert (event.type, event.patch) == ("comment_deleted", {"action": "remove", "target": id, "id": id})
    assert visitor().get(path).status_code == 404


def test_a_mention_is_a_notification_for_that_user_alone(visitor):
    with visitor().log_in("otter").listen() as otter, visitor().log_in("heron").listen() as heron:
        next(otter), next(heron)
        visitor().submit("/", author="a visitor", text="Hello @otter, are you there?")
        visitor().submit("/", author="a visitor", text="And this is for nobody.")
        events = [next(otter) for _ in range(3)]
        assert [event.type for event in events] == ["new_comment", "notification", "new_comment"]
        assert events[1].patch == {"action": "refresh", "target": "mentions"}
        assert [next(heron).type for _ in range(2)] == ["new_comment", "new_comment"]
    assert "Hello @otter" in visitor().log_in("otter").get("/").text.partition('id="write"')[0]
    assert "Hello @otter" not in visitor().log_in("heron").get("/").text.partition('id="write"')[0]


def test_a_mention_that_changes_or_goes_is_told_to_whom_it_concerned(visitor):
    with visitor().log_in("otter").listen() as otter, visitor().log_in("heron").listen() as heron:
        writer = visitor()
        writer.submit("/", author="a visitor", text="Was it you, @otter?")
        path = f"/{comment_id(writer.get('/').text, 'Was it you, @otter?')}/"
        writer.submit(path, text="Was it you, @heron?")
        writer.submit(path, delete="")
        heard = [[next(stream).type for _ in range(count)] for stream, count in ((otter, 6), (heron, 6))]
    assert heard[0] == [
        "connected",
        "new_comment",
        "notification",
        "comment_updated",
        "notification",
        "comment_deleted",
    ]
    assert heard[1] == [
        "connected",
        "new_comment",
        "comment_updated",
        "notification",
        "notification",
        "comment_deleted",
    ]


def test_what_the_admin_saves_changes_and_deletes_is_broadcast(visitor):
    admin = visitor().log_in("admin")
    with visitor().listen() as stream:
        next(stream)
        assert admin.submit("/admin/board/comment/add/", author="admin", text="From the admin.").status_code == 302
        event = next(stream)
        assert (event.type, event.data["text"]) == ("new_comment", "From the admin.")

        number = comment_id(visitor().get("/").text, "From the admin.")
        admin.submit(f"/admin/board/comment/{number}/change/", author="admin", text="Changed in the admin.")
        event = next(stream)
        assert (event.type, event.data["id"], event.data["text"]) == (
            "comment_updated", int(number), "Changed in the admin.",
        )  # fmt: skip

        admin.submit(f"/admin/board/comment/{number}/delete/", post="yes")
        event = next(stream)
        assert (event.type, event.data["id"], event.patch["action"]) == ("comment_deleted", int(number), "remove")


def test_a_reply_is_a_link_that_fills_in_the_form(visitor):
    page = visitor().get("/").text
    link = unescape(re.search(r'class="reply" href="([^"]+)"', page)[1])
    assert re.search(r"<textarea[^>]*>\s*@[\w ]+ </textarea>", visitor().get(link.partition("#")[0]).text)


@pytest.mark.parametrize("path", ["/", "/login/", "/events/?channel=comments", "/admin/login/"])
def test_every_answer_forbids_inline_and_foreign_content(example, path):
    with httpx.stream("GET", example.url + path) as response:
        assert response.status_code == 200
        assert response.headers["content-security-policy"].startswith("default-src 'self';")


def test_nothing_in_the_pages_is_inline(visitor):
    for page in (visitor().get("/").text, visitor().log_in("otter").get("/").text, visitor().get("/login/").text):
        assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son\w+=", page)


def test_other_channels_are_closed(example):
    assert httpx.get(example.url + "/events/?channel=user:1").status_code == 403
    assert httpx.get(example.url + "/events/?channel=secrets").status_code == 403


def test_to_seed_again_changes_nothing(example, visitor):
    before = visitor().get("/").text.count('class="comment"')
    example.manage("seed")
    assert visitor().get("/").text.count('class="comment"') == before


@pytest.mark.parametrize(
    "shown", [{"EXAMPLE_HOSTS": "127.0.0.1"}, {"EXAMPLE_ADDRESS": "0.0.0.0"}], ids=["hosts", "all"]
)
def test_what_is_shown_to_others_has_no_password_or_key_that_everybody_knows(tmp_path, shown):
    project = ROOT / "example_project"
    database = str(tmp_path / "db.sqlite3")
    Runserver("config.settings", tmp_path, project=project, EXAMPLE_DATABASE=database).manage("seed")
    example = Runserver("config.settings", tmp_path, project=project, EXAMPLE_DATABASE=database, **shown)
    passwords = re.search(r"passwords: otter (\S+), heron (\S+), admin (\S+)\.", example.manage("seed"))
    assert passwords and len(passwords[3]) >= 12
    look = "from django.conf import settings as s; print(s.DEBUG, len(s.SECRET_KEY), s.SECRET_KEY)"
    answers = [example.manage("shell", "-v", "0", "-c", look) for _ in range(2)]
    assert answers[0].startswith("False 50 ") and answers[0] != answers[1]
    with_them = "from django.contrib.auth import authenticate as a; print(a(username='admin', password='{}'))"
    assert example.manage("shell", "-v", "0", "-c", with_them.format("admin")).strip() == "None"
    assert example.manage("shell", "-v", "0", "-c", with_them.format(passwords[3])).strip() == "admin"


def test_the_migrations_are_complete(example):
    example.manage("makemigrations", "--check", "--dry-run")


def test_django_has_no_complaint(example):
    example.manage("check", "--fail-level", "WARNING")


def test_without_javascript_an_answer_is_there_when_the_page_is_loaded_again(visitor):
    asker, other = visitor(), visitor()
    page = asker.get("/").text
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    answer = asker.post("/answer/", data={"question": "<b>Why</b>?", "csrfmiddlewaretoken": token[1]})
    assert (answer.status_code, answer.headers["location"]) == (302, "/#answer")
    deadline = time.monotonic() + 90
    while "You asked: &lt;b&gt;Why&lt;/b&gt;?" not in (page := asker.get("/").text):
        assert time.monotonic() < deadline, page
        time.sleep(0.05)
    assert "Running…" in page
    assert "You asked" not in other.get("/").text
