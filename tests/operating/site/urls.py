import os

from django.conf import settings
from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from django_sse_live import presence
from tests.live.project.urls import urlpatterns as project


def metrics(request: HttpRequest) -> HttpResponse:
    """What prometheus-client's own documentation gives for each of its two modes."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def who_is_present(request: HttpRequest) -> HttpResponse:
    return JsonResponse(sorted(presence(request.GET["channel"])), safe=False)


urlpatterns = [
    *project,
    path("presence/", who_is_present),
    path("metrics/", metrics),
    path("admin/", admin.site.urls),
    path(f"{settings.STATIC_URL.strip('/')}/<path:path>", serve, {"insecure": True}),
]
