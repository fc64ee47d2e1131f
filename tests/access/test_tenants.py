"""One process, two tenants, told apart by host: neither ever hears, ends or counts the other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User as DjangoUser
from django.core.management import call_command
from django.db import transaction
from django.template import RequestContext, Template
from django.test import Client as WebClient
from django.test import RequestFactory

from django_sse_live import (
    abroadcast,
    adisconnect_clients,
    apresence,
    asend_to_user,
    broadcast,
    broadcast_patch,
    disconnect_clients,
    send_to_user,
    sign_channels,
)
from django_sse_live.backends import get_backend, running_hub
from django_sse_live.namespaces import current_namespace, use_namespace
from django_sse_live.revocation import _user_was_saved
from django_sse_live.signals import client_connected, event_broadcast
from django_sse_live.testing import capture_broadcasts
from django_sse_live.workers import worker_of
from tests.access import tenants
from tests.access.conftest import answer, channels
from tests.backends.redis_process import RedisProcess
from tests.hub.conftest import until
from tests.test_live_models import break_by_save, break_by_sql
from tests.testapp.models import Note
from tests.visitors import Stream, Visitor

REDIS = "django_sse_live.backends.redis_streams.RedisStreamsBackend"
DATABASE = "django_sse_live.database.DatabaseBackend"
LAYER = "django_sse_live.backends.channel_layer.ChannelLayerBackend"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with RedisProcess() as process:
        yield process


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.needs("redis")), "layer", "database"])
def bus(request: pytest.FixtureRequest, settings: Any) -> dict[str, Any]:
    """The backend's part of SSE_LIVE."""
    if request.param == "memory":
        return {}
    if request.param == "database":
        request.getfixturevalue("transactional_db")
        return {"BACKEND": DATABASE}
    redis: RedisProcess = request.getfixturevalue("redis")
    redis.command("FLUSHALL")
    if request.param == "redis":
        return {"BACKEND": REDIS, "OPTIONS": {"URL": redis.url}}
    settings.CHANNEL_LAYERS = {
        "default": {"BACKEND": "channels_redis.core.RedisChannelLayer", "CONFIG": {"hosts": [redis.url]}}
    }
    return {"BACKEND": LAYER}


@pytest.fixture(autouse=True)
def project(settings: Any) -> Any:
    settings.ROOT_URLCONF = "tests.access.tenants"
    settings.SSE_LIVE = {
        "NAMESPACE": "tests.access.tenants.namespace",
        "PUBLIC_CHANNELS": ["news", "notes"],
        "PRESENCE_CHANNELS": ["room.*"],
        "PRESENCE_GRACE_SECONDS": 0,
    }
    return settings


@contextmanager
def tenant(name: str) -> Iterator[None]:
    """What the tenant library of a project does for a request, a task or a command."""
    token = tenants.thread.set(name)
    try:
        yield
    finally:
        tenants.thread.reset(token)


class TenantVisitor(Visitor):
    def __init__(self, tenant: str, path: str) -> None:
        super().__init__(path)
        self._host = f"{tenant}.example.com".encode()

    def _base_scope(self, **request: Any) -> dict[str, Any]:
        scope = super()._base_scope(**request)
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        return {**scope, "headers": [(b"host", self._host), *headers]}


def at(name: str, path: str = "/events/") -> Visitor:
    return TenantVisitor(name, path)


@asynccontextmanager
async def both(query: str = "channel=news", **headers: str) -> Any:
    """The same stream of user 1 of either tenant; both have been told that they are connected."""
    async with at("a").listen(query, **headers) as a, at("b").listen(query, **headers) as b:
        assert (await a.next()).json["type"] == (await b.next()).json["type"] == "connected"
        yield a, b


async def heard_until_end(stream: Stream) -> list[tuple[str, Any]]:
    """All events up to the one of type ``end``, heartbeats left out."""
    heard = []
    while (message := await stream.next()).type != "end":
        heard.append((message.type, message.json))
    return heard


class TestChannels:
    async def test_an_event_is_heard_in_its_own_tenant_alone(self, project: Any, bus: dict[str, Any]) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, **bus}
        async with both() as (a, b):
            with tenant("a"):
                await abroadcast("news", "told", "a")
                await asend_to_user(1, "private", "a")
                await sync_to_async(broadcast)("fixed", "told", "fixed of a")
                await sync_to_async(broadcast_patch)("news", "remove", "comment-7")
                await sync_to_async(send_to_user)(1, "private", "again")
                await abroadcast("news", "end")
            with tenant("b"):
                await abroadcast("news", "end")
            assert await heard_until_end(a) == [
                ("told", "a"),
                ("private", "a"),
                ("told", "fixed of a"),
                ("patch", None),
                ("private", "again"),
            ]
            assert await heard_until_end(b) == []

    async def test_what_was_missed_is_replayed_from_ones_own_tenant_alone(
        self, project: Any, bus: dict[str, Any]
    ) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, **bus}
        async with at("a").listen("channel=news") as stream:
            first = (await stream.next()).id
        for name in ("a", "b"):
            with tenant(name):
                await abroadcast("news", "told", name)
                await abroadcast("news", "end")
        await until(lambda: running_hub().counts.received >= 4)
        async with both(last_event_id=first) as (a, b):
            assert await heard_until_end(a) == [("told", "a")]
            assert await heard_until_end(b) == [("told", "b")]

    async def test_a_tenants_name_in_a_channel_opens_nothing(self) -> None:
        for name in ("a\x1fnews", "a:news", "a/news"):
            assert (await answer(at("b"), f"channel={name}")).startswith(("400", "403"))

    async def test_browsers_and_hooks_see_plain_names(self) -> None:
        async with at("a").listen("channel=room.1&channel=news&format=envelope&snapshot=1") as stream:
            connected = (await stream.next()).json
            assert connected["channels"] == ["fixed", "room.1", "news", "user:1"]
            assert connected["own"] == ["fixed", "user:1"]
            assert (await stream.next()).json["data"] == ["fixed", "room.1", "news", "user:1"]
            assert (await stream.next()).json == {"type": "seen_by", "channels": ["news"], "data": {}}
            assert (await stream.next()).json["type"] == "presence_joined"
            with tenant("a"):
                await abroadcast(["room.1", "secret"], "t")
            assert (await stream.next()).json == {"type": "t", "channels": ["room.1"], "data": None}
        assert tenants.Stream.asked[-1] == "room.1"

    async def test_receivers_know_the_tenant_and_broadcast_in_it(self) -> None:
        seen: list[Any] = []

        async def on_connected(*, client: Any, **_: Any) -> None:
            seen.append((client.namespace, client.names[-1], current_namespace()))
            await abroadcast("news", "came")

        async def on_broadcast(*, event: Any, client_count: int, **_: Any) -> None:
            seen.append((event.namespace, event.names, event.type, client_count, current_namespace()))

        client_connected.connect(on_connected)
        event_broadcast.connect(on_broadcast)
        try:
            async with both() as (a, _b):
                assert (await a.next()).type == "came"
                await until(lambda: len(seen) == 4)
        finally:
            client_connected.disconnect(on_connected)
            event_broadcast.disconnect(on_broadcast)
        assert ("a", "user:1", "a") in seen and ("b", ("news",), "came", 1, "b") in seen

    @pytest.mark.django_db(transaction=True)
    async def test_a_model_is_heard_in_the_tenant_that_saved_it(self) -> None:
        async with both("channel=news&channel=notes") as streams:
            for name, stream in zip("ab", streams, strict=True):
                with tenant(name):
                    note = await Note.objects.acreate()
                    await abroadcast("news", "end")
                assert [(type, data["id"]) for type, data in await heard_until_end(stream)] == [("new_note", note.pk)]

    @pytest.mark.django_db(transaction=True)
    def test_where_no_tenant_is_known_a_save_goes_on_and_is_not_heard(self, caplog: Any) -> None:
        with capture_broadcasts() as captured, transaction.atomic():
            Note.objects.create(text="nobody's")
        assert captured == [] and "no tenant is known" in caplog.text
        assert Note.objects.count() == 1

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("breaks", [break_by_sql, break_by_save])
    def test_a_namespace_that_breaks_the_transaction_costs_no_save(self, project: Any, breaks: Any) -> None:
        project.SSE_LIVE = {"NAMESPACE": breaks}
        user = DjangoUser.objects.create_user("somebody")
        with capture_broadcasts() as captured, transaction.atomic():
            Note.objects.create(text="kept")
            user.save()
            Note.objects.create(text="kept too")
        assert [event.type for event in captured if event.type.startswith("new_")] == []
        assert Note.objects.count() == 2


class TestTokens:
    @pytest.mark.parametrize("user", [None, tenants.User("a")], ids=["nobody", "user 1"])
    async def test_one_of_another_tenant_opens_nothing(self, user: Any) -> None:
        with tenant("a"):
            token = sign_channels("secret", user=user)
        assert "secret" in await channels(at("a"), f"token={token}")
        assert await answer(at("b"), f"token={token}") == "403 token_of_another_namespace"
        assert await answer(at("b"), "", authorization=f"Bearer {token}") == "403 token_of_another_namespace"

    async def test_a_fresh_one_is_of_the_same_tenant(self) -> None:
        with tenant("a"):
            token = sign_channels("secret")
        async with at("a").listen(f"token={token}&token={token}&format=envelope") as stream:
            connected = (await stream.next()).json
        for fresh in (connected["token"], *connected["tokens"]):
            assert await answer(at("b"), f"token={fresh}") == "403 token_of_another_namespace"

    async def test_one_from_before_there_were_namespaces_opens_no_tenants_channels(self, project: Any) -> None:
        namespaces = project.SSE_LIVE
        project.SSE_LIVE = {}
        token = sign_channels("secret")
        project.SSE_LIVE = namespaces
        assert await answer(at("a"), f"token={token}") == "403 token_of_another_namespace"

    async def test_the_page_of_one_tenant_opens_nothing_of_another(self) -> None:
        request = RequestFactory(headers={"host": "a.example.com"}).get("/")
        request.user = tenants.User("a")
        for source in ("{% sse_live 'secret' %}", "{% sse_live %}"):
            page = Template("{% load sse_live %}" + source.replace("sse_live %", "sse_live src='/events/' %"))
            token = page.render(RequestContext(request, {})).split('token="')[1].split('"')[0]
            assert await answer(at("b"), f"token={token}") == "403 token_of_another_namespace"
            await channels(at("a"), f"token={token}")


class TestUsers:
    async def test_each_tenants_user_has_a_limit_of_their_own(self, project: Any) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, "MAX_CLIENTS_PER_USER": 1}
        async with both() as (_a, _b):
            for name in ("a", "b"):
                assert await answer(at(name), "channel=news", accept="*/*") == "429 too_many_clients"
        async with both():
            pass

    @pytest.mark.parametrize("condition", [{"user": 1}, {"channel": "news"}, {"user": 1, "channel": "fixed"}])
    async def test_a_disconnect_ends_the_streams_of_its_own_tenant_alone(
        self, project: Any, bus: dict[str, Any], condition: dict[str, Any]
    ) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, **bus}
        async with both() as (a, b):
            with tenant("a"):
                await adisconnect_clients(**condition)
            assert [message.type for message in await a.rest()] == ["goodbye"]
            with tenant("b"):
                await abroadcast("news", "end")
            assert await heard_until_end(b) == []

    async def test_nobody_ends_a_stream_of_another_tenant_by_its_id(self) -> None:
        async with both() as (_a, b):
            ids = {client.namespace: client.id for client in running_hub().clients}
            with tenant("b"):
                await adisconnect_clients(client_id=ids["a"])
                await adisconnect_clients(client_id=ids["b"])
            assert (await b.next()).type == "goodbye"
            assert [client.namespace for client in running_hub().clients if client.is_open] == ["a"]

    def test_a_disconnect_without_a_condition_does_not_end_a_whole_tenant(self) -> None:
        with tenant("a"), pytest.raises(ValueError, match="at least one condition"):
            disconnect_clients()

    async def test_a_saved_user_ends_the_streams_of_their_own_tenant_alone(
        self, project: Any, bus: dict[str, Any]
    ) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, **bus}
        async with both() as (a, b):
            with tenant("a"):
                await self._save()
            assert (await a.next()).json["reason"] == "revoked"
            with tenant("b"):
                await abroadcast("news", "end")
            assert await heard_until_end(b) == []

    async def test_where_no_tenant_is_known_a_saved_user_is_checked_again_in_all_of_them(self, caplog: Any) -> None:
        async with both() as (a, b):
            await self._save()
            assert (await a.next()).json["reason"] == (await b.next()).json["reason"] == "revoked"
        assert "no tenant is known" in caplog.text

    async def test_shared_users_are_the_same_in_every_tenant(self, project: Any) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, "SHARED_USERS": True, "MAX_CLIENTS_PER_USER": 2}
        async with both() as (a, b):
            assert await answer(at("a"), "channel=news", accept="*/*") == "429 too_many_clients"
            with tenant("a"):
                await self._save()
            assert (await a.next()).json["reason"] == (await b.next()).json["reason"] == "revoked"
        async with both() as (a, b):
            with tenant("a"):
                await asend_to_user(1, "private")
                assert (await a.next()).type == "private"
                await adisconnect_clients(user=1)
            assert (await a.next()).type == (await b.next()).type == "goodbye"

    async def _save(self) -> None:
        await sync_to_async(_user_was_saved)(instance=DjangoUser(pk=1, password="new"), created=False, using="default")


class TestPresence:
    async def test_who_is_here_is_asked_and_told_within_a_tenant(self, project: Any, bus: dict[str, Any]) -> None:
        project.SSE_LIVE = {**project.SSE_LIVE, **bus}
        async with at("a").listen("channel=room.1") as a:
            await a.next()
            assert (await a.next()).json == {"user": "1"}  # presence_joined
            with tenant("a"):
                assert await apresence("room.1") == {"1"}
            with tenant("b"):
                assert await apresence("room.1") == set()
            async with at("b").listen("channel=room.1") as b:
                await b.next()
                assert (await b.next()).type == "presence_joined"
            with tenant("a"):
                await abroadcast("room.1", "end")
            assert await heard_until_end(a) == []


@pytest.mark.django_db(transaction=True)
class TestAdmin:
    async def test_a_tenants_page_shows_its_own_streams_alone(self) -> None:
        async with both():
            worker = worker_of(running_hub())
            (report,) = [await worker.report("", 10, namespace="a")]
            assert report["streams"] == report["matching"] == 1
            assert [stream["namespace"] for stream in report["matches"]] == ["a"]
            assert report["matches"][0]["channels"] == ["fixed", "news", "user:1"]
            assert len((await worker.report("", 10))["matches"]) == 2  # the status command's

    async def test_its_stream_hears_the_reports_of_its_own_tenant_alone(self) -> None:
        await sync_to_async(DjangoUser.objects.create_superuser)("root", password="secret")
        path = "/admin/django_sse_live/liveconnection/stream/"
        watcher = at("a", path)
        await watcher.aforce_login(await DjangoUser.objects.aget())
        async with both(), watcher.listen("format=envelope") as stream:
            assert (await stream.next()).json["type"] == "connected"
            report = (await stream.next()).json
            assert report["channels"] == ["sse.live"]
            assert {found["namespace"] for found in report["data"]["matches"]} == {"a"}

    def test_it_acts_within_its_tenant(self) -> None:
        DjangoUser.objects.create_superuser("root", password="secret")
        web = WebClient(headers={"host": "a.example.com"})
        web.force_login(DjangoUser.objects.get())
        page = "/admin/django_sse_live/liveconnection/"
        assert "“a”" in web.get(page).content.decode()
        with capture_broadcasts() as captured:
            web.post(f"{page}test/", {"channel": "news", "text": "hello"})
        assert [(event.namespace, event.channels) for event in captured] == [("a", ("news",))]


class TestTheSetting:
    def test_a_broadcast_where_no_tenant_is_known_is_refused(self) -> None:
        with pytest.raises(LookupError, match="no tenant"):
            broadcast("news", "t")

    def test_a_namespace_can_be_named(self) -> None:
        with capture_broadcasts() as captured:
            with use_namespace("a"):
                broadcast("news", "t")
                with tenant("b"), use_namespace("c"):
                    assert current_namespace() == "c"
                assert current_namespace() == "a"
        assert [event.namespace for event in captured] == ["a"]

    def test_an_event_by_hand_names_it(self) -> None:
        with capture_broadcasts() as captured:
            call_command("sse_live_send", "news", "t", "--namespace", "a", stdout=StringIO())
        assert [(event.namespace, event.channels) for event in captured] == [("a", ("news",))]

    @pytest.mark.parametrize("wrong", [None, 7, "a\x1fb", "a\nb", "x" * 64])
    def test_what_is_no_namespace_is_refused(self, project: Any, wrong: Any) -> None:
        project.SSE_LIVE = {"NAMESPACE": lambda request: wrong}
        with pytest.raises((TypeError, ValueError), match=r"namespace|NAMESPACE"):
            broadcast("news", "t")
        with pytest.raises((TypeError, ValueError), match=r"namespace|NAMESPACE"):
            with use_namespace(wrong):
                pass

    async def test_without_it_nothing_has_another_name(self, project: Any) -> None:
        project.SSE_LIVE = {"PUBLIC_CHANNELS": ["news"]}
        async with both() as (a, b):
            (first, second) = running_hub().clients
            assert first.channels == ("fixed", "news", "user:1") and first.namespace == ""
            assert first.info.user_key == second.info.user_key == "1"
            with use_namespace("a"):
                await abroadcast("news", "t")
            assert (await a.next()).type == (await b.next()).type == "t"
        assert get_backend().position()
