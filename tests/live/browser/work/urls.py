from django.urls import include, path

from . import views

urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("", views.page),
    path("element/", views.element),
    path("start/", views.start),
    path("patch/", views.patch),
    path("refresh/", views.refresh),
    path("written/", views.written),
]
