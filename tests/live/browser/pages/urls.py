from django.urls import include, path

from . import views

urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("suite/", views.suite),
    path("report/", views.report),
    path("board/", views.board),
    path("cached/", views.cached),
    path("later/", views.later),
    path("elsewhere/", views.elsewhere),
    path("act/", views.act),
]
