"""A page with a list of fifty, which every browser fetches anew when somebody saves; and a view that does nothing."""

import os

import django
from django.conf import settings
from site_settings import SITE

PAGE = """{% load sse_live %}{% sse_live "bench" %}<ol id="list" data-sse-live>{% for row in rows %}
<li id="row-{{ row.pk }}"><b>{{ row.title }}</b> {{ row.text|linebreaksbr }} {{ row.at }}</li>{% endfor %}</ol>"""

settings.configure(
    **SITE,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.contenttypes", "django_sse_live", "django.contrib.staticfiles"],
    STATIC_URL="static/",
    SSE_LIVE={"REFRESH_COST_MS": int(os.environ["REFRESH_COST_MS"])} if "REFRESH_COST_MS" in os.environ else {},
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "OPTIONS": {
                # Compiled once, as a project has it.
                "loaders": [
                    (
                        "django.template.loaders.cached.Loader",
                        [
                            ("django.template.loaders.locmem.Loader", {"page.html": PAGE}),
                            "django.template.loaders.app_directories.Loader",
                        ],
                    )
                ]
            },
        }
    ],
)
django.setup()

import asyncio  # noqa: E402

from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.shortcuts import render  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils import timezone  # noqa: E402

from django_sse_live import abroadcast_patch  # noqa: E402
from django_sse_live.asgi import live_application  # noqa: E402

saving = set()


def page(request):
    rows = [{"pk": n, "title": f"Row {n}", "text": "some words\n" * 3, "at": timezone.now()} for n in range(50)]
    return render(request, "page.html", {"rows": rows})


async def publish(request):
    async def save():
        for _ in range(int(request.GET["events"])):
            await abroadcast_patch("bench", "refresh", "list")
            await asyncio.sleep(1 / float(request.GET["hz"]))

    task = asyncio.ensure_future(save())
    saving.add(task)
    task.add_done_callback(saving.discard)
    return HttpResponse(status=204)


async def empty(request):
    return HttpResponse()


urlpatterns = [
    path("events/", include("django_sse_live.urls"), {"channels": ["bench"]}),
    path("page/", page),
    path("publish", publish),
    path("empty/", empty),
]
live = live_application(get_asgi_application())
