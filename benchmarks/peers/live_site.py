"""A Django site with this project in it. ``plain`` is Django's own app; ``live`` has live_application around it.

With REDIS, a url, that is the bus. MIDDLEWARE=1 in the environment puts it behind the middleware of a new Django
project; DATABASE is a file for its sessions. With PROMETHEUS_MULTIPROC_DIR it keeps metrics in the way that costs
most, files for several workers, and is scraped once a second.
"""

import os
import threading
import time

import django
from django.conf import settings
from site_settings import SITE

SITE["DATABASES"]["default"]["NAME"] = os.environ.get("DATABASE", ":memory:")
settings.configure(
    **SITE,
    ROOT_URLCONF=__name__,
    SESSION_ENGINE="django.contrib.sessions.backends." + ("db" if "DATABASE" in os.environ else "signed_cookies"),
    SSE_LIVE={
        "MAX_CLIENTS_PER_USER": None,  # all of them are one
        **(
            {
                "BACKEND": "django_sse_live.backends.redis_streams.RedisStreamsBackend",
                "OPTIONS": {"URL": os.environ["REDIS"]},
            }
            if os.environ.get("REDIS")
            else {}
        ),
    },
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

from django.contrib.auth import login  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from payload import start_publishing  # noqa: E402

from django_sse_live import abroadcast, abroadcast_patch  # noqa: E402
from django_sse_live.asgi import live_application  # noqa: E402
from django_sse_live.hub.registry import process_counts  # noqa: E402


def event(data):
    return abroadcast("bench", "message", data)


def patch(data):
    number, nanoseconds = data["at"]
    html = f"""<li id="row" data-note='"at":[{number},{nanoseconds}]'>{data["padding"]}</li>"""
    return abroadcast_patch("bench", "append", "list", html=html)


async def publish(request):
    start_publishing(request.GET, patch if request.GET["of"] == "patch" else event)
    return HttpResponse(status=204)


def enter(request):
    """A session of somebody who is logged in; tickets() says how often nobody had to look at it."""
    call_command("migrate", verbosity=0)
    login(request, User.objects.get_or_create(username="ada")[0])
    request.session.save()
    return HttpResponse(f"Cookie: {settings.SESSION_COOKIE_NAME}={request.session.session_key}")


def tickets(request):
    return HttpResponse(process_counts().tickets)


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
    path("enter", enter),
    path("tickets", tickets),
    path("empty/", empty),
]
plain = get_asgi_application()
live = live_application(get_asgi_application())
