from __future__ import annotations

from django.contrib.auth import get_user, login, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from django_sse_live import disconnect_clients


def namespace(request: HttpRequest | None) -> str:
    """A tenant for each first word of a host."""
    return "" if request is None else request.get_host().partition(".")[0].partition(":")[0]


def enter(request: HttpRequest) -> HttpResponse:
    """A new session for ada, or for ?name=, made if need be."""
    login(request, User.objects.get_or_create(username=request.GET.get("name", "ada"))[0])
    return HttpResponse("in")


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("out")


def change_password(request: HttpRequest) -> HttpResponse:
    user = User.objects.get(username="ada")
    user.set_password("another")
    user.save()
    return HttpResponse("changed")


def deactivate(request: HttpRequest) -> HttpResponse:
    user = get_user(request)
    user.is_active = False
    user.save()
    return HttpResponse("deactivated")


def change_own_password(request: HttpRequest) -> HttpResponse:
    user = get_user(request)
    user.set_password("another")
    user.save()
    return HttpResponse("changed")


def delete(request: HttpRequest) -> HttpResponse:
    get_user(request).delete()
    return HttpResponse("deleted")


def disconnect(request: HttpRequest) -> HttpResponse:
    disconnect_clients(user=get_user(request))
    return HttpResponse("disconnected")


urlpatterns = [
    path("deactivate/", deactivate),
    path("password/own/", change_own_password),
    path("delete/", delete),
    path("disconnect/", disconnect),
    path("enter/", enter),
    path("leave/", leave),
    path("password/", change_password),
    path("", include("tests.live.project.urls")),
]
