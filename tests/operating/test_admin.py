"""The admin's page "Live connections": who may see it, what it does, and that it stays out of everyone's way."""

from __future__ import annotations

import io
import json
from typing import Any
from urllib.parse import urlencode

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.test import Client
from django.utils import translation

from django_sse_live.models import LiveConnection
from django_sse_live.testing import capture_broadcasts
from tests.hub.conftest import until
from tests.operating.conftest import Connect
from tests.visitors import Visitor

PAGE = "/admin/django_sse_live/liveconnection/"

pytestmark = pytest.mark.django_db(transaction=True)


def make_user(name: str = "ada", *permissions: str, **fields: Any) -> Any:
    user = get_user_model().objects.create_user(name, **{"is_staff": True, **fields})
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{p}_liveconnection" for p in permissions]))
    return user


def logged_in(*permissions: str, sees_users: bool = False, **fields: Any) -> Client:
    client = Client()
    user = make_user("ada", *permissions, **fields)
    if sees_users:
        user.user_permissions.add(Permission.objects.get(codename="view_user"))
    client.force_login(user)
    return client


def test_the_page_is_in_the_admins_index_for_who_may_see_it() -> None:
    assert f'href="{PAGE}"' in logged_in("view").get("/admin/").content.decode()


@pytest.mark.parametrize("language", ["de", "es", "fr", "id", "pt-br"])
def test_its_heading_in_the_index_is_in_the_language_of_the_admin(language: str) -> None:
    with translation.override(language):
        heading = str(apps.get_app_config("django_sse_live").verbose_name)
    assert heading != "Live events"


def test_nobody_else_finds_it() -> None:
    client = logged_in()
    assert PAGE not in client.get("/admin/").content.decode()
    assert client.get(PAGE).status_code == 403
    assert Client().get(PAGE).status_code == 302


def test_its_element_names_the_files_that_it_loads_since_their_urls_may_have_a_hash_or_a_signature() -> None:
    page = logged_in("view").get(PAGE).content.decode()
    element = page[page.index("<sse-live") : page.index("</sse-live>")]
    for name in ("light", "loss"):
        assert f'{name}-src="/static/django_sse_live/sse-live-{name}.js"' in element


def test_who_may_only_look_finds_no_buttons() -> None:
    page = logged_in("view").get(PAGE).content.decode()
    assert 'id="sse-clients"' in page and "<button" in page
    assert "sse-disconnect" not in page and 'name="channel"' not in page


def test_who_finds_nothing_learns_no_names_and_who_chooses_nothing_ends_nothing() -> None:
    assert logged_in().get(f"{PAGE}names/").status_code == 403
    get_user_model().objects.all().delete()
    answer = logged_in("view", "change").post(f"{PAGE}disconnect/", headers={"Accept": "application/json"})
    assert (answer.status_code, answer.json()["message"]) == (400, "Nothing was chosen.")


@pytest.mark.parametrize("action", ["disconnect", "test"])
def test_who_may_only_look_may_not_act(action: str) -> None:
    client = logged_in("view")
    assert client.post(f"{PAGE}{action}/", {"client": "x", "channel": "a"}).status_code == 403
    assert client.get(f"{PAGE}{action}/").status_code == 405


def test_actions_are_safe_from_other_sites() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("ada", "view", "change"))
    assert client.post(f"{PAGE}disconnect/", {"client": "x"}).status_code == 403


@pytest.mark.parametrize("what", ["client", "user"])
async def test_a_stream_or_a_user_is_disconnected(connect: Connect, what: str) -> None:
    from asgiref.sync import sync_to_async

    reader, other = connect("a", user_pk="7"), connect("a", user_pk="8")
    await until(lambda: reader.client.is_open and other.client.is_open)
    client = await sync_to_async(logged_in)("view", "change")
    value = reader.client.id if what == "client" else "7"
    response = await sync_to_async(client.post)(
        f"{PAGE}disconnect/", {what: value}, headers={"accept": "application/json"}
    )
    assert response.status_code == 200 and "end" in response.json()["message"]
    await reader.done()
    assert reader.client.close_reason == "disconnected" and other.client.is_open
    entry = await LogEntry.objects.alast()
    assert entry is not None and value in entry.object_id  # who did it is on record


def test_a_test_event_is_broadcast() -> None:
    client = logged_in("view", "change")
    with capture_broadcasts() as broadcasts:
        response = client.post(f"{PAGE}test/", {"channel": "room.7", "text": "hello"}, follow=True)
    assert "“room.7”" in response.content.decode()
    (event,) = broadcasts
    assert event.channels == ("room.7",) and event.type == "test"
    assert event.data == {"text": "hello"}  # who sent it is for the admin's log, not for everyone on the channel


@pytest.mark.parametrize("channel", ["", "sse.control", "a\nb", "x" * 300])
def test_a_channel_that_cannot_be_is_refused(channel: str) -> None:
    client = logged_in("view", "change")
    with capture_broadcasts() as broadcasts:
        response = client.post(f"{PAGE}test/", {"channel": channel}, headers={"accept": "application/json"})
    assert response.status_code == 400 and response.json()["message"]
    assert broadcasts == []


def test_names_of_users() -> None:
    client = logged_in("view", sees_users=True)
    carl = make_user("carl", is_staff=False)
    asked = [carl.pk, "999999", "no number", "9" * 23, "-1", "\0"]
    names = client.get(f"{PAGE}names/", {"user": asked}).json()
    assert names == {str(carl.pk): {"name": "carl", "url": f"/admin/auth/user/{carl.pk}/change/"}}
    assert Client().get(f"{PAGE}names/").status_code == 302


def test_users_have_no_names_for_who_may_not_see_users() -> None:
    client = logged_in("view")
    carl = make_user("carl")
    assert client.get(f"{PAGE}names/", {"user": carl.pk}).json() == {}
    assert 'data-filter="carl"' in client.get(PAGE, {"q": "carl"}).content.decode()


def test_a_users_name_is_a_filter() -> None:
    client = logged_in("view", sees_users=True)
    carl = make_user("carl")
    assert f'data-filter="user:{carl.pk}"' in client.get(PAGE, {"q": "carl"}).content.decode()
    assert 'data-filter="10.0 room"' in client.get(PAGE, {"q": " 10.0\n room"}).content.decode()


def test_a_filter_need_not_be_what_a_users_name_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    client = logged_in("view", sees_users=True)
    monkeypatch.setattr(get_user_model(), "__str__", lambda user: user.username)
    monkeypatch.setattr(get_user_model(), "USERNAME_FIELD", "id")  # of a project whose users log in by a number
    carl = make_user("carl")
    for text, shown in ((str(carl.pk), f"user:{carl.pk}"), ("room", "room"), ("9" * 30, "9" * 30)):
        assert f'data-filter="{shown}"' in client.get(PAGE, {"q": text}).content.decode()


@pytest.mark.parametrize("text", ["room", "room, 7", ",room,", "7,room ,"])
async def test_the_stream_brings_every_report_to_who_may_see_it(connect: Connect, text: str) -> None:
    from asgiref.sync import sync_to_async

    reader = connect("room.7", user_pk="7")
    await until(lambda: reader.client.is_open)
    visitor = Visitor(f"{PAGE}stream/")
    await visitor.aforce_login(await sync_to_async(make_user)("ada", "view"))
    async with visitor.listen(urlencode({"filter": text})) as stream:
        assert (await stream.next()).type == "connected"
        message = await stream.next()
        assert message.type == "worker"
        report = json.loads(message.data)
        assert [match["id"] for match in report["matches"]] == [reader.client.id]
        assert message.last_event_id  # that of connected: a report is no event and has none


@pytest.mark.parametrize("fields", [{"is_staff": False}, {"is_active": False}])
async def test_the_stream_is_closed_to_everyone_else(fields: dict[str, bool]) -> None:
    from asgiref.sync import sync_to_async

    visitor = Visitor(f"{PAGE}stream/")
    assert (await visitor.ask()).status_code == 403
    await visitor.aforce_login(await sync_to_async(make_user)("ada", "view", **fields))
    assert (await visitor.ask()).status_code == 403


@pytest.mark.parametrize("lost", ["is_staff", "is_superuser"])
async def test_who_is_no_longer_allowed_to_hears_no_more(lost: str, settings: Any) -> None:
    from asgiref.sync import sync_to_async

    settings.SSE_LIVE = {"MAX_AGE_SECONDS": None}
    user = await sync_to_async(make_user)("ada", is_superuser=True)
    visitor = Visitor(f"{PAGE}stream/")
    await visitor.aforce_login(user)
    async with visitor.listen("filter=room") as stream:
        await stream.next()
        setattr(user, lost, False)
        await user.asave()
        while (goodbye := await stream.next()).type != "goodbye":
            assert goodbye.type == "worker"
        assert goodbye.json["reason"] == "revoked" and goodbye.json["reconnect"]
    assert (await visitor.ask()).status_code == 403


@pytest.mark.parametrize("max_age", [None, 3600])
async def test_who_has_lost_the_permission_alone_is_asked_for_it_within_a_minute(
    max_age: float | None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asgiref.sync import sync_to_async

    settings.SSE_LIVE = {"MAX_AGE_SECONDS": max_age}
    user = await sync_to_async(make_user)("ada", "view")
    visitor = Visitor(f"{PAGE}stream/")
    await visitor.aforce_login(user)
    async with visitor.listen("format=envelope") as stream:
        assert 50 < (await stream.next()).json["ends"] <= 60
    monkeypatch.setattr("django_sse_live.admin.ASKED_AGAIN_SECONDS", 0.5)
    async with visitor.listen() as stream:
        await stream.next()
        await sync_to_async(user.user_permissions.clear)()
        while (goodbye := await stream.next()).type != "goodbye":
            assert goodbye.type == "worker"
        assert goodbye.json["reason"] == "max_age" and goodbye.json["reconnect"]
    assert (await visitor.ask()).status_code == 403


async def test_other_origins_may_not_read_it(settings: Any) -> None:
    from asgiref.sync import sync_to_async

    settings.SSE_LIVE = {"ALLOWED_ORIGINS": ["https://app.example.com"]}
    visitor = Visitor(f"{PAGE}stream/")
    await visitor.aforce_login(await sync_to_async(make_user)("ada", "view"))
    async with visitor.listen(origin="https://app.example.com") as stream:
        assert not [name for name in stream.response.headers if name.startswith("Access-Control")]


async def test_nobody_hears_reports_on_the_public_stream(visitor: Visitor, settings: Any) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"]}
    for channel in ("sse.live", "sse.control"):
        assert (await visitor.ask(f"channel={channel}")).status_code == 403


def test_it_has_no_table_and_no_migration_and_dumpdata_does_not_mind() -> None:
    assert list(LiveConnection.objects.all()) == [] and LiveConnection.objects.count() == 0
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)
    call_command("dumpdata", "django_sse_live", stdout=io.StringIO())
    call_command("dumpdata", "django_sse_live", use_base_manager=True, stdout=io.StringIO())
    with pytest.raises(TypeError):
        LiveConnection(pk="x").save()
