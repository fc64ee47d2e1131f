"""A page that sends messages: who is logged in, and what was handled."""

from __future__ import annotations

from django.contrib.auth import get_user_model, login, logout
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render

from django_sse_live import broadcast, on_message

notes: dict[str, list] = {}


@on_message("note", channel="*")
def write(message):
    if message.data == "refused":
        raise ValueError("Not this one.")
    written = notes.setdefault(message.channel, [])
    written.append(message.data)
    broadcast(message.channel, "note", message.data)
    return {"count": len(written), "client": message.client_id}


def page(request, template="messages.html"):
    options = {name: request.GET.get(name) for name in ("transport", "queue")}
    return render(request, template, {"channel": request.GET["channel"], **options})


def written(request):
    return JsonResponse({"notes": notes.get(request.GET["channel"], [])})


def enter(request, name):
    """Logged in as a user of this name; as nobody without one."""
    if name == "nobody":
        logout(request)
    else:
        login(request, get_user_model().objects.get_or_create(username=name)[0])
    return HttpResponse(name)
