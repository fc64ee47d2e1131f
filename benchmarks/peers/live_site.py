"""A Django site with this project in it. ``plain`` is Django's own app; ``live`` has live_application around it.

MIDDLEWARE=1 in the environment puts it behind the middleware of a new Django project. With PROMETHEUS_MULTIPROC_DIR it
keeps metrics in the way that costs most, files for several workers, and is scraped once a second.
"""

import os
import threading
import time

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="benchmarks",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    LOGGING_CONFIG=None,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "django_sse_live",
    ],
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ]
    if os.environ.get("MIDDLEWARE")
    else [],
)
django.setup()

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from payload import start_publishing  # noqa: E402

from django_sse_live import abroadcast  # noqa: E402
from django_sse_live.asgi import live_application  # noqa: E402


async def publish(request):
    start_publishing(request.GET, lambda data: abroadcast("bench", "message", data))
    return HttpResponse(status=204)


async def empty(request):
    """What a request costs under Django that does nothing."""
    return HttpResponse()


if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = CollectorRegistry()
    MultiProcessCollector(registry)

    def scrape():
        while True:
            generate_latest(registry)
            time.sleep(1)

    threading.Thread(target=scrape, daemon=True).start()

urlpatterns = [
    path("events/", include("django_sse_live.urls"), {"channels": ["bench"]}),
    path("publish", publish),
    path("empty/", empty),
]
plain = get_asgi_application()
live = live_application(get_asgi_application())
