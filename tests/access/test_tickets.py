"""Tickets: who comes back after a break is let in without Django, and nobody else is."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.asgi import get_asgi_application
from django.http import HttpRequest
from django.test import override_settings
from django.urls import include, path

from django_sse_live import abroadcast, adisconnect_clients, sign_channels, stream_position
from django_sse_live.asgi import live_application
from django_sse_live.backends import get_backend, running_hub
from django_sse_live.http import tickets
from django_sse_live.http.views import EventStreamView
from django_sse_live.hub.registry import process_counts
from django_sse_live.identity import session_digest
from django_sse_live.testing import StreamClient, StreamRefused
from django_sse_live.testing.streams import Stream
from tests.live.harness import until

pytestmark = pytest.mark.django_db(transaction=True)


class OfItsOwn(EventStreamView):
    def authorize(self, request: HttpRequest, channel: str) -> bool:
        return channel == "open"


class SaysYes(OfItsOwn):
    resumes_by_ticket = True


class Bound(EventStreamView):
    resumes_by_ticket = True
    bound: str | None = None

    def get_not_before(self, request: HttpRequest) -> str | None:
        return self.bound


class SaysNo(EventStreamView):
    resumes_by_ticket = False


def decorated(view: Any) -> Any:
    from functools import wraps

    @wraps(view)
    async def wrapper(request: HttpRequest, **kwargs: Any) -> Any:
        return await view(request, **kwargs)

    return wrapper


urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("other/", include("django_sse_live.urls")),
    path("fixed/", include("django_sse_live.urls"), {"channels": ["fixed"]}),
    path("own/", OfItsOwn.as_view()),
    path("yes/", SaysYes.as_view()),
    path("bound/", Bound.as_view(), {"channels": ["room"]}),
    path("no/", SaysNo.as_view()),
    path("decorated/", decorated(EventStreamView.as_view())),
]


@pytest.fixture(autouse=True)
def urls(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["news", "busy"]}


async def allow(request: HttpRequest, channel: str) -> bool:
    return True


@dataclass
class Page:
    """What a browser's page knows of its stream, and how it comes back."""

    client: StreamClient
    path: str = "/events/"
    query: dict[str, Any] = field(default_factory=dict)
    ticket: str = ""
    last_id: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    connected: Any = None

    @asynccontextmanager
    async def listen(self, **more: str) -> AsyncIterator[Stream]:
        query = {"format": "envelope", **self.query, **more}
        if self.ticket:
            query |= {"ticket": self.ticket}
        async with self.client.stream(self.path, query, last_id=self.last_id, headers=self.headers) as stream:
            # In the envelope form the type is in the data.
            frame = (await stream.next()).data
            assert frame["type"] == "connected", frame
            self.connected, self.ticket = frame, frame.get("ticket", "")
            tokens = frame.get("tokens", [frame["token"]] if frame["token"] else [])
            if tokens:
                self.query["token"] = tokens
            self.last_id = stream.last_id or self.last_id
            yield stream

    async def visit(self) -> None:
        async with self.listen():
            pass


def page(user: User | None = None, address: str = "203.0.113.7", **kwargs: Any) -> Page:
    client = StreamClient(application=live_application(get_asgi_application()))
    client.defaults["client"] = (address, 1234)
    return Page(client, **kwargs)


async def opened(user: User | None = None, **kwargs: Any) -> Page:
    """A page that has been open, with a ticket."""
    made = page(**kwargs)
    if user is not None:
        await made.client.aforce_login(user)
    elif made.path in ("/events/", "/other/"):
        made.query.setdefault("channel", "news")
    await made.visit()
    return made


_before: Counter[str] = Counter()  # what tests before this one have counted
ACCEPTED = "accepted"


@pytest.fixture(autouse=True)
def _begin_to_count() -> None:
    _before.clear()
    _before.update(_counted())


def _counted() -> Counter[str]:
    counts = process_counts()
    return Counter({ACCEPTED: counts.tickets, **counts.tickets_refused})


def accepted() -> int:
    return _counted()[ACCEPTED] - _before[ACCEPTED]


def refused() -> dict[str, int]:
    found = _counted() - _before
    del found[ACCEPTED]
    return dict(found)


async def resumes(page: Page) -> bool:
    """Whether it comes back by its ticket; it comes back in any case."""
    assert page.ticket, page.connected
    before = accepted(), sum(refused().values())
    await page.visit()
    after = accepted(), sum(refused().values())
    assert sum(after) == sum(before) + 1, (before, after)
    return after[0] > before[0]


async def is_sent_away(page: Page) -> str:
    """Its ticket is of no use, and Django refuses it."""
    before = accepted()
    with pytest.raises(StreamRefused) as refusal:
        await page.visit()
    assert accepted() == before
    return refusal.value.error


async def settled() -> None:
    """The hub has obeyed whatever was published."""
    done = asyncio.Event()
    running_hub().deliver(done.set)
    await done.wait()


class TestAGoodTicket:
    async def test_goes_on_without_django_and_misses_nothing(self, user: User) -> None:
        one = await opened(user)
        await abroadcast(f"user:{user.pk}", "missed", {"n": 1})
        async with one.listen() as stream:
            assert one.connected["channels"] == [f"user:{user.pk}"]
            assert one.connected["resumed"] is True and one.connected["own"] == [f"user:{user.pk}"]
            assert (await stream.next()).data["type"] == "missed"
            await abroadcast(f"user:{user.pk}", "live", {})
            assert (await stream.next()).data["type"] == "live"
        assert (accepted(), refused()) == (1, {})

    async def test_costs_no_query_and_no_thread(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        one = await opened(user)
        used: list[Any] = []
        monkeypatch.setattr("asgiref.sync.SyncToAsync.__call__", lambda self, *a, **k: used.append(self))
        monkeypatch.setattr("django.db.backends.utils.CursorWrapper.execute", lambda self, *a: used.append(a))
        count = threading.active_count()
        headers = {"Accept": "text/event-stream", "Last-Event-ID": one.last_id}
        scope = one.client._scope(f"/events/?format=envelope&ticket={one.ticket}", headers)
        task = asyncio.ensure_future(
            one.client.application(scope, asyncio.Event().wait, asyncio.Queue().put)  # type: ignore
        )
        await until(lambda: accepted() and running_hub().clients)
        assert not used and threading.active_count() == count
        task.cancel()
        await asyncio.wait([task])

    async def test_again_and_again(self, user: User) -> None:
        one = await opened(user)
        for _ in range(3):
            assert await resumes(one)

    async def test_for_nobody(self) -> None:
        assert await resumes(await opened())

    async def test_of_an_anonymous_visitor_with_a_session(self) -> None:
        one = page(query={"channel": "news"})
        session = await one.client.asession()
        session["basket"] = [7]
        await session.asave()
        await one.visit()
        assert await resumes(one)

    async def test_with_tokens_which_are_made_fresh(self, user: User) -> None:
        tokens = [sign_channels("a", user=user), sign_channels(["b", "c"])]
        one = await opened(user, query={"token": tokens})
        assert await resumes(one)
        assert sorted(one.connected["channels"]) == ["a", "b", "c", f"user:{user.pk}"]
        assert len(one.query["token"]) == 2 and set(one.query["token"]).isdisjoint(tokens)
        assert await resumes(one)

    async def test_with_another_heartbeat(self) -> None:
        one = await opened()
        one.query["heartbeat"] = "60"
        assert await resumes(one)
        assert one.connected["heartbeat"] == 60

    async def test_of_a_secret_that_is_going(self, user: User, settings: Any) -> None:
        one = await opened()
        with override_settings(SECRET_KEY="the next one", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            assert await resumes(one)

    async def test_to_a_page_of_an_allowed_origin(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "ALLOWED_ORIGINS": ["https://app.example.com"]}
        one = await opened(headers={"Origin": "https://app.example.com"})
        scope = one.client._scope(
            f"/events/?channel=news&format=envelope&ticket={one.ticket}",
            {"Accept": "text/event-stream", "Last-Event-ID": one.last_id, **one.headers},
        )
        sent: asyncio.Queue[Any] = asyncio.Queue()
        task = asyncio.ensure_future(one.client.application(scope, asyncio.Event().wait, sent.put))  # type: ignore
        headers = dict((await sent.get())["headers"])
        task.cancel()
        assert headers[b"access-control-allow-origin"] == b"https://app.example.com"
        assert headers[b"content-type"] == b"text/event-stream" and headers[b"vary"] == b"Origin"
        assert accepted() == 1

    async def test_where_the_worker_is_full_says_what_django_would(self, settings: Any) -> None:
        one = await opened()
        settings.SSE_LIVE = {**settings.SSE_LIVE, "MAX_CLIENTS": 0}
        query = {"format": "envelope", "ticket": one.ticket, "channel": "news"}
        async with one.client.stream(one.path, query, last_id=one.last_id) as stream:
            assert (await stream.next()).data["reason"] == "too_many_clients"

    async def test_is_no_longer_than_a_url_can_bear(self, settings: Any) -> None:
        names = [f"a-channel-with-a-very-long-name-{'x' * 150}-{number}" for number in range(50)]
        one = page(query={"token": sign_channels(names)})
        await one.visit()
        assert len(one.ticket) <= tickets.TICKET_MAX_BYTES
        settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["*"], "MAX_CHANNELS": 100}
        import secrets

        other = page(query={"channel": [secrets.token_urlsafe(100) for _ in range(20)]})
        await other.visit()
        assert not other.ticket


class TestWhoDoesNotGetIn:
    """Each goes through Django, as if there were no ticket."""

    async def test_another_user(self, user: User, other_user: User) -> None:
        one, other = await opened(user), await opened(other_user)
        other.ticket = one.ticket
        assert not await resumes(other)
        assert other.connected["channels"] == [f"user:{other_user.pk}"]
        assert refused() == {"other_session": 1}

    async def test_another_session_of_the_same_user(self, user: User) -> None:
        one, other = await opened(user), await opened(user)
        other.ticket = one.ticket
        assert not await resumes(other)

    async def test_somebody_without_the_cookie(self, user: User) -> None:
        one = await opened(user)
        one.client.cookies.clear()
        assert await is_sent_away(one) == "no_channel"
        assert refused() == {"other_session": 1}

    async def test_somebody_who_logged_in_meanwhile(self, user: User) -> None:
        one = await opened()
        await one.client.aforce_login(user)
        assert not await resumes(one)
        assert f"user:{user.pk}" in one.connected["channels"]

    async def test_without_a_session_whoever_has_it_has_it(self) -> None:
        """As the threat model says."""
        one, other = await opened(), page(query={"channel": "news"})
        other.ticket, other.last_id = one.ticket, one.last_id
        assert await resumes(other)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"path": "/other/"}, "other_url"),
            ({"query": {"channel": "busy"}}, "other_url"),
            ({"query": {"channel": ["news", "busy"]}}, "other_url"),
            ({"headers": {"Origin": "https://elsewhere.example.com"}}, "other_origin"),
            ({"headers": {"Origin": "http://testserver"}}, "other_url"),
            ({"headers": {"Sec-Fetch-Site": "same-origin", "Authorization": "Bearer x"}}, "unclear"),
            ({"last_id": ""}, "no_position"),
            ({"last_id": "nonsense"}, "no_position"),
        ],
    )
    async def test_another_address_to_ask(self, change: dict[str, Any], reason: str) -> None:
        one = await opened()
        for name, value in change.items():
            setattr(one, name, value)
        one.query.setdefault("channel", "news")
        assert not await resumes(one)
        assert refused() == {reason: 1}

    async def test_another_format(self) -> None:
        one = await opened()
        query = {"channel": "news", "ticket": one.ticket}
        async with one.client.stream("/events/", query, last_id=one.last_id) as stream:
            assert stream.connected is not None and "ticket" not in stream.connected.data
        assert refused() == {"other_url": 1}

    async def test_a_foreign_host(self) -> None:
        one = await opened()
        with override_settings(ALLOWED_HOSTS=["elsewhere.example.com"]):
            before = accepted()
            with pytest.raises(StreamRefused):
                await one.visit()
            assert accepted() == before

    async def test_where_tls_is_asked_for(self) -> None:
        one = await opened()
        with override_settings(SECURE_SSL_REDIRECT=True):
            assert not await resumes(one)  # Django redirects; this application was made before
        assert refused() == {"unclear": 1}

    async def test_one_of_another_secret(self) -> None:
        one = await opened()
        with override_settings(SECRET_KEY="another"):
            assert not await resumes(one)
        assert refused() == {"foreign": 1}

    @pytest.mark.parametrize("ticket", ["x", "~", "a~b", "é", "x" * 5000])
    async def test_one_that_is_none(self, ticket: str) -> None:
        one = await opened()
        one.ticket = ticket
        assert not await resumes(one)

    async def test_one_that_was_changed(self) -> None:
        one = await opened()
        for place in range(0, len(one.ticket), 7):
            changed = page(query={"channel": "news"}, last_id=one.last_id)
            letter = "A" if one.ticket[place] != "A" else "B"
            changed.ticket = one.ticket[:place] + letter + one.ticket[place + 1 :]
            assert not await resumes(changed)

    async def test_two_of_them(self) -> None:
        one = await opened()
        one.ticket = [one.ticket, one.ticket]  # type: ignore[assignment]
        assert not await resumes(one)

    async def test_another_token(self, user: User) -> None:
        one = await opened(query={"token": sign_channels("a")})
        one.query["token"] = sign_channels("b")
        assert not await resumes(one)
        assert "b" in one.connected["channels"] and "a" not in one.connected["channels"]
        assert refused() == {"token": 1}

    async def test_a_token_that_has_expired(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = await opened(query={"token": sign_channels("a", max_age=60)})
        import time

        now = time.time()
        monkeypatch.setattr("django_sse_live.http.tokens.time.time", lambda: now + 61)
        assert await is_sent_away(one) == "token_expired"

    async def test_another_network(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "PROXY_COUNT": 1}
        one = await opened(headers={"X-Forwarded-For": "203.0.113.7"})
        one.headers = {"X-Forwarded-For": "203.0.113.8"}
        assert not await resumes(one)
        assert refused() == {"other_address": 1}

    async def test_one_of_another_life_of_the_bus(self) -> None:
        one = await opened()
        running_hub().log.restart("another", 5)
        assert not await resumes(one)
        assert refused() == {"other_bus": 1}

    async def test_while_the_bus_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = await opened()
        monkeypatch.setattr(type(get_backend()), "is_available", False)
        assert not await resumes(one)
        assert refused() == {"bus_away": 1}

    async def test_where_what_was_revoked_is_not_known(self) -> None:
        one = await opened()
        running_hub().revocations = None
        assert not await resumes(one)
        assert not one.ticket  # nor is one given

    async def test_after_events_were_given_up(self) -> None:
        """One of them may have been a revocation."""
        one = await opened()
        hub = running_hub()
        hub.restart(hub.log.epoch, hub.log.head + 1)
        assert not await resumes(one)


class TestTime:
    async def test_a_break_makes_no_stream_live_longer_or_shorter(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "MAX_AGE_SECONDS": 1000}
        one = await opened()
        hub = running_hub()
        clock = hub._clock_ms
        ends = [one.connected["ends"]]
        for _ in range(3):
            hub._clock_ms += 100_000
            assert await resumes(one)
            ends.append(one.connected["ends"])
        assert all(before - after == pytest.approx(100, abs=5) for before, after in itertools.pairwise(ends))
        hub._clock_ms = clock + 1000 * (ends[0] + 1)
        assert not await resumes(one)
        assert refused() == {"old": 1}
        assert one.connected["ends"] >= 900

    async def test_streams_without_an_end(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "MAX_AGE_SECONDS": None}
        one = await opened()
        hub = running_hub()
        hub._clock_ms += 23 * 3600 * 1000
        assert await resumes(one)
        assert "ends" not in one.connected
        hub._clock_ms += 2 * 3600 * 1000
        assert not await resumes(one)

    async def test_a_check_in_the_future(self) -> None:
        one = await opened()
        running_hub()._clock_ms -= 300_000
        assert not await resumes(one)
        assert refused() == {"future": 1}

    async def test_a_session_that_ends_sooner(self, user: User) -> None:
        one = page()
        await one.client.aforce_login(user)
        session = await one.client.asession()
        await session.aset_expiry(300)
        await session.asave()
        await one.visit()
        running_hub()._clock_ms += 301_000
        assert not await resumes(one)

    async def test_wall_clocks_do_not_matter(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        import time

        one, now = await opened(user), time.time
        for skew in (300, -300):
            monkeypatch.setattr("time.time", lambda skew=skew: now() + skew)
            assert await resumes(one)


class TestRevocation:
    async def test_logout(self, user: User) -> None:
        from tests.access.test_revocation import request_of

        one, other = await opened(user), await opened(user)
        from django.contrib.auth import logout

        await sync_to_async(lambda: logout(request_of(one.client)))()  # type: ignore[arg-type]
        assert await is_sent_away(one) == "no_channel"
        assert refused() == {"revoked": 1}
        assert await resumes(other)

    @pytest.mark.parametrize("how", ["password", "deactivation", "deletion"])
    async def test_of_a_user(self, user: User, other_user: User, how: str) -> None:
        one, other = await opened(user), await opened(other_user)
        if how == "deletion":
            await user.adelete()
        elif how == "deactivation":
            user.is_active = False
            await user.asave()
        else:
            user.set_password("another")
            await user.asave()
        await settled()
        assert await is_sent_away(one) == "no_channel"
        assert refused() == {"revoked": 1}
        assert await resumes(other)

    async def test_a_save_that_changes_nothing_of_it(self, user: User) -> None:
        one = await opened(user)
        for name in "abc":
            user.first_name = name
            await user.asave()
        await settled()
        assert await resumes(one)

    async def test_a_password_that_was_changed_before_a_save_of_what_was_read_earlier(self, user: User) -> None:
        one = await opened(user)
        stale = await User.objects.aget(pk=user.pk)
        user.set_password("another")
        await user.asave()
        await stale.asave(update_fields=["first_name"])
        await settled()
        assert await is_sent_away(one) == "no_channel"

    @pytest.mark.parametrize("by", ["user", "channel", "client_id", "session_key", "user and channel"])
    async def test_disconnect_clients(self, user: User, other_user: User, by: str) -> None:
        one, other = await opened(user, query={"channel": "news"}), await opened(other_user)
        key = one.client.cookies["sessionid"].value
        conditions = {
            "user": {"user": user},
            "channel": {"channel": "news"},
            "client_id": {"client_id": one.connected["client_id"]},
            "session_key": {"session_key": key},
            "user and channel": {"user": user, "channel": "news"},
        }[by]
        await adisconnect_clients(**conditions)  # type: ignore[arg-type]
        await settled()
        assert not await resumes(one)
        assert refused() == {"revoked": 1}
        assert await resumes(one)  # nobody is banned
        assert await resumes(other)

    @pytest.mark.parametrize("count", [1, 2000])
    async def test_events_after_it_make_no_difference(self, user: User, count: int) -> None:
        one = await opened(user)
        await adisconnect_clients(user=user)
        for number in range(count):
            await abroadcast("busy", "tick", {"n": number})
        await settled()
        one.last_id = get_backend().position()
        assert not await resumes(one)

    async def test_between_the_check_and_the_registry(self, user: User, monkeypatch: pytest.MonkeyPatch) -> None:
        one = await opened(user)
        from django_sse_live.http import serving

        real = serving.open_client

        async def slow(client: Any) -> None:
            await adisconnect_clients(user=user)
            await settled()
            await real(client)

        monkeypatch.setattr(serving, "open_client", slow)
        query = {"format": "envelope", "ticket": one.ticket}
        async with one.client.stream(one.path, query, last_id=one.last_id) as stream:
            assert (await stream.next()).data["reason"] == "revoked"
        assert accepted() == 1 and not running_hub().clients

    async def test_one_in_flight_ends_the_stream(self, user: User) -> None:
        one = await opened(user)
        async with one.listen() as stream:
            await adisconnect_clients(user=user)
            assert (await stream.next()).data["reason"] == "disconnected"
        assert accepted() == 1

    async def test_one_made_before_the_checks_does_not_concern_it(self, user: User) -> None:
        user.set_password("another")
        await user.asave()
        await settled()
        assert await resumes(await opened(user))

    async def test_what_sends_no_signal_is_known_at_the_next_check(self, user: User) -> None:
        """As the threat model says."""
        one = await opened(user)
        await Session.objects.all().adelete()
        await User.objects.filter(pk=user.pk).aupdate(is_active=False)
        assert await resumes(one)
        await adisconnect_clients(user=user)
        await settled()
        assert await is_sent_away(one) == "no_channel"

    async def test_a_hub_that_begins_later_knows_them(self, user: User) -> None:
        one = await opened(user)
        await adisconnect_clients(session_key=one.client.cookies["sessionid"].value)
        await settled()
        hub = running_hub()
        info = next(iter([hub.revocations]))
        assert info is not None

        def elsewhere() -> bool:
            async def look() -> bool:
                known = running_hub().revocations
                assert known is not None
                digest = session_digest(one.client.cookies["sessionid"].value)
                from django_sse_live.hub.client_info import ClientInfo

                return known.concern(ClientInfo(("x",), session=digest), 1)

            return asyncio.run(look())

        assert await asyncio.to_thread(elsewhere)


class TestWhatIsOff:
    async def test_by_setting(self, settings: Any) -> None:
        one = await opened()
        settings.SSE_LIVE = {**settings.SSE_LIVE, "TICKETS": False}
        assert not await resumes(one)
        assert not one.ticket

    @pytest.mark.parametrize(
        ("path", "is_on"),
        [("/own/", False), ("/yes/", True), ("/no/", False), ("/decorated/", False), ("/fixed/", True)],
    )
    async def test_by_view(self, path: str, is_on: bool) -> None:
        channel = {"/fixed/": "fixed", "/own/": "open", "/yes/": "open"}.get(path, "news")
        one = page(path=path, query={} if path == "/fixed/" else {"channel": channel})
        await one.visit()
        assert bool(one.ticket) is is_on
        if is_on:
            assert await resumes(one)
            assert one.connected["channels"] == [channel]

    async def test_who_may_not_hear_the_past_is_asked_at_each_break(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever id comes with it: no ticket knows where a member came."""
        invented = stream_position()
        await abroadcast("room", "said", "before")
        monkeypatch.setattr(Bound, "bound", stream_position())
        member = page(path="/bound/")
        await member.visit()
        member.last_id = invented
        async with member.listen() as stream:
            await abroadcast("room", "said", "after")
            assert (await stream.next()).data["data"] == "after"
        assert accepted() == 0

    async def test_who_may_hear_the_past_resumes_by_ticket(self) -> None:
        member = page(path="/bound/")
        await member.visit()
        assert await resumes(member)

    async def test_one_of_before_the_view_said_no(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = await opened()
        monkeypatch.setattr(EventStreamView, "resumes_by_ticket", False)
        assert not await resumes(one)
        assert refused() == {"off": 1}

    @pytest.mark.parametrize(
        "method", ["get_user", "get_channels", "authorize", "get_initial_events", "setup", "dispatch"]
    )
    def test_for_a_view_with_a_method_of_its_own(self, method: str) -> None:
        view = type("Own", (EventStreamView,), {method: lambda self: None})
        assert not view.takes_tickets(None)

    async def test_for_what_authorize_alone_has_granted(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "AUTHORIZE": allow}
        one = page(query={"channel": ["news", "asked"]})
        await one.visit()
        assert not one.ticket
        other = page(query={"channel": "news"})
        await other.visit()
        assert other.ticket

    async def test_for_who_is_known_by_a_header(self, user: User) -> None:
        one = page(headers={"Authorization": f"Bearer {sign_channels('a')}"})
        await one.visit()
        assert not one.ticket

    async def test_where_something_else_than_the_session_says_who_it_is(self, user: User, settings: Any) -> None:
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.impersonate"]
        other = await User.objects.acreate(username="impersonated")
        one = page()
        await one.client.aforce_login(user)
        await one.visit()
        assert one.connected["channels"] == [f"user:{other.pk}"] and not one.ticket

    async def test_for_tenants_that_anything_of_a_request_may_tell(self, settings: Any) -> None:
        settings.SSE_LIVE = {**settings.SSE_LIVE, "NAMESPACE": lambda request: "acme"}
        one = page(query={"channel": "news"})
        await one.visit()
        assert not one.ticket

    async def test_without_live_application(self) -> None:
        client = StreamClient()
        async with client.stream("/events/", {"channel": "news", "format": "envelope"}) as stream:
            assert "ticket" not in (await stream.next()).data


class impersonate:
    sync_capable, async_capable = False, True

    def __init__(self, get_response: Any) -> None:
        from asgiref.sync import markcoroutinefunction

        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: Any) -> Any:
        user = await User.objects.aget(username="impersonated")
        request.user = user

        async def auser() -> User:
            return user

        request.auser = auser
        return await self.get_response(request)
