"""Who may send what, and as whom."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.test import RequestFactory

from django_sse_live import Message, sign_channels
from django_sse_live.http.tokens import sign_page
from django_sse_live.namespaces import current_namespace
from django_sse_live.testing import StreamClient
from tests.messages.conftest import Sender


@pytest.fixture(autouse=True)
def ran(handle: Any) -> list[Message]:
    ran: list[Message] = []
    handle("typing")(ran.append)
    return ran


@pytest.fixture
def ada(transactional_db: None) -> User:
    return User.objects.create_user("ada", password="x")


async def test_a_channel_that_its_sender_may_not_hear(sender: Sender, ran: list[Message]) -> None:
    status, answer = await sender.send(channel="secret")
    assert (status, answer["error"], ran) == (403, "forbidden", [])


@pytest.mark.parametrize("channel", ["user:1", "sse.control", "sse.job.1"])
async def test_channels_that_are_nobodys_to_name(sender: Sender, settings: Any, channel: str) -> None:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"]}
    assert (await sender.send(channel=channel))[1]["error"] == "forbidden"


async def test_by_a_token_in_the_query_or_the_header(sender: Sender, ran: list[Message]) -> None:
    token = sign_channels("secret")
    assert (await sender.send(channel="secret", query=f"?token={token}"))[0] == 200
    assert (await sender.send(channel="secret", headers={"Authorization": f"Bearer {token}"}))[0] == 200
    assert (await sender.send(channel="other", query=f"?token={token}"))[0] == 403
    assert len(ran) == 2


async def test_a_bad_token_is_refused_whatever_the_message_names(sender: Sender, ran: list[Message]) -> None:
    assert (await sender.send(query="?token=forged"))[1]["error"] == "token_invalid"
    assert ran == []


async def test_a_channel_fixed_by_the_url(sender: Sender) -> None:
    assert (await sender.send(channel="private"))[0] == 403
    sender.path = "/fixed/"
    assert (await sender.send(channel="private"))[0] == 200


async def test_by_the_projects_own_rule(sender: Sender, settings: Any) -> None:
    settings.SSE_LIVE = {"AUTHORIZE": lambda request, channel: channel == "mine"}
    assert (await sender.send(channel="mine"))[0] == 200
    assert (await sender.send(channel="other"))[0] == 403


async def test_ones_own_user_channel(sender: Sender, ada: User, ran: list[Message]) -> None:
    await sender.aforce_login(ada)
    assert (await sender.send(channel=f"user:{ada.pk}"))[0] == 200
    assert (await sender.send(channel="user:999999"))[0] == 403
    assert ran[0].user == ada


async def test_not_from_a_page_that_was_drawn_for_nobody(sender: Sender, ada: User, rf: RequestFactory) -> None:
    request = rf.get("/")
    request.user = AnonymousUser()
    token = sign_page([], request=request)
    await sender.aforce_login(ada)
    assert (await sender.send(channel=f"user:{ada.pk}", query=f"?token={token}"))[0] == 403


async def test_a_token_of_another_user(sender: Sender, ada: User, ran: list[Message]) -> None:
    token = sign_channels("secret", user=ada)
    assert (await sender.send(channel="secret", query=f"?token={token}"))[1]["error"] == "token_of_another_user"


async def test_what_a_handler_is_told(sender: Sender, ran: list[Message]) -> None:
    id = uuid4().hex
    await sender.send("typing", {"a": 1}, id=id, channel="room.1", client_id="0123456789abcdef")
    (message,) = ran
    assert (message.id, message.type, message.channel, message.data) == (id, "typing", "room.1", {"a": 1})
    assert (message.client_id, message.user) == ("0123456789abcdef", AnonymousUser())
    assert message.request.path == "/events/"


# As whom


async def test_connected_says_whose_messages_are_sent_beside_it(ada: User, settings: Any) -> None:
    client = StreamClient()
    said = []
    for _ in range(2):
        async with client.stream(query={"channel": "room.1", "format": "envelope"}) as stream:
            said.append((await stream.next("message")).data["as"])
        await client.aforce_login(ada)
    assert len(set(said)) == 2 and all(len(digest) == 32 for digest in said)


async def test_a_message_of_another_user_is_refused_before_anything_runs(
    sender: Sender, ada: User, ran: list[Message]
) -> None:
    from django_sse_live.identity import as_digest

    nobody, someone = as_digest(None, ""), as_digest(str(ada.pk), "")
    assert (await sender.send(**{"as": nobody}))[0] == 200
    assert (await sender.send("unknown", **{"as": someone}))[1]["error"] == "other_user"
    await sender.aforce_login(ada)
    assert (await sender.send(**{"as": someone}))[0] == 200
    for other in (nobody, "", 7, [], someone.upper()):
        status, answer = await sender.send(**{"as": other})
        assert (status, answer["error"]) == (409, "other_user")
    assert len(ran) == 2


async def test_a_page_goes_on_sending_while_the_secret_key_is_being_changed(
    sender: Sender, ada: User, ran: list[Message], settings: Any
) -> None:
    client = StreamClient()
    await client.aforce_login(ada)
    async with client.stream(query={"channel": "room.1", "format": "envelope"}) as stream:
        said = (await stream.next("message")).data["as"]
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another one, as the next worker has it"
    await sender.aforce_login(ada)
    assert (await sender.send(**{"as": said}))[0] == 200
    async with client.stream(query={"channel": "room.1", "format": "envelope"}) as stream:
        assert (await stream.next("message")).data["as"] == said


# Tenants


def _tenant(request: Any) -> str:
    return "publisher" if request is None else request.headers["x-tenant"]


async def test_a_tenants_token_is_good_in_that_tenant_alone(sender: Sender, settings: Any) -> None:
    from django_sse_live.namespaces import use_namespace

    settings.SSE_LIVE = {"NAMESPACE": _tenant}
    with use_namespace("one"):
        token = sign_channels("secret")
    for tenant, status in (("one", 200), ("two", 403)):
        sent = await sender.send(channel="secret", query=f"?token={token}", headers={"X-Tenant": tenant})
        assert sent[0] == status


async def test_a_handler_runs_in_its_senders_tenant(sender: Sender, handle: Any, settings: Any) -> None:
    settings.SSE_LIVE = {"NAMESPACE": _tenant}
    handle("which")(lambda message: current_namespace())
    assert (await sender.send("which", headers={"X-Tenant": "two"}))[1]["data"] == "two"


async def test_a_namespace_that_cannot_be_told_runs_nothing(
    sender: Sender, settings: Any, ran: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    settings.SSE_LIVE = {"NAMESPACE": lambda request: 1 / 0}
    assert (await sender.send())[0] == 500
    assert ran == [] and "ZeroDivisionError" in caplog.text
