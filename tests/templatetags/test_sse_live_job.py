"""What `{% sse_live_job %}` draws: how a job stands, exactly; and the element that hears it, where more may come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.template import Context, Template
from django.test import RequestFactory

from django_sse_live import start_job
from tests.jobs.conftest import *  # noqa: F403


class Drawn(HTMLParser):
    """Elements by their tag, with their attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.parts: dict[str, tuple[dict[str, str], str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if part := attributes.get("data-job"):
            self.parts[part] = (attributes, "")

    def handle_endtag(self, tag: str) -> None:
        self.elements.append(("", {}))

    def handle_data(self, data: str) -> None:
        part = self.elements[-1][1].get("data-job") if self.elements else None
        if part:
            self.parts[part] = (self.parts[part][0], self.parts[part][1] + data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def jobs() -> Iterator[list[Any]]:
    """What a test has begun ends with it."""
    begun: list[Any] = []
    yield begun
    for job in begun:
        job.cancel()


def draw(template: str, user: Any = None, **context: Any) -> Drawn:
    request = RequestFactory().get("/")
    request.user = user or AnonymousUser()
    return Drawn(Template("{% load sse_live %}" + template).render(Context({"request": request, **context})))


def begin(jobs: list[Any], **options: Any) -> Any:
    jobs.append(start_job(**options))
    return jobs[-1]


def test_nothing_is_drawn_for_no_job() -> None:
    assert draw("{% sse_live_job job %}", job=None).html == ""


@pytest.mark.parametrize("job", ["1" * 32, 7, User()])
def test_what_is_no_job_is_told_where_jobs_come_from(job: Any) -> None:
    with pytest.raises(TypeError, match=r"draws what start_job\(\) or find_job\(\) gives, not"):
        draw("{% sse_live_job job %}", job=job)


def test_the_text_is_drawn_as_text_and_to_the_letter(jobs: list[Any]) -> None:
    job = begin(jobs)
    job.write("\n<b>1</b>\r\n\x00\ud800é")
    html = draw("{% sse_live_job job %}", job=job).html
    found = re.search(r"<pre[^>]*>(.*?)</pre>", html, re.DOTALL)
    assert found and found[1] == "\n\n&lt;b&gt;1&lt;/b&gt;&#13;\n\ufffd\ufffdé"


def test_a_job_that_runs_is_heard_through_the_stream_of_the_page(jobs: list[Any]) -> None:
    job = begin(jobs)
    job.progress(0.4, "Parsing")
    drawn = draw('{% sse_live "comments" share=True %}{% sse_live_job job %}', job=job)
    page, own = drawn.all("sse-live")
    assert own["channels"] == job.channel and own["job-src"].endswith("/sse-live-job.js") and "hidden" in own
    assert (own["src"], own["share"]) == (page["src"], page["share"])
    assert len(drawn.all("script")) == 1
    assert drawn.parts["status"][1] == "Running…" and drawn.parts["label"][1] == "Parsing"
    assert drawn.parts["progress"][0]["value"] == "0.4" and "hidden" not in drawn.parts["progress"][0]


def test_a_job_alone_brings_the_script_and_the_light(jobs: list[Any]) -> None:
    drawn = draw("{% sse_live_job job %}", job=begin(jobs))
    (own,) = drawn.all("sse-live")
    assert "hidden" not in own and len(drawn.all("script")) == 1


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_what_has_ended_is_shown_and_costs_no_channel(jobs: list[Any], end: str) -> None:
    job = begin(jobs)
    job.write("Whole.")
    job.finish() if end == "finish" else job.fail("Empty.")
    drawn = draw("{% sse_live_job job %}", job=job)
    assert drawn.all("sse-live") == drawn.all("script") == []
    assert drawn.parts["text"][1].strip() == "Whole." and "hidden" in drawn.parts["progress"][0]
    if end == "fail":
        assert drawn.parts["error"][1] == "Empty." and "hidden" not in drawn.parts["error"][0]


@pytest.mark.django_db
def test_stop_is_the_owners_or_whoever_the_page_says(jobs: list[Any]) -> None:
    owner, other = User.objects.create_user("otter"), User.objects.create_user("heron")
    job = begin(jobs, owner=owner)
    for user, argument, may in [
        (owner, "", True),
        (owner, "stop=False", False),
        (other, "", False),
        (None, "stop=True", True),
    ]:
        drawn = draw("{% sse_live_job job " + argument + " %}", user, job=job)
        assert ("may-stop" in drawn.all("sse-live-job")[0]) == ("stop" in drawn.parts) == may
        assert ("csrf-token" in drawn.all("sse-live")[0]) == may
