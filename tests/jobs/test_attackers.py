"""Who may not watch or stop a job gets 403 and learns nothing of it, whichever way they try."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission, User
from django.test import Client

from django_sse_live import Job, astart_job, on_message
from django_sse_live.testing import MessageRefused, StreamClient, StreamRefused
from tests.jobs.test_watching import Page, watch

SECRET = "the otter's diary"
ADMIN = "/admin/django_sse_live/liveconnection/"


@pytest.fixture
async def ada(transactional_db: None) -> User:
    return await User.objects.acreate_user("ada", password="x")


@pytest.fixture
async def eve(transactional_db: None) -> StreamClient:
    """Logged in, on a site whose own rules let her hear whatever she asks for."""
    client = StreamClient()
    await client.aforce_login(await User.objects.acreate_user("eve", password="x"))
    return client


@pytest.fixture
async def job(ada: User, settings: Any) -> Job:
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*", "sse.*", "SSE.*"], "AUTHORIZE": lambda request, channel: True}
    job = await astart_job(owner=ada, key="diary")
    job.write(SECRET)
    job.progress(0.5, SECRET)
    return job


async def heard(client: StreamClient, **query: Any) -> list[Any]:
    """What of this stream has to do with jobs; StreamRefused where there is none."""
    async with client.stream("/events/", query) as stream:
        try:
            return [(await stream.next("sse.job", timeout=0.5)).data]
        except TimeoutError:
            return []


async def is_refused(client: StreamClient, **query: Any) -> None:
    with pytest.raises(StreamRefused) as refused:
        await heard(client, **query)
    assert refused.value.status == 403 and SECRET not in str(refused.value)


async def cannot_send(client: Any, type: str, **more: Any) -> None:
    with pytest.raises(MessageRefused) as refused:
        await client.send(type, **more)
    assert refused.value.status == 403 and SECRET not in str(refused.value)


async def still_runs(job: Job) -> bool:
    found = await job.arefresh()
    return (found.state, found.is_cancelled) == ("running", False)


@pytest.mark.filterwarnings("error::django.core.cache.CacheKeyWarning")  # memcached would raise: a 500
async def test_names_that_look_like_it(eve: StreamClient, job: Job) -> None:
    await is_refused(eve, channel=job.channel)
    await is_refused(eve, channel=["news", job.channel])
    for name in (
        job.channel.upper(),
        f"{job.channel} ",
        f" {job.channel}",
        f"{job.channel}/",
        job.channel.replace(".", "．"),
    ):
        try:
            assert await heard(eve, channel=name) == []
        except StreamRefused as refused:
            assert refused.status in (400, 403)
    for name in (job.channel[:-1], f"{job.channel}0", "sse.job.", "sse.job.*", "sse.control"):
        await is_refused(eve, channel=name)


async def test_tokens_that_are_not_hers_or_not_of_this_job(eve: StreamClient, job: Job) -> None:
    nobody, hers = StreamClient(), await astart_job()
    for token in (job.token, f"{job.token[:-1]}{'A' if job.token[-1] != 'A' else 'B'}", job.token.swapcase(), "x", "~"):
        await is_refused(eve, token=token)
        await is_refused(nobody, token=token)
        await cannot_send(eve, "sse.job.stop", channel=job.channel, query={"token": token})
        await cannot_send(nobody, "sse.job.state", channel=job.channel, query={"token": token})
    await is_refused(eve, token=job.sign(max_age=1e-9))
    await is_refused(eve, token=[hers.token, job.token])
    await is_refused(eve, token=hers.token, channel=job.channel)
    more = {"channel": job.channel, "query": {"token": hers.sign(may_stop=True)}}
    for type in ("sse.job.stop", "sse.job.state"):
        await cannot_send(eve, type, **more)
    assert await still_runs(job)


async def test_a_right_to_watch_is_none_to_stop(eve: StreamClient, job: Job) -> None:
    mine = await astart_job()
    tokens = [job.sign(), mine.sign(may_stop=True)]
    async with eve.stream("/events/", {"token": tokens}) as stream:
        assert stream.connected is not None
        fresh = [stream.connected.data["token"], *stream.connected.data["tokens"]]
    for token in (job.sign(), tokens, *fresh):
        await cannot_send(eve, "sse.job.stop", channel=job.channel, query={"token": token})
    assert await still_runs(job)
    assert await eve.send("sse.job.stop", channel=mine.channel, query={"token": fresh}) == {"state": "cancelled"}


async def test_over_a_websocket(eve: StreamClient, job: Job) -> None:
    socket = StreamClient(transport="websocket")
    socket.cookies = eve.cookies
    for query in ({"channel": job.channel}, {"token": job.token}):
        async with socket.stream("/events/", query) as stream:
            assert stream.connected is None
            goodbye = await stream.next()
            assert goodbye.type == "goodbye" and SECRET not in str(goodbye.data)
    async with socket.stream("/events/", {"channel": "news"}) as stream:
        for type in ("sse.job.stop", "sse.job.state"):
            with pytest.raises(MessageRefused) as refused:
                await stream.send(type, channel=job.channel)
            assert refused.value.status == 403
    assert await still_runs(job)


@pytest.fixture
def ran() -> Iterator[list[Any]]:
    """What a handler of the project's own is called with, on whatever channel."""
    ran: list[Any] = []

    def attack(message: Any) -> None:
        ran.append(message)

    on_message("attack", channel="*")(attack)
    yield ran
    on_message.remove(attack)


async def test_a_message_of_another_type_on_its_channel(eve: StreamClient, job: Job, ran: list[Any]) -> None:
    await cannot_send(eve, "attack", channel=job.channel)
    assert ran == []


async def test_a_question_in_the_name_of_another_page(eve: StreamClient, ada: User, job: Job) -> None:
    """The state goes to whose stream it is, if that hears the job."""
    owner, mine = StreamClient(), await astart_job()
    await owner.aforce_login(ada)
    async with watch(job.token, owner) as page, eve.stream("/events/", {"token": mine.token}) as stream:
        while page.text != SECRET:
            await page.frame()
        await Page(stream).frame()
        query = {"token": mine.token}
        for client_id in (page.stream.client_id, "x", ""):
            await eve.send("sse.job.state", channel=mine.channel, query=query, client_id=client_id)
        await cannot_send(eve, "sse.job.state", channel=job.channel, query=query, client_id=stream.client_id)
        for each in (stream, page.stream):
            with pytest.raises(TimeoutError):
                await each.next("sse.job", timeout=0.5)


async def test_the_admin(job: Job) -> None:
    def try_it() -> None:
        for name in ("nobody", "user", "staff", "view"):
            client = Client()
            if name != "nobody":
                user = User.objects.create_user(name, is_staff=name != "user")
                if name == "view":
                    user.user_permissions.set(Permission.objects.filter(codename="view_liveconnection"))
                client.force_login(user)
            for answer in (client.post(f"{ADMIN}disconnect/", {"job": job.id}), client.get(ADMIN)):
                content = answer.content.decode()
                if name == "view" and answer.request["REQUEST_METHOD"] == "GET":
                    assert answer.status_code == 200 and 'name="job"' not in content
                elif name in ("staff", "view"):
                    assert answer.status_code == 403 and SECRET not in content and job.id not in content
                else:  # to the admin's own log-in
                    assert answer.status_code == 302 and "/login/" in answer["Location"]

    await sync_to_async(try_it)()
    assert await still_runs(job)
