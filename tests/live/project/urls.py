from django.urls import include, path

from . import views

urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("ticks/", include("django_sse_live.urls"), {"channels": ["ticks"]}),
    path("snapshot/", views.Snapshot.as_view()),
    path("publish/", views.publish),
    path("publish/steadily/", views.publish_steadily),
    path("publish/stop/", views.publish_stop),
    path("state/", views.state),
    path("plain/sync/", views.plain_sync),
    path("plain/async/", views.plain_async),
    path("plain/slow/", views.plain_slow),
    path("upload/", views.upload),
    path("stream/", views.stream),
]
