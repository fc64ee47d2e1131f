"""The pages, and what plays with them."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.messages.storage.cookie import CookieStorage
from django.db import connection, transaction
from django.db.models import F, Max, Sum
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.test import RequestFactory
from django.views.decorators.cache import cache_page
from django.views.decorators.csrf import csrf_exempt

from django_sse_live import broadcast_patch, live_model

from .models import LIMIT, Note, Remark, Tag

reports: list[dict] = []
# What somebody may have written.
HOSTILE = [
    "<img src=x onerror=harm()>", "<script>harm()</script>", "</li></template></ol><b>", "javascript:harm()",
    "{{ user }} {% csrf_token %}", "]]><!-- &lt; \"' \u2028 \0",
]  # fmt: skip
troubles: list[str] = []  # what the next fetches of a page are answered with


def suite(request):
    return render(request, "pages/suite.html")


@csrf_exempt
def report(request):
    if request.method == "POST":
        reports.append(json.loads(request.body))
    return JsonResponse({"reports": reports})


def context() -> dict[str, Any]:
    shown = Note.objects.filter(is_hidden=False)
    lists = {name: list(shown.filter(list=name).order_by("arrived")) for name in "abc"}
    lists["a"] = lists["a"][-LIMIT:]
    return {
        "lists": lists,
        "side": shown.order_by("-shown")[:3],
        "rows": shown.order_by("shown"),
        "likes": shown.aggregate(sum=Sum("likes"))["sum"] or 0,
    }


def board(request):
    if troubles and "SSE-Live" in request.headers:
        trouble = troubles.pop()
        return redirect("/elsewhere/") if trouble == "redirect" else HttpResponse(status=503)
    asked = {name: request.GET.get(name) for name in ("control", "reset", "since")}
    return render(request, "pages/board.html", {**context(), **asked})


cached = cache_page(3)(board)


def later(request):
    return render(request, "pages/_later.html", context())


def elsewhere(request):
    return HttpResponse("elsewhere")


@csrf_exempt
def act(request):
    """One act, as some view of a project would do it. ``seed`` chooses among what there is."""
    order = json.loads(request.body)
    globals()[f"_{order['act']}"](random.Random(order["seed"]))
    return HttpResponse(status=204)


def _next() -> int:
    greatest = Note.objects.aggregate(arrived=Max("arrived"), shown=Max("shown"))
    return max(greatest["arrived"] or 0, greatest["shown"] or 0) + 1


def _any(choice: random.Random, **conditions: Any) -> Note:
    notes = list(Note.objects.filter(**conditions).order_by("pk"))
    return choice.choice(notes) if notes else _create(choice)


def _create(choice: random.Random, **fields: Any) -> Note:
    with transaction.atomic():
        number = _next()
        words = {"list": choice.choice("abc"), "text": f"note {number} <b>&", "arrived": number, "shown": number}
        return Note.objects.create(**{**words, **fields})


def _edit(choice: random.Random) -> None:
    note = _any(choice)
    note.text = choice.choice([*HOSTILE, *["edited"] * len(HOSTILE)]) + f" {choice.randrange(10**6)}"
    note.save(update_fields=["text"])


def _like(choice: random.Random) -> None:
    note = _any(choice)
    note.likes = F("likes") + 1
    note.save()


def _tag(choice: random.Random) -> None:
    with transaction.atomic():
        note = _any(choice)
        note.save()
        note.tags.add(Tag.objects.create(name=str(choice.randrange(100))))


def _delete(choice: random.Random) -> None:
    _any(choice).delete()


def _again(choice: random.Random) -> None:
    """The same key once more."""
    note = _any(choice)
    key = note.pk
    note.delete()
    _create(choice, pk=key)


def _move(choice: random.Random) -> None:
    with transaction.atomic():
        note = _any(choice)
        other = choice.choice([name for name in "abc" if name != note.list])
        note.list, note.arrived = other, _next()
        note.save()


def _part(choice: random.Random) -> None:
    """To the other channel."""
    with transaction.atomic():
        note = _any(choice, is_hidden=False)
        note.is_apart, note.arrived, note.shown = not note.is_apart, _next(), _next()
        note.save()


class RemarkInline(admin.TabularInline):
    model = Remark


class NoteAdmin(admin.ModelAdmin):
    inlines = (RemarkInline,)


def _admin(choice: random.Random) -> None:
    """A note, its tags and its remarks from one form: the last two are saved after the note."""
    note = _any(choice)
    remarks = list(note.remark_set.order_by("pk"))
    data: dict[str, Any] = {
        "list": note.list, "text": f"by admin {choice.randrange(10**6)}", "likes": note.likes,
        "arrived": note.arrived, "shown": note.shown,
        "_continue": "on", "tags": [Tag.objects.create(name=str(choice.randrange(100))).pk],
        "remark_set-TOTAL_FORMS": len(remarks) + 1, "remark_set-INITIAL_FORMS": len(remarks),
        f"remark_set-{len(remarks)}-note": note.pk, f"remark_set-{len(remarks)}-text": "a remark",
    }  # fmt: skip
    data.update({name: "on" for name in ("is_hidden", "is_apart") if getattr(note, name)})
    for number, remark in enumerate(remarks):
        data.update({f"remark_set-{number}-id": remark.pk, f"remark_set-{number}-note": note.pk,
                     f"remark_set-{number}-text": f"remark {choice.random()}"})  # fmt: skip
        if choice.random() < 0.3:
            data[f"remark_set-{number}-DELETE"] = "on"
    request: Any = RequestFactory().post("/", data)
    request.user, _ = get_user_model().objects.get_or_create(username="admin", is_staff=True, is_superuser=True)
    request._messages, request._dont_enforce_csrf_checks = CookieStorage(request), True
    answer: Any = NoteAdmin(Note, admin.site).changeform_view(request, str(note.pk), extra_context={})
    assert answer.status_code == 302, answer.context_data["errors"]


def _hide(choice: random.Random) -> None:
    note = _any(choice, is_hidden=False)
    note.is_hidden = True
    note.save()


def _show(choice: random.Random) -> None:
    with transaction.atomic():
        note = _any(choice, is_hidden=True)
        note.is_hidden, note.arrived, note.shown = False, _next(), _next()
        note.save()


def _bulk(choice: random.Random) -> None:
    with transaction.atomic():
        number = _next()
        notes = [
            Note(list=choice.choice("abc"), text=f"bulk {number + n}", arrived=number + n, shown=number + n)
            for n in range(choice.randrange(1, 8))
        ]
        live_model.broadcast(Note.objects.bulk_create(notes), "created")


def _update(choice: random.Random) -> None:
    with transaction.atomic():
        notes = Note.objects.filter(is_hidden=False, list=choice.choice("abc"))
        notes.update(text=f"all {choice.randrange(10**6)}")
        live_model.broadcast(list(notes), "updated")


def _two(choice: random.Random) -> None:
    """Two savers of one note at once, and what one does after its commit is slow."""
    note = _any(choice)

    def save(text: str, seconds: float) -> None:
        with transaction.atomic():
            transaction.on_commit(lambda: time.sleep(seconds))
            mine = Note.objects.filter(pk=note.pk).first()
            if mine is not None:
                mine.text = text
                mine.save()
        connection.close()

    threads = [threading.Thread(target=save, args=(f"two {n} {choice.random()}", 0.2 * n)) for n in (1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _rollback(choice: random.Random) -> None:
    with transaction.atomic():
        _edit(choice)
        transaction.set_rollback(True)


def _trouble(choice: random.Random) -> None:
    troubles.append(choice.choice(["503", "503", "redirect"]))


def _refresh(choice: random.Random) -> None:
    """What a page that says that it is stale is helped by."""
    troubles.clear()
    for target in ("list-a", "list-b", "list-c", "side", "rows", "count"):
        broadcast_patch("notes", "refresh", target)
