"""@live_model: once per save, once per delete, after the commit of the database that was saved to."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core import serializers
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.db import models, transaction
from django.db.models.deletion import Collector
from django.test import override_settings

from django_sse_live import live_model
from django_sse_live.testing import CapturedBroadcast, capture_broadcasts
from tests.testapp.models import (
    Broken,
    Label,
    Note,
    NoteProxy,
    PinnedNote,
    Reply,
    Silent,
    SilentLabel,
    Timestamped,
    Topic,
    TopicProxy,
    Unheard,
)

pytestmark = pytest.mark.django_db


def types(broadcasts: list[CapturedBroadcast]) -> list[str]:
    return [broadcast.type for broadcast in broadcasts]


async def a_coroutine_function(instance: Any) -> None: ...


@pytest.fixture
def without_autocommit(transactional_db: None) -> Iterator[None]:
    transaction.set_autocommit(False)
    yield
    transaction.rollback()
    transaction.set_autocommit(True)


class TestDefaults:
    def test_a_save_an_update_and_a_delete_each_send_one_event(self) -> None:
        with capture_broadcasts() as broadcasts:
            note = Note.objects.create(text="hello", secret="never sent")
            pk = note.pk
            note.save()
            note.delete()
        assert [(b.channels, b.type, b.data) for b in broadcasts] == [
            (("notes",), "new_note", {"id": pk, "model": "testapp.note", "action": "created"}),
            (("notes",), "note_updated", {"id": pk, "model": "testapp.note", "action": "updated"}),
            (("notes",), "note_deleted", {"id": pk, "model": "testapp.note", "action": "deleted"}),
        ]

    def test_queryset_deletes_and_cascades_send_one_per_row(self) -> None:
        note = Note.objects.create()
        Reply.objects.create(note=note)
        with capture_broadcasts() as broadcasts:
            Note.objects.all().delete()
        assert sorted(types(broadcasts)) == ["note_deleted", "reply_deleted"]

    def test_a_proxy_s_save_is_its_model_s(self) -> None:
        with capture_broadcasts() as broadcasts:
            proxy = NoteProxy.objects.create()
            proxy.save()
            proxy.delete()
        assert types(broadcasts) == ["new_note", "note_updated", "note_deleted"]

    def test_a_multi_table_child_sends_once_per_save_and_per_delete(self) -> None:
        with capture_broadcasts() as broadcasts:
            child = PinnedNote.objects.create()
            child.save()
            child.delete()
        assert types(broadcasts) == ["new_note", "note_updated", "note_deleted"]
        child = PinnedNote.objects.create()
        with capture_broadcasts() as broadcasts:
            Note.objects.get(pk=child.pk).delete()
        assert types(broadcasts) == ["note_deleted"]

    def test_a_row_deleted_as_its_proxy_and_as_its_model_sends_once(self) -> None:
        child = PinnedNote.objects.create()
        with capture_broadcasts() as broadcasts:
            NoteProxy.objects.get(pk=child.pk).delete()
        assert types(broadcasts) == ["note_deleted"]
        parent = Topic.objects.create()
        Topic.objects.create(parent=parent)
        with capture_broadcasts() as broadcasts:
            TopicProxy.objects.all().delete()
        assert types(broadcasts) == ["topic_deleted", "topic_deleted"]

    def test_a_row_saved_again_and_deleted_again_sends_again(self) -> None:
        parent, queryset = TopicProxy(), TopicProxy.objects.all()
        with capture_broadcasts() as broadcasts:
            for delete in (queryset.delete, queryset.delete, parent.delete, parent.delete):
                parent.pk = 1
                parent.save(force_insert=True)
                Topic.objects.create(pk=2, parent=parent)
                delete()
        assert types(broadcasts) == ["new_topic", "new_topic", "topic_deleted", "topic_deleted"] * 4

    def test_a_delete_that_failed_does_not_silence_the_next(self) -> None:
        note = NoteProxy.objects.create()

        def fail(**_: Any) -> None:
            raise LookupError

        models.signals.post_delete.connect(fail, sender=NoteProxy)
        try:
            with capture_broadcasts() as broadcasts, pytest.raises(LookupError), transaction.atomic():
                note.delete()
        finally:
            models.signals.post_delete.disconnect(fail, sender=NoteProxy)
        assert broadcasts == []
        with capture_broadcasts() as broadcasts:
            note.delete()
        assert types(broadcasts) == ["note_deleted"]

    def test_a_deleted_instance_can_still_be_pickled(self) -> None:
        note = Note.objects.create()
        note.delete()
        assert pickle.loads(pickle.dumps(note)).text == ""

    def test_a_delete_of_no_known_origin_sends_too(self) -> None:
        note = Note.objects.create()
        for origin in (None, [note]):
            collector = Collector(using="default", origin=origin)
            collector.collect([Note.objects.create()])
            with capture_broadcasts() as broadcasts:
                collector.delete()
            assert types(broadcasts) == ["note_deleted"]

    def test_a_child_deleted_without_its_parent_row_is_no_deleted_note(self) -> None:
        child = PinnedNote.objects.create()
        with capture_broadcasts() as broadcasts:
            child.delete(keep_parents=True)
        assert broadcasts == []

    def test_id_and_model_are_those_that_were_registered(self) -> None:
        Label.objects.create()  # the keys of the two parents differ
        with capture_broadcasts() as broadcasts:
            child = SilentLabel.objects.create()
            code = child.code
            child.save()
            child.delete()
            proxy = NoteProxy.objects.create()
            pk = proxy.pk
            proxy.delete()
        assert [b.data for b in broadcasts] == [
            {"id": code, "model": "testapp.label", "action": "created"},
            {"id": code, "model": "testapp.label", "action": "updated"},
            {"id": code, "model": "testapp.label", "action": "deleted"},
            {"id": pk, "model": "testapp.note", "action": "created"},
            {"id": pk, "model": "testapp.note", "action": "deleted"},
        ]

    def test_a_child_class_made_later_is_heard_too(self) -> None:
        class LateProxy(Note):
            class Meta:
                proxy = True
                app_label = "testapp"

        with capture_broadcasts() as broadcasts:
            LateProxy.objects.create()
        assert types(broadcasts) == ["new_note"]

    def test_a_fixture_load_is_silent(self) -> None:
        data = serializers.serialize("json", [Note(pk=1000, text="from a fixture")])
        with capture_broadcasts() as broadcasts:
            for each in serializers.deserialize("json", data):
                each.save()
        assert Note.objects.filter(pk=1000).exists()
        assert broadcasts == []

    def test_other_models_keep_their_fast_deletes(self) -> None:
        assert Collector(using="default").can_fast_delete(Unheard.objects.all())


class TestWhatItSends:
    def test_named_fields_and_nothing_else(self) -> None:
        note = Note.objects.create()
        with capture_broadcasts() as broadcasts:
            reply = Reply(note=note, text="hi")
            reply.attachment.save("a.txt", ContentFile(b""), save=False)
            reply.save()
        (broadcast,) = broadcasts
        name = reply.attachment.name
        reply.attachment.delete(save=False)
        assert (broadcast.channels, broadcast.type) == ((f"note.{note.pk}",), "new_reply")
        assert broadcast.data == {"id": reply.pk, "note": note.pk, "text": "hi", "attachment": name, "shout": "HI"}

    def test_none_is_silence(self) -> None:
        note = Note.objects.create()
        reply = Reply.objects.create(note=note)
        with capture_broadcasts() as broadcasts:
            reply.save()
            Silent.objects.create()
        assert broadcasts == []

    def test_the_payload_is_that_of_the_save_not_of_the_commit(self) -> None:
        note = Note.objects.create()
        with capture_broadcasts() as broadcasts:
            reply = Reply.objects.create(note=note, text="as saved")
            reply.text = "changed, not saved"
        assert broadcasts[0].data["text"] == "as saved"

    def test_a_payload_that_raises_is_logged_and_does_not_fail_the_save(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.ERROR, "django_sse_live"), capture_broadcasts() as broadcasts:
            broken = Broken.objects.create()
        assert broken.pk and broadcasts == []
        (record,) = caplog.records
        assert "testapp.broken (created)" in record.getMessage()
        assert record.exc_info is not None

    @override_settings(SSE_LIVE={"EVENT_MAX_BYTES": 2048})
    def test_what_is_too_large_to_be_sent_is_logged_and_fails_neither_save_nor_delete(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        note = Note.objects.create()
        with caplog.at_level(logging.ERROR, "django_sse_live"), capture_broadcasts() as broadcasts:
            reply = Reply.objects.create(note=note, text="x" * 3000)
            reply.delete()
        assert broadcasts == [] and not Reply.objects.exists()
        assert [record.exc_info is not None for record in caplog.records] == [True, True]
        assert "testapp.reply (deleted)" in caplog.text and "EVENT_MAX_BYTES" in caplog.text


class TestCommits:
    @pytest.mark.django_db(transaction=True)
    def test_a_rolled_back_save_sends_nothing(self) -> None:
        with capture_broadcasts() as broadcasts, pytest.raises(LookupError), transaction.atomic():
            Note.objects.create()
            raise LookupError
        assert broadcasts == []

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_it_waits_for_the_database_that_was_saved_to(self) -> None:
        with capture_broadcasts() as broadcasts:
            with transaction.atomic(using="other"):
                Note.objects.using("other").create()
                with transaction.atomic():
                    Note.objects.create()
                assert len(broadcasts) == 1
            assert len(broadcasts) == 2

    def test_without_autocommit_a_save_is_logged_and_does_not_fail(
        self, without_autocommit: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR, "django_sse_live"), capture_broadcasts() as broadcasts:
            note = Note.objects.create()
            transaction.commit()
            transaction.set_autocommit(True)
        assert Note.objects.filter(pk=note.pk).exists()
        assert broadcasts == []
        (record,) = caplog.records
        assert "testapp.note (created)" in record.getMessage()
        assert record.exc_info is not None and "transaction.atomic()" in str(record.exc_info[1])

    @pytest.mark.parametrize(
        ("end", "expected"),
        [(transaction.commit, ["new_note", "note_deleted"]), (transaction.rollback, [])],
    )
    def test_without_autocommit_atomic_is_what_django_can_wait_in(
        self, without_autocommit: None, end: Callable[[], None], expected: list[str]
    ) -> None:
        with capture_broadcasts() as broadcasts:
            with transaction.atomic():
                note = Note.objects.create()
            note.delete()  # Django's own deletes are atomic
            assert broadcasts == []
            end()
            transaction.set_autocommit(True)
            assert types(broadcasts) == expected


class ReadsFromAReplica:
    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        return "other"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        return "default"


class TestByHand:
    def test_bulk_operations_are_sent_by_hand(self) -> None:
        with capture_broadcasts() as broadcasts:
            notes = Note.objects.bulk_create([Note(text="a"), Note(text="b")])
            Note.objects.update(text="c")
            assert broadcasts == []
            live_model.broadcast(notes, "created")
            live_model.broadcast(notes[0], "updated")
        assert types(broadcasts) == ["new_note", "new_note", "note_updated"]

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_it_waits_for_the_database_that_would_be_written_to(self) -> None:
        Note.objects.using("other").create()
        with override_settings(DATABASE_ROUTERS=[ReadsFromAReplica()]):
            notes = list(Note.objects.all())
            assert notes[0]._state.db == "other"
            with capture_broadcasts() as broadcasts, pytest.raises(LookupError), transaction.atomic():
                live_model.broadcast(notes, "updated")
                raise LookupError
        assert broadcasts == []

    @pytest.mark.django_db(transaction=True, databases=["default", "other"])
    def test_each_instance_waits_for_its_own_database(self) -> None:
        notes = [Note.objects.using(database).create() for database in ("default", "other")]
        with capture_broadcasts() as broadcasts:
            with transaction.atomic(using="other"):
                live_model.broadcast(notes, "updated")
                assert len(broadcasts) == 1
            assert len(broadcasts) == 2
            with transaction.atomic(using="other"):
                live_model.broadcast(notes, "updated", using="other")
                assert len(broadcasts) == 2

    def test_bad_calls_say_what_is_wrong(self) -> None:
        with pytest.raises(ValueError, match=r"'made'.*'created'"):
            live_model.broadcast([], "made")
        with pytest.raises(ValueError, match="Unheard is not a live model"):
            live_model.broadcast(Unheard(), "created")


class TestRegistration:
    def test_a_model_that_one_does_not_own(self) -> None:
        live_model.register(Unheard, "unheard", updated=None)
        try:
            with capture_broadcasts() as broadcasts:
                unheard = Unheard.objects.create()
                unheard.save()
                unheard.delete()
            assert types(broadcasts) == ["new_unheard", "unheard_deleted"]
        finally:
            live_model.unregister(Unheard)
        with capture_broadcasts() as broadcasts:
            Unheard.objects.create()
        assert broadcasts == []

    def test_two_registrations_send_two_events(self) -> None:
        live_model.register(PinnedNote, "pinned")
        try:
            with capture_broadcasts() as broadcasts:
                PinnedNote.objects.create().delete()
            assert sorted(types(broadcasts)) == ["new_note", "new_pinnednote", "note_deleted", "pinnednote_deleted"]
        finally:
            live_model.unregister(PinnedNote)

    def test_a_decorator_without_a_channel_says_what_to_write(self) -> None:
        with pytest.raises(TypeError, match=r'on Topic needs a channel: write @live_model\(channel="comments"\)'):
            live_model(Topic)

    def test_a_model_is_refused_where_the_app_is_not_installed(self) -> None:
        with override_settings(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"]):
            with pytest.raises(ImproperlyConfigured, match='"django_sse_live" in INSTALLED_APPS'):
                live_model("a")(Unheard)

    def test_an_abstract_model_is_refused(self) -> None:
        with pytest.raises(TypeError, match="Timestamped is abstract"):
            live_model("a")(Timestamped)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fields": ["id"], "payload": lambda instance, action: None}, "both fields and payload"),
            ({"fields": "id"}, r'such as \["id"\]'),
            ({"fields": 7}, r'fields must be a list of names, such as \["id"\]; not 7'),
            ({"fields": ["id", 7]}, r"fields must be a list of names.*'id', 7"),
            ({"updated": False}, "Unheard: updated is False; it must be an event type, or None for silence"),
            ({"created": "heartbeat"}, "reserved"),
            ({"created": "a\nb"}, "control characters"),
            ({"channel": None}, "Unheard: The channel must be a str"),
            ({"channel": []}, "Unheard: .*at least one channel"),
            ({"channel": "a, b"}, "Unheard: .*reads like several"),
            ({"channel": ["a", "sse.live"]}, "Unheard: .*'sse.live' is reserved"),
            ({"channel": lambda: "a"}, r"Unheard: channel must be a function \(instance\); this one takes \(\)"),
            ({"channel": a_coroutine_function}, r"channel must be a sync function \(instance\)"),
            ({"payload": "text"}, r"payload must be a function \(instance, action\), not str"),
            ({"payload": lambda instance: None}, r"payload must be a function \(instance, action\); .* \(instance\)"),
            ({"payload": a_coroutine_function}, "payload must be a sync function"),
        ],
    )
    def test_what_cannot_be_is_refused_at_once(self, options: dict[str, Any], message: str) -> None:
        registered = len(live_model.registrations)
        with pytest.raises((TypeError, ValueError), match=message):
            live_model(**{"channel": "a", **options})(Unheard)
        assert len(live_model.registrations) == registered

    def test_what_can_be_read_once_only_holds_for_every_save(self) -> None:
        live_model.register(Unheard, (name for name in ("a", "b")), fields=(name for name in ["id"]))  # type: ignore[arg-type]
        try:
            with capture_broadcasts() as broadcasts:
                Unheard.objects.create()
                Unheard.objects.create()
            assert [(each.channels, list(each.data)) for each in broadcasts] == [(("a", "b"), ["id"])] * 2
        finally:
            live_model.unregister(Unheard)

    def test_a_class_is_not_broadcast(self) -> None:
        with pytest.raises(TypeError, match=r"not a class: Note\.objects\.all\(\) is all of them"):
            live_model.broadcast(Note, "created")  # type: ignore[arg-type]

    def test_a_decorator_without_its_parentheses_is_told_so(self) -> None:
        with pytest.raises(TypeError, match=r"live_model\(channel="):
            live_model("a")("not a model")


def test_every_registered_model_is_a_model() -> None:
    assert all(issubclass(live.model, models.Model) for live in live_model.registrations)
