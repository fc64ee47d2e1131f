"""broadcast(): from the caller to the backend, after the commit; errors point at the caller."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import DatabaseError, connection, connections, transaction
from django.test import RequestFactory, override_settings

from django_sse_live import (
    abroadcast,
    adisconnect_clients,
    asend_to_user,
    broadcast,
    broadcast_template,
    broadcast_text,
    disconnect_clients,
    send_to_user,
    stream_position,
)
from django_sse_live.backends import get_backend
from django_sse_live.broadcasting import send_event
from django_sse_live.events import Event
from django_sse_live.signals import live_event
from django_sse_live.testing import capture_broadcasts
from tests.testapp.models import Note


class TestAfterCommit:
    @pytest.mark.django_db(transaction=True)
    def test_inside_a_transaction_it_waits_for_the_commit(self) -> None:
        position = stream_position()
        with transaction.atomic():
            broadcast("a", "t")
            assert stream_position() == position
        assert stream_position() != position

    @pytest.mark.django_db(transaction=True)
    def test_a_rolled_back_transaction_sends_nothing(self) -> None:
        position = stream_position()
        with pytest.raises(LookupError), transaction.atomic():
            broadcast("a", "t")
            raise LookupError
        assert stream_position() == position

    @pytest.mark.django_db(transaction=True)
    def test_a_rolled_back_savepoint_sends_nothing(self) -> None:
        with capture_broadcasts() as broadcasts, transaction.atomic():
            broadcast("a", "kept")
            with pytest.raises(LookupError), transaction.atomic():
                broadcast("a", "rolled_back")
                raise LookupError
        assert [b.type for b in broadcasts] == ["kept"]

    @pytest.mark.django_db(transaction=True)
    def test_a_disconnect_waits_for_the_commit_and_keeps_its_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        published: list[str] = []
        monkeypatch.setattr(get_backend(), "publish", lambda event: published.append(event.type))
        with transaction.atomic():
            broadcast("a", "token")
            disconnect_clients(channel="a")
            broadcast("a", "after")
            assert published == []
            disconnect_clients(channel="b", on_commit=False)
            assert published == ["sse.disconnect"]
        assert published[1:] == ["token", "sse.disconnect", "after"]

    @pytest.mark.django_db(transaction=True)
    def test_a_disconnect_in_a_rolled_back_transaction_ends_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        published: list[str] = []
        monkeypatch.setattr(get_backend(), "publish", lambda event: published.append(event.type))
        with pytest.raises(LookupError), transaction.atomic():
            disconnect_clients(user=7)
            raise LookupError
        assert published == []

    @pytest.mark.django_db(transaction=True)
    def test_on_commit_false_sends_now(self) -> None:
        position = stream_position()
        with transaction.atomic():
            broadcast("a", "t", on_commit=False)
            assert stream_position() != position

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_using_waits_for_that_database(self) -> None:
        position = stream_position()
        with transaction.atomic(using="other"):
            with transaction.atomic():
                broadcast("a", "t", using="other")
            assert stream_position() == position
        assert stream_position() != position

    @pytest.mark.django_db(transaction=True)
    def test_without_autocommit_it_says_how_to_send(self) -> None:
        position = stream_position()
        transaction.set_autocommit(False)
        try:
            for send in (lambda: broadcast("a", "t"), lambda: broadcast_text("a", "t", "text")):
                with pytest.raises(transaction.TransactionManagementError, match=r"'default'.*atomic.*on_commit=False"):
                    send()
            assert stream_position() == position
            broadcast("a", "t", on_commit=False)
            assert stream_position() != position
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    @pytest.mark.django_db(transaction=True)
    def test_without_autocommit_a_user_can_still_be_saved(self) -> None:
        transaction.set_autocommit(False)
        try:
            user = User.objects.create_user("someone")
            user.set_password("another")
            user.save()
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)

    def test_outside_a_transaction_it_opens_no_connection(self) -> None:
        # pytest-django refuses database access in a test that does not ask for it.
        position = stream_position()
        broadcast("a", "t")
        assert stream_position() != position

    async def test_from_a_coroutine_both_work(self) -> None:
        position = stream_position()
        broadcast("a", "t")
        assert stream_position() != position
        position = stream_position()
        await abroadcast("a", "t")
        assert stream_position() != position

    @pytest.mark.django_db(transaction=True)
    def test_a_callback_that_fails_does_not_take_the_others_along(self) -> None:
        called = []
        with override_settings(SSE_LIVE={"BACKEND": "tests.test_broadcasting.BrokenBackend"}):
            with transaction.atomic():
                broadcast("a", "t")
                transaction.on_commit(lambda: called.append(1))
        assert called == [1]


from django_sse_live.backends.memory import MemoryBackend  # noqa: E402


class BrokenBackend(MemoryBackend):
    def publish(self, event: object) -> None:
        raise RuntimeError("a backend that breaks its promise")


class EnlistingBackend(MemoryBackend):
    """A bus that has a part in the transaction."""

    def enlist(self, event: Event, using: str) -> Callable[[], None] | None:
        if event.type == "broken":
            raise DatabaseError("the INSERT failed")
        enlisted.append((event.type, using, connections[using].in_atomic_block))
        return lambda: completed.append((event.complete(), event.payload))


enlisted: list[object] = []
completed: list[object] = []


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
class TestABusInTheTransaction:
    @pytest.fixture(autouse=True)
    def backend(self, settings: Any) -> None:
        settings.SSE_LIVE = {"BACKEND": "tests.test_broadcasting.EnlistingBackend"}
        enlisted.clear()
        completed.clear()

    def test_it_is_asked_inside_the_transaction_and_called_after_the_commit(self) -> None:
        position = stream_position()
        with transaction.atomic("other"):
            broadcast("a", "t", 1, using="other")
            assert (enlisted, completed) == ([("t", "other", True)], [])
        assert completed == [(True, "1")]
        assert stream_position() == position, "publishing is the bus's own affair"

    def test_it_is_not_asked_outside_one(self) -> None:
        broadcast("a", "t")
        with transaction.atomic():
            broadcast("a", "t", on_commit=False)
        assert (enlisted, completed) == ([], [])

    def test_after_a_rollback_it_is_not_called(self) -> None:
        with pytest.raises(LookupError), transaction.atomic():
            broadcast("a", "t")
            raise LookupError
        assert completed == []

    def test_what_it_raises_reaches_the_caller(self) -> None:
        with pytest.raises(DatabaseError, match="INSERT"), transaction.atomic():
            broadcast("a", "broken")


class TestCompletedAfterTheCommit:
    @pytest.mark.django_db(transaction=True)
    def test_an_event_gets_its_data_after_the_commit(self) -> None:
        def finish(event: Event) -> bool:
            event.payload = json.dumps({"in_transaction": connection.in_atomic_block})
            return event.type == "sent"

        with capture_broadcasts() as broadcasts:
            with transaction.atomic():
                for type in ("sent", "dropped"):
                    send_event(Event(("a",), type, "null", finish=finish))
                assert broadcasts == []
            send_event(Event(("a",), "dropped", "null", finish=finish))
        assert [(b.type, b.data) for b in broadcasts] == [("sent", {"in_transaction": False})]


class TestErrorsPointAtTheCaller:
    def test_data_that_is_not_json_able_names_channel_and_type(self) -> None:
        with pytest.raises(TypeError, match=r"'new_comment'.*'comments'.*not JSON-able.*object.*JSON_ENCODER"):
            broadcast("comments", "new_comment", {"x": object()})

    def test_circular_data_too(self) -> None:
        data: list[object] = []
        data.append(data)
        with pytest.raises(ValueError, match="'new_comment'"):
            broadcast("comments", "new_comment", data)

    def test_two_channels_in_one_string_are_told_how_to_be_written(self) -> None:
        with pytest.raises(ValueError, match=r"reads like several.*\['a', 'b'\].*sse_live \"a\" \"b\""):
            broadcast("a, b", "t")
        broadcast("a,b", "t")

    def test_a_bad_or_reserved_type(self) -> None:
        with pytest.raises(ValueError, match="event type"):
            broadcast("a", "t\n")
        with pytest.raises(ValueError, match="reserved"):
            broadcast("a", "heartbeat")

    def test_text_must_be_text(self) -> None:
        with pytest.raises(TypeError, match="must be a str, not dict"):
            broadcast_text("a", "t", {"x": 1})
        with pytest.raises(ValueError, match="UTF-8"):
            broadcast_text("a", "t", "\ud800")

    @pytest.mark.django_db(transaction=True)
    def test_inside_a_transaction_the_error_comes_at_once(self) -> None:
        with transaction.atomic(), pytest.raises(TypeError):
            broadcast("a", "t", object())


class TestWhatIsSent:
    def test_django_s_types_are_encoded(self) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast(
                "a",
                "t",
                {
                    "when": datetime.datetime(2026, 11, 23, 9, tzinfo=datetime.timezone.utc),
                    "price": decimal.Decimal("1.50"),
                    "key": uuid.UUID(int=1),
                },
            )
        assert broadcasts[0].data == {
            "when": "2026-11-23T09:00:00Z",
            "price": "1.50",
            "key": "00000000-0000-0000-0000-000000000001",
        }

    def test_one_s_own_encoder(self) -> None:
        with override_settings(SSE_LIVE={"JSON_ENCODER": "tests.test_broadcasting.SetEncoder"}):
            with capture_broadcasts() as broadcasts:
                broadcast("a", "t", {3, 1, 2})
        assert broadcasts[0].data == [1, 2, 3]

    def test_no_data_is_null(self) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast(["a", "b", "a"], "tick")
        assert (broadcasts[0].channels, broadcasts[0].data) == (("a", "b"), None)

    def test_data_is_encoded_at_the_call(self) -> None:
        data = {"n": 1}
        with capture_broadcasts() as broadcasts:
            broadcast("a", "t", data)
            data["n"] = 2
        assert broadcasts[0].data == {"n": 1}

    def test_text_and_templates(self) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast_text("a", "fragment", "<li>\n</li>")
            broadcast_template("a", "fragment", "testapp/fragment.html", {"name": "<b>"})
        assert [b.data for b in broadcasts] == ["<li>\n</li>", "<li>&lt;b&gt;</li>\n"]


class SetEncoder(json.JSONEncoder):
    def default(self, o: object) -> object:
        return sorted(o) if isinstance(o, set) else super().default(o)


class TestUsers:
    @pytest.mark.django_db
    def test_a_user_a_key_and_its_text_name_one_channel(self) -> None:
        user = User.objects.create_user("someone")
        with capture_broadcasts() as broadcasts:
            send_to_user(user, "t", on_commit=False)
            send_to_user(user.pk, "t", on_commit=False)
            asyncio.run(asend_to_user(str(user.pk), "t"))
        assert [b.channels for b in broadcasts] == [(f"user:{user.pk}",)] * 3

    @pytest.mark.parametrize("user", [AnonymousUser(), User(), None, ""])
    def test_nobody_is_an_error(self, user: object) -> None:
        with pytest.raises(ValueError, match="saved user"):
            send_to_user(user, "t")

    @pytest.mark.parametrize("users", [[1, 2], {1}, {"id": 1}, User.objects.all(), RequestFactory().get("/")])
    def test_what_is_no_key_is_an_error(self, users: object) -> None:
        with pytest.raises(ValueError, match="saved user"):
            send_to_user(users, "t")

    def test_a_condition_of_a_disconnect_that_is_no_text_is_an_error(self) -> None:
        for condition in ({"client_id": 7}, {"session_key": object()}):
            with pytest.raises(TypeError, match=f"needs {next(iter(condition))} as a str"):
                disconnect_clients(**condition)  # type: ignore[arg-type]

    def test_what_only_has_the_key_of_a_user_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="saved user"):
            send_to_user(Note(pk=7), "t")
        with pytest.raises(ValueError, match="saved user"):
            disconnect_clients(user=Note(pk=7))

    async def test_disconnecting_needs_a_condition(self) -> None:
        with pytest.raises(ValueError, match="at least one condition"):
            disconnect_clients()
        with pytest.raises(ValueError, match="at least one condition"):
            await adisconnect_clients()


def test_the_signal_that_comes_in_broadcasts() -> None:
    with capture_broadcasts() as broadcasts:
        live_event.send(sender=User, channel="comments", type="new_comment", data={"id": 1})
    assert [(b.channels, b.type, b.data) for b in broadcasts] == [(("comments",), "new_comment", {"id": 1})]


class TestCapture:
    @pytest.mark.django_db
    def test_works_where_nothing_is_ever_committed(self) -> None:
        assert connection.in_atomic_block, "a test in a transaction, as TestCase makes it"
        with capture_broadcasts() as broadcasts:
            broadcast("a", "waits")
            broadcast("a", "now", on_commit=False)
        assert [b.type for b in broadcasts] == ["now", "waits"]

    @pytest.mark.django_db
    def test_leaves_other_callbacks_and_earlier_broadcasts_alone(self) -> None:
        called = []
        broadcast("a", "earlier")
        with capture_broadcasts() as broadcasts:
            transaction.on_commit(lambda: called.append(1))
            broadcast("a", "mine")
        assert [b.type for b in broadcasts] == ["mine"]
        assert called == []
        assert len(connections["default"].run_on_commit) == 2

    @pytest.mark.django_db
    def test_what_was_rolled_back_is_not_there(self) -> None:
        with capture_broadcasts() as broadcasts, pytest.raises(LookupError), transaction.atomic():
            broadcast("a", "t")
            raise LookupError
        assert broadcasts == []

    def test_nothing_of_it_reaches_the_backend(self) -> None:
        position = stream_position()
        with capture_broadcasts():
            broadcast("a", "t")
            assert stream_position() == position
        assert stream_position() == position


@pytest.mark.parametrize("channel", ["sse.live", ["a", "sse.control"]])
def test_channels_of_what_workers_tell_each_other_are_refused(channel: Any) -> None:
    with pytest.raises(ValueError, match="names that users choose"):
        broadcast(channel, "t")


class TestInACoroutine:
    @pytest.fixture
    def slow_bus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(get_backend(), "publish", lambda event: time.sleep(0.02))

    async def test_a_slow_bus_that_holds_the_loop_is_said_while_debugging(
        self, slow_bus: None, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.DEBUG = True
        broadcast("a", "new_comment")
        (message,) = caplog.messages
        assert "new_comment" in message and "await abroadcast()" in message

    async def test_and_not_otherwise(self, slow_bus: None, caplog: pytest.LogCaptureFixture) -> None:
        broadcast("a", "t")
        assert caplog.messages == []

    def test_nor_in_a_thread_of_its_own(self, slow_bus: None, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
        settings.DEBUG = True
        broadcast("a", "t")
        assert caplog.messages == []


class TestSize:
    @override_settings(SSE_LIVE={"EVENT_MAX_BYTES": 2048})
    def test_an_event_over_the_bound_is_refused_at_the_call(self) -> None:
        with capture_broadcasts() as broadcasts:
            broadcast("a", "t", "x" * 2046)
            for too_large in (
                lambda: broadcast("a", "t", "x" * 2047),
                lambda: broadcast("a", "t", "ü" * 1024),
                lambda: broadcast_text("a", "t", "x" * 2049),
                lambda: asyncio.run(abroadcast("a", "t", "x" * 2047)),
            ):
                with pytest.raises(ValueError, match=r"'t' on channel 'a' has 2,0.. bytes.*EVENT_MAX_BYTES.* is 2,048"):
                    too_large()
        assert [len(b.data) for b in broadcasts] == [2046]

    @pytest.mark.django_db(transaction=True)
    @override_settings(SSE_LIVE={"EVENT_MAX_BYTES": 2048})
    def test_a_row_that_is_over_it_at_the_commit_is_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        def finish(event: Event) -> bool:
            event.payload = '"' + "x" * 3000 + '"'
            return True

        with capture_broadcasts() as broadcasts, transaction.atomic():
            send_event(Event(("a",), "t", "null", finish=finish))
            broadcast("a", "after")
        assert [b.type for b in broadcasts] == ["after"]
        assert "has 3,002 bytes" in caplog.text
