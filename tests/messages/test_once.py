"""Once and not twice: an id that was answered gets the same answer, and its handler does not run again."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.core.exceptions import ValidationError

from django_sse_live import Message, answers
from django_sse_live.backends import running_hub
from django_sse_live.http.message_tasks import Messages
from django_sse_live.hub.registry import process_part
from tests.messages.conftest import Sender

ID = "a" * 32


@pytest.fixture(params=["table", "cache"])
def store(request: Any, settings: Any) -> str:
    if request.param == "cache":
        settings.CACHES = {
            "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"},
            "messages": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": uuid4().hex},
        }
        settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "messages"}
    return request.param


@pytest.fixture
def ran(handle: Any) -> list[Any]:
    ran: list[Any] = []

    @handle("typing")
    def typing(message: Message) -> Any:
        ran.append(message.data)
        if message.data == "bad":
            raise ValueError("Bad.")
        return len(ran)

    return ran


async def test_the_same_id_again_gets_the_same_answer(sender: Sender, store: str, ran: list[Any]) -> None:
    assert [await sender.send(data={"a": 1, "b": 2}, id=ID) for _ in range(3)] == [(200, {"id": ID, "data": 1})] * 3
    assert len(ran) == 1


async def test_the_same_id_in_two_tenants_is_two_messages(
    sender: Sender, store: str, ran: list[Any], settings: Any
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "NAMESPACE": lambda request: request.headers["X-Tenant"]}
    answers = [await sender.send(data=1, id=ID, headers={"X-Tenant": tenant}) for tenant in "aba"]
    assert [answer["data"] for _, answer in answers] == [1, 2, 1]


async def test_the_same_refusal_of_the_handler(sender: Sender, store: str, ran: list[Any]) -> None:
    first, second = [await sender.send(data="bad", id=ID) for _ in range(2)]
    assert first == second == (400, {"error": "invalid", "detail": "Bad."})
    assert len(ran) == 1


async def test_a_handler_whose_error_has_no_text_has_failed_and_does_not_run_on(
    sender: Sender, store: str, handle: Any
) -> None:
    @handle("untold")
    def untold(message: Message) -> None:
        raise ValidationError("%(name)s is taken.", params={"nam": "ada"})

    answers = [await sender.send("untold", id=ID) for _ in range(2)]
    assert [(status, body["error"]) for status, body in answers] == [(500, "server_error")] * 2


@pytest.mark.parametrize("other", [{"data": 2}, {"type": "other"}, {"channel": "room.1"}])
async def test_the_same_id_with_another_body(
    sender: Sender, store: str, ran: list[Any], handle: Any, other: dict[str, Any]
) -> None:
    handle("other")(ran.append)
    await sender.send(data=1, id=ID)
    status, answer = await sender.send(**{"data": 1, "id": ID, **other})
    assert (status, answer["error"], len(ran)) == (422, "other_body", 1)


async def test_the_order_of_keys_and_another_stream_beside_it_make_no_other_body(
    sender: Sender, store: str, ran: list[Any]
) -> None:
    await sender.send(data={"a": 1, "b": 2}, id=ID, client_id="one")
    assert (await sender.send(data={"b": 2, "a": 1}, id=ID, client_id="two"))[0] == 200
    assert len(ran) == 1


async def test_one_that_runs_is_said_to_run(sender: Sender, store: str, handle: Any) -> None:
    may_end, runs = asyncio.Event(), asyncio.Event()

    @handle("slow")
    async def slow(message: Message) -> str:
        runs.set()
        await may_end.wait()
        return "done"

    first = asyncio.ensure_future(sender.send("slow", id=ID))
    await asyncio.wait_for(runs.wait(), 60)
    again = Sender()
    sent = await again.send("slow", id=ID)
    assert (sent[0], sent[1]["error"]) == (409, "running")
    assert again.response["Retry-After"] == "1"
    may_end.set()
    assert (await first)[1]["data"] == "done"
    assert (await sender.send("slow", id=ID))[1]["data"] == "done"


async def test_a_refusal_before_the_handler_is_not_kept(sender: Sender, store: str, handle: Any) -> None:
    assert (await sender.send("late", id=ID))[0] == 404
    handle("late")(lambda message: "here")
    assert (await sender.send("late", id=ID))[0] == 200


async def test_ids_of_two_users_are_two_messages(
    sender: Sender, store: str, ran: list[Any], transactional_db: None
) -> None:
    for name in ("ada", "grace", "ada"):
        user = (await User.objects.aget_or_create(username=name))[0]
        await sender.aforce_login(user)
        await sender.send(data=name, id=ID)
    assert ran == ["ada", "grace"]


async def test_a_visitor_who_has_a_session_by_now_has_not_sent_another_message(
    sender: Sender, store: str, handle: Any, transactional_db: None
) -> None:
    ran: list[Any] = []

    @handle("comment")
    def comment(message: Message) -> int:
        ran.append(message.data)
        return len(ran)

    assert (await sender.send("comment", "a", id=ID))[1]["data"] == 1
    session = await sender.asession()  # the next page has put something into a basket
    session["basket"] = [7]
    await session.asave()
    assert (await sender.send("comment", "a", id=ID))[1]["data"] == 1
    assert (await sender.send("comment", "b", id=ID))[1]["error"] == "other_body"
    assert (await sender.send("comment", "b", id="b" * 32))[1]["data"] == 2
    assert (await sender.send("comment", "b", id="b" * 32))[1]["data"] == 2
    assert ran == ["a", "b"]


async def test_a_session_cookie_that_is_nobodys_makes_no_other_message(
    store: str, ran: list[Any], transactional_db: None
) -> None:
    for cookie in ("x" * 32, "y" * 32):
        sender = Sender()
        sender.cookies["sessionid"] = cookie
        await sender.send(id=ID)
    assert len(ran) == 1


async def test_nor_one_that_is_not_signed(settings: Any, ran: list[Any]) -> None:
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    for cookie in ("x" * 32, "y" * 32):
        sender = Sender()
        sender.cookies["sessionid"] = cookie
        await sender.send(id=ID)
    assert len(ran) == 1


async def test_who_has_sent_it_may_be_gone(sender: Sender, store: str, handle: Any) -> None:
    ran: list[str] = []
    may_end, runs = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @handle("slow")
    def slow(message: Message) -> str:
        loop.call_soon_threadsafe(runs.set)
        assert may_end.wait(60)
        ran.append("to its end")
        return "done"

    first = asyncio.ensure_future(sender.send("slow", id=ID))
    await asyncio.wait_for(runs.wait(), 60)
    first.cancel()
    may_end.set()
    await asyncio.gather(first, return_exceptions=True)
    answer = await Sender().send("slow", id=ID)
    while answer[0] == 409:
        answer = await Sender().send("slow", id=ID)
    assert (answer[1]["data"], ran) == ("done", ["to its end"])


async def test_a_handler_that_the_end_of_its_loop_cuts_off_is_not_run_again(sender: Sender, handle: Any) -> None:
    runs = asyncio.Event()
    ran: list[Any] = []

    @handle("slow")
    async def slow(message: Message) -> None:
        ran.append(message.data)
        runs.set()
        await asyncio.Event().wait()

    first = asyncio.ensure_future(sender.send("slow", id=ID))
    await asyncio.wait_for(runs.wait(), 60)
    for task in running_hub().parts[Messages].tasks:
        task.cancel()
    await asyncio.gather(first, return_exceptions=True)
    status, answer = await Sender().send("slow", id=ID)
    assert (status, answer["error"], len(ran)) == (409, "outcome_unknown", 1)


# The cache


def _keys(*, leases: bool) -> list[str]:
    kept: Any = caches["default"]
    return [key.split(":", 2)[2] for key in kept._cache if key.count(".") == 2 + leases]


async def test_a_lease_that_lapsed_leaves_the_outcome_unknown_for_good(
    sender: Sender, settings: Any, handle: Any
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "default"}
    cache = caches["default"]
    cache.clear()
    ran: list[Any] = []
    handle("typing")(ran.append)
    await sender.send(id=ID)
    key = _keys(leases=False)[0]
    cache.set(key, {"digest": cache.get(key)["digest"], "run": "dead"}, 600)
    for _ in range(2):
        status, answer = await sender.send(id=ID)
        assert (status, answer["error"]) == (409, "outcome_unknown")
        assert "Retry-After" not in sender.response
    assert len(ran) == 1


async def test_the_lease_is_renewed_while_the_handler_runs(
    sender: Sender, settings: Any, handle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "default"}
    monkeypatch.setattr("django_sse_live.http.messages.RENEW_SECONDS", 0)
    renewed = threading.Semaphore(0)
    monkeypatch.setattr(answers.CacheAnswers, "renew", lambda self, key: renewed.release())

    @handle("slow")
    def slow(message: Message) -> bool:
        return renewed.acquire(timeout=60) and renewed.acquire(timeout=60)

    assert (await sender.send("slow"))[1]["data"] is True


def test_a_renewed_message_runs_and_is_known() -> None:
    caches["default"].clear()
    running, other = answers.CacheAnswers("default"), answers.CacheAnswers("default")
    assert running.begin("k", "d") is None
    caches["default"].delete_many(_keys(leases=True))
    found = other.begin("k", "d")
    assert found is not None and not found.is_running
    running.renew("k")
    found = other.begin("k", "d")
    assert found is not None and found.is_running


class Silent(LocMemCache):
    """As memcached behind a client that hides its errors."""

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return False

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return None


class Repeating(LocMemCache):
    """Its client sends again what was not answered: the second time it is there already."""

    def add(self, *args: Any, **kwargs: Any) -> bool:
        super().add(*args, **kwargs)
        return False


class Broken(LocMemCache):
    def set(self, *args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no cache")


class Forgetful(LocMemCache):
    """Away once the handler has run."""

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        if isinstance(value, dict):
            raise ConnectionError("no cache")
        super().set(key, value, *args, **kwargs)


@pytest.mark.parametrize("cache", [Silent, Broken])
async def test_nothing_runs_while_the_cache_cannot_say(
    sender: Sender, settings: Any, ran: list[Any], cache: type, caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.{cache.__name__}", "LOCATION": uuid4().hex}}
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "default"}
    status, answer = await sender.send(id=ID)
    assert (status, answer["error"], ran) == (503, "answers_unavailable", [])
    assert "Retry-After" in sender.response and caplog.text


async def test_what_was_added_to_the_cache_without_an_answer_is_known_again(
    sender: Sender, settings: Any, ran: list[Any]
) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Repeating", "LOCATION": uuid4().hex}}
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "default"}
    assert [(await sender.send(id=ID))[0] for _ in range(2)] == [200, 200]
    assert len(ran) == 1


async def test_an_answer_that_cannot_be_kept_is_given_and_not_run_again(
    sender: Sender, settings: Any, ran: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.Forgetful", "LOCATION": uuid4().hex}}
    settings.SSE_LIVE = {**settings.SSE_LIVE, "MESSAGES_CACHE": "default"}
    assert (await sender.send(id=ID))[0] == 200
    assert (await sender.send(id=ID))[0] == 409
    assert len(ran) == 1


# The table


def test_the_table_knows_what_runs() -> None:
    table = answers.TableAnswers()
    assert table.begin("k", "d") is None
    found = table.begin("k", "other")
    assert found is not None and found.is_running and found.digest == "d"


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "TABLE_MESSAGES_MAX", 10)
    table = answers.TableAnswers()
    for number in range(30):
        assert table.begin(str(number), "d") is None
        table.end(str(number), "d", (200, "1"))
    assert table.begin("29", "d") is not None
    assert table.begin("5", "d") is None
    monkeypatch.setattr(answers, "TABLE_BYTES_MAX", 5000)
    table.end("5", "d", (200, "x" * 4000))
    assert len(table._answered) <= 3 and table._bytes <= 5000


def test_the_table_forgets_after_ten_minutes_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(answers.time, "monotonic", lambda: now[0])
    table = answers.TableAnswers()
    table.begin("k", "d")
    table.end("k", "d", (200, "1"))
    now[0] = 599.0
    assert table.begin("k", "d") is not None
    now[0] = 601.0
    assert table.begin("k", "d") is None
    assert table._bytes == 0


# At random


async def _send_until_answered(id: str, number: int, chance: random.Random) -> Any:
    client = Sender()
    while True:
        sending = asyncio.ensure_future(client.send("count", number, id=id))
        if chance.random() < 0.4:  # the connection breaks somewhere on the way
            for _ in range(chance.randrange(40)):
                await asyncio.sleep(0)
            if not sending.done():
                sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            continue
        status, answer = await sending
        if status == 200:
            return answer["data"]
        assert status in (409, 429, 503), answer
        await asyncio.sleep(0.001)


async def test_whatever_breaks_each_handler_runs_once(store: str, handle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_sse_live.http.message_line.RATE_BURST", 10**9)
    monkeypatch.setattr("django_sse_live.http.message_line.WAITING_PER_SENDER_MAX", 10**6)
    chance = random.Random(15)
    count = int(os.environ.get("SSE_LIVE_MESSAGES", "200"))
    ran: Counter[int] = Counter()

    @handle("count")
    async def handler(message: Message) -> int:
        ran[message.data] += 1
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        return message.data * 2

    for first in range(0, count, 20):
        numbers = range(first, first + 20)
        got = await asyncio.gather(*(_send_until_answered(uuid4().hex, number, chance) for number in numbers))
        assert got == [2 * number for number in numbers]
    assert ran == Counter(range(count))
    assert not process_part(answers.TableAnswers)._running
