"""capture_broadcasts(): under TestCase, in its async tests, and beside Django's own capture of commits."""

from __future__ import annotations

from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import TestCase, override_settings

from django_sse_live import abroadcast, broadcast, stream_position
from django_sse_live.testing import StreamClient, capture_broadcasts
from tests.testapp.models import Note


def save_and_fail():
    with transaction.atomic():
        Note.objects.create(text="never was")
        raise ZeroDivisionError


class AsyncTests(TestCase):
    """The ORM of an async test works in another thread than the test, on that thread's connections."""

    async def test_what_waits_for_a_commit_is_there(self):
        with capture_broadcasts() as broadcasts:
            await Note.objects.acreate()
        self.assertEqual([b.type for b in broadcasts], ["new_note"])

    async def test_what_was_rolled_back_is_not(self):
        with capture_broadcasts() as broadcasts:
            with self.assertRaises(ZeroDivisionError):
                await sync_to_async(save_and_fail)()
        self.assertEqual(broadcasts, [])

    async def test_what_waited_before_is_not(self):
        await Note.objects.acreate()
        with capture_broadcasts() as broadcasts:
            pass
        self.assertEqual(broadcasts, [])

    @override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["notes"]})
    async def test_a_stream_may_open_meanwhile_and_hears_nothing_of_it(self):
        with capture_broadcasts() as broadcasts:
            async with StreamClient().stream("/events/", {"channel": "notes"}, last_id=stream_position()) as stream:
                await abroadcast("notes", "captured")
                last_id = stream.last_id
        async with StreamClient().stream("/events/", {"channel": "notes"}, last_id=last_id) as stream:
            await abroadcast("notes", "sent")
            self.assertEqual((await stream.next()).type, "sent")
        self.assertEqual([b.type for b in broadcasts], ["captured"])


class NestedTests(TestCase):
    def test_the_inner_capture_keeps_its_own(self):
        with capture_broadcasts() as outer:
            broadcast("a", "outer")
            with capture_broadcasts() as inner:
                broadcast("a", "inner")
            broadcast("a", "outer_again")
        self.assertEqual([b.type for b in inner], ["inner"])
        self.assertEqual([b.type for b in outer], ["outer", "outer_again"])

    def test_what_an_inner_capture_that_failed_left_is_the_outer_s(self):
        with capture_broadcasts() as outer:
            with self.assertRaises(ZeroDivisionError), capture_broadcasts() as inner:
                broadcast("a", "t")
                raise ZeroDivisionError
        self.assertEqual((inner, [b.type for b in outer]), ([], ["t"]))


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["notes"]})
class BesideDjangosCaptureTests(TestCase):
    """Django runs the callbacks and leaves them in the queue."""

    def test_inside_a_capture_each_is_there_once(self):
        with capture_broadcasts() as broadcasts:
            with self.captureOnCommitCallbacks(execute=True):
                Note.objects.create()
            self.assertEqual([b.type for b in broadcasts], ["new_note"])
        self.assertEqual([b.type for b in broadcasts], ["new_note"])

    def test_around_a_capture_too(self):
        with self.captureOnCommitCallbacks(execute=True), capture_broadcasts() as broadcasts:
            Note.objects.create()
        self.assertEqual([b.type for b in broadcasts], ["new_note"])

    async def test_a_stream_hears_each_once(self):
        def save():
            with self.captureOnCommitCallbacks(execute=True):
                Note.objects.create()

        async with StreamClient().stream("/events/", {"channel": "notes"}) as stream:
            await sync_to_async(save)()
            await sync_to_async(broadcast)("notes", "marker")
            self.assertEqual([event.type for event in await stream.take(2)], ["new_note", "marker"])


def test_pytest_django_s_capture_sends_each_once(db, django_capture_on_commit_callbacks):
    with capture_broadcasts() as broadcasts, django_capture_on_commit_callbacks(execute=True):
        Note.objects.create()
    assert [b.type for b in broadcasts] == ["new_note"]
