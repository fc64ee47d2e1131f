from __future__ import annotations

from django.contrib.auth import login, logout
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.urls import include, path


def enter(request: HttpRequest) -> HttpResponse:
    """A new session for ada, made if need be."""
    login(request, User.objects.get_or_create(username="ada")[0])
    return HttpResponse("in")


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("out")


def change_password(request: HttpRequest) -> HttpResponse:
    user = User.objects.get(username="ada")
    user.set_password("another")
    user.save()
    return HttpResponse("changed")


urlpatterns = [
    path("enter/", enter),
    path("leave/", leave),
    path("password/", change_password),
    path("", include("tests.live.project.urls")),
]
