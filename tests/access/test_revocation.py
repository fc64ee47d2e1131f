"""What was allowed at the start may not be allowed later: what ends a stream from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.contrib.auth import alogout, authenticate, logout, update_session_auth_hash
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.core.asgi import get_asgi_application
from django.db import transaction
from django.db.models import F
from django.db.models.signals import post_save
from django.http import HttpRequest
from django.test import AsyncRequestFactory, override_settings

from django_sse_live import adisconnect_clients, revocation, sign_channels
from django_sse_live.asgi import live_application
from django_sse_live.backends import get_backend, replace_backend, running_hub
from django_sse_live.backends.base import Backend
from django_sse_live.events import Event
from django_sse_live.http.views import EventStreamView
from django_sse_live.testing import StreamClient
from tests.access.conftest import answer, channels, logged_in
from tests.access.middleware import Async
from tests.test_live_models import break_by_save, break_by_sql
from tests.testapp.models import Section
from tests.visitors import Stream, Visitor

pytestmark = pytest.mark.django_db(transaction=True)

ENGINES = ["db", "cached_db", "cache", "file"]


def request_of(visitor: Visitor) -> HttpRequest:
    """Another request of the same session, for code that is no view."""
    from importlib import import_module

    from django.conf import settings
    from django.contrib.auth import get_user

    request: Any = AsyncRequestFactory().get("/")
    store = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = store(visitor.cookies[settings.SESSION_COOKIE_NAME].value)
    request.user = get_user(request)
    return request


async def ends_as(stream: Stream, reason: str = "revoked") -> None:
    (goodbye,) = await stream.rest()
    assert (goodbye.type, goodbye.json["reason"]) == ("goodbye", reason)
    assert goodbye.json["reconnect"] is (reason == "revoked")


async def is_alive(stream: Stream) -> None:
    hub = running_hub()
    drained = asyncio.Event()
    hub.deliver(drained.set)
    await drained.wait()
    assert not stream.raw.count(b"goodbye")
    assert [client.is_open for client in hub.clients] == [True]


class TestSessions:
    @pytest.mark.parametrize("engine", ENGINES)
    async def test_logout_ends_the_streams_of_that_session_alone(
        self, user: User, settings: Any, engine: str, tmp_path: Any
    ) -> None:
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
        settings.SESSION_FILE_PATH = str(tmp_path)
        here, elsewhere = await logged_in(user), await logged_in(user)
        async with here.listen() as first, here.listen() as second, elsewhere.listen() as third:
            for stream in (first, second, third):
                await stream.next()
            await sync_to_async(logout)(await sync_to_async(request_of)(here))
            await ends_as(first)
            await ends_as(second)
            await is_alive(third)
        # … and a client cut off cannot slip back in: the session was gone before it was told.
        assert await answer(here, "") == "400 no_channel"
        assert await channels(elsewhere) == [f"user:{user.pk}"]

    async def test_alogout(self, user: User) -> None:
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            await alogout(await sync_to_async(request_of)(visitor))
            await ends_as(stream)

    async def test_the_session_is_gone_when_the_streams_are_told(self, user: User) -> None:
        visitor = await logged_in(user)
        request = await sync_to_async(request_of)(visitor)
        key = request.session.session_key
        was_there = []

        class Asks(Recorder):
            def publish(self, event: Event) -> None:
                was_there.append(request.session.exists(key))

        with recording(Asks()):
            await sync_to_async(logout)(request)
        assert was_there == [False]

    async def test_a_flush_without_logout(self, user: User) -> None:
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            await sync_to_async(lambda: request_of(visitor).session.flush())()
            await ends_as(stream)

    async def test_a_flush_is_told_after_the_commit_and_not_after_a_rollback(self, user: User) -> None:
        visitor = await logged_in(user)

        def flush(commit: bool, recorder: Recorder) -> None:
            with transaction.atomic():
                request_of(visitor).session.flush()
                assert not recorder.events
                transaction.set_rollback(not commit)

        with recording() as recorder:
            await sync_to_async(flush)(False, recorder)
            assert not recorder.events
            await sync_to_async(flush)(True, recorder)
            assert len(recorder.events) == 1

    async def test_an_anonymous_visitors_session(self, visitor: Visitor) -> None:
        session = await visitor.asession()
        await session.asave()
        async with visitor.listen("channel=news") as stream:
            await stream.next()
            await session.aflush()
            await ends_as(stream)
        assert await channels(visitor, "channel=news") == ["news"]

    @pytest.mark.parametrize("engine", ENGINES)
    @pytest.mark.parametrize("how", ["cycle_key", "acycle_key"])
    async def test_a_session_that_goes_on_under_another_key_takes_its_streams_with_it(
        self, user: User, settings: Any, engine: str, how: str, tmp_path: Any
    ) -> None:
        settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
        settings.SESSION_FILE_PATH = str(tmp_path)
        visitor = await logged_in(user)
        async with visitor.listen() as before:
            await before.next()
            request = await sync_to_async(request_of)(visitor)
            await (request.session.acycle_key() if how == "acycle_key" else sync_to_async(request.session.cycle_key)())
            await request.session.asave()
            await ends_as(before)
        visitor.cookies["sessionid"] = request.session.session_key
        async with visitor.listen() as after:
            await after.next()
            await sync_to_async(logout)(await sync_to_async(request_of)(visitor))
            await ends_as(after)

    async def test_logging_in_does_not_end_the_anonymous_streams(self, user: User, visitor: Visitor) -> None:
        session = await visitor.asession()
        await session.asave()
        async with visitor.listen("channel=news") as stream:
            await stream.next()
            await visitor.aforce_login(user)
            await is_alive(stream)

    def test_flushing_what_was_never_saved_tells_nobody(self, transactional_db: None) -> None:
        from django.contrib.sessions.backends.db import SessionStore

        with recording() as recorder:
            SessionStore().flush()
        assert not recorder.events

    def test_no_session_key_goes_over_the_bus(self, user: User) -> None:
        session = SessionStore()
        session.create()
        key = session.session_key
        assert key
        with recording() as recorder:
            session.flush()
        assert key not in recorder.events[0].payload

    @pytest.mark.parametrize("how", ["delete", "adelete"])
    async def test_a_session_that_another_one_deletes(self, user: User, how: str) -> None:
        visitor = await logged_in(user)
        key = visitor.cookies["sessionid"].value
        async with visitor.listen() as stream:
            await stream.next()
            if how == "delete":
                await sync_to_async(SessionStore().delete)(key)
            else:
                await SessionStore().adelete(key)
            await ends_as(stream)

    async def test_one_that_lives_in_a_cookie_and_was_written_to_since(
        self, user: User, other_user: User, settings: Any
    ) -> None:
        settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
        visitor, other = await logged_in(user), await logged_in(other_user)
        async with visitor.listen() as stream, other.listen() as others:
            await stream.next()
            await others.next()
            session = await visitor.asession()
            session["basket"] = [7]
            await session.asave()
            visitor.cookies["sessionid"] = session.session_key
            await sync_to_async(logout)(await sync_to_async(request_of)(visitor))
            await ends_as(stream)
            await is_alive(others)

    @pytest.mark.parametrize("written", ["before", "after"])
    async def test_while_the_secret_key_is_being_changed(self, user: User, settings: Any, written: str) -> None:
        """One worker has the old key alone, the other the new one with the old behind it."""
        old, new = settings.SECRET_KEY, "the next one"
        workers = [{"SECRET_KEY": old}, {"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": [old]}]
        here, there = workers if written == "before" else reversed(workers)
        visitor = await logged_in(user)
        with override_settings(**here):
            async with visitor.listen() as stream:
                await stream.next()
                with override_settings(**there):
                    user.first_name = "Ada"
                    await user.asave()
                    await is_alive(stream)
                    await sync_to_async(lambda: request_of(visitor).session.flush())()
                await ends_as(stream)

    @pytest.mark.parametrize("written", ["before", "after"])
    async def test_a_password_is_changed_while_the_secret_key_is_too(
        self, user: User, settings: Any, written: str
    ) -> None:
        old, new = settings.SECRET_KEY, "the next one"
        workers = [{"SECRET_KEY": old}, {"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": [old]}]
        here, there = workers if written == "before" else reversed(workers)
        with override_settings(**here):
            async with (await logged_in(user)).listen() as stream:
                await stream.next()
                with override_settings(**there):
                    user.set_password("another")
                    await user.asave()
                await ends_as(stream)

    def test_flush_is_followed_once_however_often_the_setting_changes(self, settings: Any, user: User) -> None:
        for engine in [*ENGINES, *ENGINES, "db"]:
            settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
        from django.contrib.sessions.backends.db import SessionStore

        session = SessionStore()
        session.create()
        with recording() as recorder:
            session.flush()
        assert len(recorder.events) == 1


class TestUsers:
    @pytest.mark.parametrize("update_fields", [None, ["password"]])
    async def test_a_changed_password_ends_their_streams_on_every_session(self, user: User, update_fields: Any) -> None:
        first, second = await logged_in(user), await logged_in(user)
        async with first.listen() as one, second.listen() as two:
            await one.next()
            await two.next()
            user.set_password("another")
            await user.asave(update_fields=update_fields)
            await ends_as(one)
            await ends_as(two)
        assert await answer(first, "") == "400 no_channel"

    async def test_whatever_else_the_session_auth_hash_is_made_of(
        self, user: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(User, "get_session_auth_hash", lambda user: f"{user.password}:{user.last_name}")
        async with (await logged_in(user)).listen() as stream:
            await stream.next()
            user.last_name = "logged out everywhere"
            await user.asave(update_fields=["last_name"])
            await ends_as(stream)

    async def test_whichever_way_it_was_set(self, user: User) -> None:
        async with (await logged_in(user)).listen() as stream:
            await stream.next()
            user.password = "!"
            await user.asave()
            await ends_as(stream)

    async def test_who_changed_it_comes_back_with_the_session_that_goes_on(self, user: User) -> None:
        visitor = await logged_in(user)
        session = await visitor.asession()

        def change() -> None:
            user.set_password("another")
            user.save()
            request = AsyncRequestFactory().get("/")
            request.session = session
            request.user = user
            update_session_auth_hash(request, user)
            session.save()

        async with visitor.listen() as before:
            await before.next()
            await sync_to_async(change)()
            await ends_as(before)
        visitor.cookies["sessionid"] = session.session_key
        async with visitor.listen() as after:
            await after.next()
            await user.asave()  # nothing has changed since: the new stream is of the new password
            await is_alive(after)

    async def test_a_token_of_theirs_ends_too(self, user: User) -> None:
        visitor = await logged_in(user)
        query = f"token={sign_channels('a', user=user)}"
        async with visitor.listen(query) as stream:
            fresh = (await stream.next()).json["token"]
            user.set_password("another")
            await user.asave()
            await ends_as(stream)
        assert await answer(visitor, f"token={fresh}") == "403 token_of_another_user"

    @pytest.mark.parametrize("update_fields", [None, ["is_active"]])
    async def test_deactivated(self, user: User, update_fields: Any) -> None:
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            user.is_active = False
            await user.asave(update_fields=update_fields)
            await ends_as(stream)
        assert await answer(visitor, "") == "400 no_channel"

    @pytest.mark.parametrize("is_active", ["False", F("is_staff")], ids=["text", "expression"])
    async def test_deactivated_by_what_the_database_makes_of_it(self, user: User, is_active: Any) -> None:
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            user.is_active = is_active
            await user.asave()
            await ends_as(stream)
        assert await answer(visitor, "") == "400 no_channel"

    @pytest.mark.parametrize("breaks", [break_by_sql, break_by_save])
    async def test_where_the_auth_hash_fails_the_save_goes_on_and_they_are_checked_again(
        self, user: User, monkeypatch: pytest.MonkeyPatch, breaks: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        def save() -> None:
            with transaction.atomic():
                user.first_name = "Ada"
                user.save()
                Section.objects.create(name="after it")

        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            with monkeypatch.context() as patch:
                patch.setattr(User, "get_session_auth_hash", breaks)
                await sync_to_async(save)()
            await ends_as(stream)
        assert (await User.objects.aget(pk=user.pk)).first_name == "Ada"
        assert await Section.objects.filter(name="after it").aexists()
        assert f"The session auth hash of user {user.pk} failed" in caplog.text

    @pytest.mark.parametrize("how", ["instance", "queryset"])
    async def test_deleted(self, user: User, how: str) -> None:
        visitor = await logged_in(user)
        async with visitor.listen() as stream:
            await stream.next()
            await (user if how == "instance" else User.objects.filter(pk=user.pk)).adelete()
            await ends_as(stream)
        assert await answer(visitor, "") == "400 no_channel"

    async def test_other_changes_and_other_users_end_nothing(self, user: User, other_user: User) -> None:
        async with (await logged_in(user)).listen() as stream:
            await stream.next()
            user.first_name = "Ada"
            await user.asave()
            other_user.set_password("another")
            await other_user.asave()
            await other_user.adelete()
            await is_alive(stream)

    async def test_after_the_commit_and_not_after_a_rollback(self, user: User) -> None:
        def deactivate(commit: bool, recorder: Recorder) -> None:
            with transaction.atomic():
                user.is_active = False
                user.save()
                assert not recorder.events
                transaction.set_rollback(not commit)

        with recording() as recorder:
            await sync_to_async(deactivate)(False, recorder)
            assert not recorder.events
            await sync_to_async(deactivate)(True, recorder)
            assert len(recorder.events) == 1

    def test_a_login_and_a_new_user_tell_nobody(self, user: User) -> None:
        with recording() as recorder:
            assert authenticate(username="ada", password="secret")
            user.save(update_fields=["last_login"])
            User.objects.create_user("new")
        assert not recorder.events

    def test_it_costs_no_query(self, user: User, django_assert_num_queries: Any) -> None:
        with django_assert_num_queries(1):
            user.save()

    def test_no_password_goes_over_the_bus(self, user: User) -> None:
        with recording() as recorder:
            user.save()
        (event,) = recorder.events
        assert user.password not in event.payload
        assert user.get_session_auth_hash() not in event.payload

    def test_proxies_of_the_user_model_count(self, user: User) -> None:
        class Somebody(User):
            class Meta:
                app_label = "auth"
                proxy = True

        revocation.connect()
        try:
            with recording() as recorder:
                Somebody.objects.get().save()
                Somebody.objects.get().delete()
            assert len(recorder.events) == 2
        finally:
            del apps.all_models["auth"]["somebody"]
            apps.clear_cache()

    def test_parents_of_the_user_model_count(self, monkeypatch: pytest.MonkeyPatch, transactional_db: None) -> None:
        """What is saved by way of the parent that a user model adds its fields to."""
        member = type("Member", (User,), {"__module__": __name__, "Meta": type("Meta", (), {"app_label": "auth"})})
        monkeypatch.setattr("django.contrib.auth.get_user_model", lambda: member)
        uid = f"django_sse_live.revocation:{User._meta.label}"
        post_save.disconnect(sender=User, dispatch_uid=uid)
        try:
            revocation.connect()
            user = User.objects.create_user("parent")
            with recording() as recorder:
                user.save()
            assert len(recorder.events) == 1
        finally:
            monkeypatch.undo()
            del apps.all_models["auth"]["member"]
            apps.clear_cache()
            revocation.connect()


class TestWhoIsJustBeingLetIn:
    """Checked before the revocation, opened after it: the seam through which a client could slip."""

    @pytest.mark.parametrize("how", ["logout", "password", "disconnect_clients"])
    async def test_is_sent_back_to_be_checked_again(self, user: User, settings: Any, how: str) -> None:
        visitor = await logged_in(user)

        async def authorize(request: HttpRequest, channel: str) -> bool:
            # It was asked who this is before; now, on another worker, that changes.
            if how == "logout":
                await alogout(await sync_to_async(request_of)(visitor))
            elif how == "password":
                user.set_password("another")
                await user.asave()
            else:
                await adisconnect_clients(user=user)
            return True

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        async with visitor.listen("channel=a") as stream:
            await ends_as(stream)
            assert stream.retry_ms
        assert len(running_hub().clients) == 0

    async def test_and_told_by_a_status_if_it_is_no_event_source(self, user: User, settings: Any) -> None:
        visitor = await logged_in(user)

        async def authorize(request: HttpRequest, channel: str) -> bool:
            await alogout(await sync_to_async(request_of)(visitor))
            await asyncio.sleep(0.01)
            return True

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        assert await answer(visitor, "channel=a", accept="*/*") == "503 revoked"

    async def test_during_the_snapshot(self, user: User, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        visitor = await logged_in(user)

        async def snapshot(view: Any, request: HttpRequest, channels: Any) -> Any:
            await alogout(await sync_to_async(request_of)(visitor))
            return [("secret", 1)]

        class Secrets(EventStreamView):
            get_initial_events = snapshot

        monkeypatch.setattr("tests.access.urls.urlpatterns", [_path("events/", Secrets.as_view())])
        _clear_urls()
        async with visitor.listen() as stream:
            await ends_as(stream)
            assert b"secret" not in stream.raw
        monkeypatch.undo()
        _clear_urls()

    @pytest.mark.parametrize("middleware", ["ReadsSession", "ReadsUser", "Impersonates"])
    async def test_while_some_middleware_has_looked_already(
        self, user: User, settings: Any, monkeypatch: pytest.MonkeyPatch, middleware: str
    ) -> None:
        _put_last(settings, middleware, "Waits")
        visitor = await logged_in(user)
        monkeypatch.setattr(Async, "hook", self._logs_out(visitor))
        async with visitor.listen("as=ada") as stream:
            await ends_as(stream)

    @pytest.mark.parametrize("middleware", ["ReadsSession", "ReadsUser"])
    async def test_under_live_application_however_long_ago_it_looked(
        self, user: User, settings: Any, monkeypatch: pytest.MonkeyPatch, middleware: str
    ) -> None:
        _put_last(settings, middleware, "Waits")
        monkeypatch.setattr("django_sse_live.http.views.MIDDLEWARE_SECONDS", 0.0)
        client = StreamClient(application=live_application(get_asgi_application()))
        await client.aforce_login(user)
        monkeypatch.setattr(Async, "hook", self._logs_out(client))
        async with client.stream("/events/") as stream:
            assert (await stream.next()).data["reason"] == "revoked"

    def _logs_out(self, visitor: Any) -> Any:
        hub = running_hub()  # it is another client that this worker has had before

        async def log_out() -> None:
            await alogout(await sync_to_async(request_of)(visitor))
            told = asyncio.Event()
            hub.deliver(told.set)
            await told.wait()
            await asyncio.sleep(0.01)  # the clock is to have moved on when the view begins

        return staticmethod(log_out)

    async def test_others_are_let_in(self, user: User, other_user: User, settings: Any) -> None:
        async def authorize(request: HttpRequest, channel: str) -> bool:
            user.set_password("another")
            await user.asave()
            return True

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        assert "a" in await channels(await logged_in(other_user), "channel=a")

    async def test_and_so_is_who_comes_right_after(self, user: User) -> None:
        visitor = await logged_in(user)
        await adisconnect_clients(user=user)
        assert await channels(visitor) == [f"user:{user.pk}"]

    async def test_what_ends_others_sends_nobody_else_away_however_often(self, user: User, settings: Any) -> None:
        async def authorize(request: HttpRequest, channel: str) -> bool:
            for number in range(2000):
                await adisconnect_clients(user=f"other-{number}")
            done = asyncio.Event()
            running_hub().deliver(done.set)
            await done.wait()
            return True

        settings.SSE_LIVE = {"AUTHORIZE": authorize}
        assert "a" in await channels(await logged_in(user), "channel=a")


class Recorder(Backend):
    def __init__(self) -> None:
        super().__init__({})
        self.events: list[Event] = []

    def publish(self, event: Event) -> None:
        self.events.append(event)

    def position(self) -> str:
        return "0:0-0"


class recording:
    """The events that are published inside, and kept from going anywhere."""

    def __init__(self, recorder: Recorder | None = None) -> None:
        self.recorder = recorder or Recorder()

    def __enter__(self) -> Recorder:
        get_backend()
        self._before = replace_backend(self.recorder)
        return self.recorder

    def __exit__(self, *_: object) -> None:
        replace_backend(self._before)


def _put_last(settings: Any, *names: str) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *(f"tests.access.middleware.{name}" for name in names)]


def _path(*args: Any) -> Any:
    from django.urls import path

    return path(*args)


def _clear_urls() -> None:
    from django.urls import clear_url_caches, set_urlconf

    clear_url_caches()
    set_urlconf(None)


@pytest.fixture(autouse=True)
def clean_caches() -> Iterator[None]:
    from django.core.cache import cache

    yield
    cache.clear()
