"""The stream client for the tests of others: pytest's way, TestCase's way, with and without an ASGI application."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.asgi import get_asgi_application
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from django_sse_live import abroadcast, adisconnect_clients, asend_to_user, broadcast_text
from django_sse_live.asgi import live_application
from django_sse_live.backends import running_hub
from django_sse_live.testing import MessageRefused, StreamClient, StreamEnded, StreamRefused
from django_sse_live.testing.parsers import EventParser
from tests.testapp.models import Note

PUBLIC = {"PUBLIC_CHANNELS": ["news", "sports", "notes"]}


@pytest.fixture(autouse=True)
def public_channels(settings):
    settings.SSE_LIVE = PUBLIC


@pytest.fixture(params=["AsyncClient", "ASGI", "live_application"])
def client(request):
    applications = {
        "AsyncClient": lambda: None,
        "ASGI": get_asgi_application,
        "live_application": lambda: live_application(get_asgi_application()),
    }
    return StreamClient(application=applications[request.param]())


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_data_may_have_what_python_takes_for_the_end_of_a_line(transport):
    text = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg"
    async with StreamClient(transport=transport).stream("/events/", {"channel": "news"}) as stream:
        await abroadcast("news", "data", {"text": text})
        await sync_to_async(broadcast_text)("news", "text", text)
        assert [event.data for event in await stream.take(2)] == [{"text": text}, text]


async def test_an_event_has_its_type_data_and_id(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        await abroadcast("news", "headline", {"text": "rain"})
        event = await stream.next()
    assert (event.type, event.data, event.text) == ("headline", {"text": "rain"}, '{"text":"rain"}')
    assert event.id == stream.last_id != ""


async def test_text_stays_text(client):
    async with client.stream("/events/", "channel=news") as stream:
        await asyncio.to_thread(broadcast_text, "news", "fragment", "<li>\nrain\n</li>")
        assert (await stream.next()).data == "<li>\nrain\n</li>"


async def test_connected_has_been_taken_already(client):
    async with client.stream("/events/", {"channel": ["news", "sports"]}) as stream:
        assert stream.channels == ["news", "sports"]
        assert stream.client_id == stream.connected.data["client_id"]
        assert stream.retry_ms == 2000


async def test_it_is_an_async_iterator_up_to_the_goodbye(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        await abroadcast("news", "a")
        await abroadcast("news", "b")
        await stream.take(2)
        await abroadcast("news", "c")
        await stream.next("c")
        await adisconnect_clients(channel="news")
        assert [event.type async for event in stream] == ["goodbye"]
        with pytest.raises(StreamEnded):
            await stream.next()


async def test_next_by_type_passes_over_others(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        await abroadcast("news", "a", 1)
        await abroadcast("news", "b", 2)
        assert (await stream.next("b")).data == 2


async def test_heartbeats_come_to_those_who_ask(client, settings):
    settings.SSE_LIVE = {**PUBLIC, "HEARTBEAT_SECONDS": 0.1}
    async with client.stream("/events/", {"channel": "news"}) as stream:
        assert set((await stream.next("heartbeat")).data) == {"type", "timestamp"}
        await abroadcast("news", "a")
        assert (await stream.next()).type == "a"


async def test_nothing_in_time_is_a_timeout_and_the_stream_goes_on(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        with pytest.raises(TimeoutError, match=r"No event 'a' came within 0\.01 s"):
            await stream.next("a", timeout=0.01)
        await abroadcast("news", "a")
        assert (await stream.next("a")).type == "a"


async def test_a_timeout_says_what_the_stream_hears_and_what_came_instead(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        with pytest.raises(TimeoutError, match=r"The stream hears news\.$"):
            await stream.next(timeout=0.01)
        await abroadcast("news", "b")
        while stream._events.empty():
            await asyncio.sleep(0.001)
        with pytest.raises(TimeoutError, match=r"No event 'a'.*The stream hears news; there came b\.$"):
            await stream.next("a", timeout=0.01)


async def test_resume_brings_what_came_after_the_last_event_taken(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        for name in "abc":
            await abroadcast("news", name)
        await stream.next("a")
    async with stream.resume() as again:
        assert [event.type for event in await again.take(2)] == ["b", "c"]
        assert again.connected.data["resumed"] is True
        assert again.client_id != stream.client_id


async def test_a_stream_that_ends_with_its_block_leaves_the_registry(client):
    async with client.stream("/events/", {"channel": "news"}) as stream:
        assert running_hub().clients.get(stream.client_id) is not None
    assert running_hub().clients.get(stream.client_id) is None


async def test_a_refusal_says_why(client):
    with pytest.raises(StreamRefused, match="403 forbidden") as refused:
        async with client.stream("/events/", {"channel": "secret"}):
            pass
    assert (refused.value.status, refused.value.error) == (403, "forbidden")
    assert "PUBLIC_CHANNELS" in refused.value.detail


async def test_what_is_no_page_at_all_is_refused_too(client):
    with pytest.raises(StreamRefused) as refused:
        async with client.stream("/nowhere/"):
            pass
    assert (refused.value.status, refused.value.error) == (404, "")


async def test_no_room_is_a_goodbye_in_place_of_connected(client, settings):
    settings.SSE_LIVE = {**PUBLIC, "MAX_CLIENTS": 0}
    async with client.stream("/events/", {"channel": "news"}) as stream:
        assert stream.connected is None
        assert (await stream.next()).data["reason"] == "too_many_clients"


async def test_an_error_of_the_application_is_the_tests_error():
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with StreamClient(application=broken).stream():
            pass


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_parser_takes_pieces_of_any_size(size):
    stream = (
        "\ufeffid: 1\nevent: a\ndata: ü\ndata:  x\r\n\r\n: comment\rdata\r\rretry: 70\nid\ndata: [1]\n\ndata: cut off"
    )
    parser, raw = EventParser(), stream.encode()
    events = [event for at in range(0, len(raw), size) for event in parser.feed(raw[at : at + size])]
    assert [(e.type, e.data, e.id) for e in events] == [("a", "ü\n x", "1"), ("message", "", "1"), ("message", [1], "")]
    assert parser.retry_ms == 70


@override_settings(SSE_LIVE=PUBLIC)
class UnderTestCase(TestCase):
    """The outermost transaction is never committed, and what was saved is heard all the same."""

    @classmethod
    def setUpTestData(cls):
        cls.user = User.objects.create_user("otter")
        Note.objects.create(text="before the stream")

    async def test_the_event_of_a_save_arrives(self):
        async with StreamClient().stream("/events/", {"channel": "notes"}) as stream:
            note = await Note.objects.acreate(text="hello")
            event = await stream.next()
        self.assertEqual((event.type, event.data["id"]), ("new_note", note.pk))

    async def test_that_of_a_rolled_back_save_does_not(self):
        def save_and_fail():
            with transaction.atomic():
                Note.objects.create(text="never was")
                raise ZeroDivisionError

        async with StreamClient().stream("/events/", {"channel": "notes"}) as stream:
            with self.assertRaises(ZeroDivisionError):
                await sync_to_async(save_and_fail)()
            await abroadcast("notes", "marker")
            self.assertEqual((await stream.next()).type, "marker")

    async def test_a_cookie_among_the_headers_goes_with_those_of_the_client(self):
        browser = StreamClient()
        await browser.aforce_login(self.user)
        session = {"Cookie": f"sessionid={browser.cookies['sessionid'].value}"}
        for application in (None, live_application(get_asgi_application())):
            client = StreamClient(application=application)
            client.cookies["theme"] = "dark"
            async with client.stream(headers=session) as stream:
                await asend_to_user(self.user, "notification", {"text": "you"})
                self.assertEqual((await stream.next()).data, {"text": "you"})

    async def test_the_same_through_the_asgi_application(self):
        client = StreamClient(application=live_application(get_asgi_application()))
        await client.aforce_login(self.user)
        async with client.stream("/events/", {"channel": "notes"}) as stream:
            await Note.objects.acreate(text="hello")
            self.assertEqual((await stream.next()).type, "new_note")

    async def test_no_application_closes_the_connection_of_the_tests_transaction(self):
        """As Django does at the begin and the end of each request: what the test has saved would be gone."""
        closed = []
        await sync_to_async(lambda: setattr(connection, "close", partial(closed.append, "closed")))()
        self.addCleanup(lambda: delattr(connection, "close"))
        for transport in ("sse", "websocket"):
            client = StreamClient(application=live_application(get_asgi_application()), transport=transport)
            async with client.stream("/events/", {"channel": "news"}) as stream:
                with self.assertRaisesMessage(MessageRefused, "no_handler"):
                    await stream.send("unheard_of")
        with self.assertRaisesMessage(MessageRefused, "no_handler"):
            await StreamClient(application=get_asgi_application()).send("unheard_of")
        self.assertEqual(closed, [])


@override_settings(SSE_LIVE=PUBLIC)
class UnderTransactionTestCase(TransactionTestCase):
    async def test_the_event_of_a_save_arrives_once(self):
        async with StreamClient().stream("/events/", {"channel": "notes"}) as stream:
            await Note.objects.acreate(text="hello")
            await abroadcast("notes", "marker")
            self.assertEqual([event.type for event in await stream.take(2)], ["new_note", "marker"])
