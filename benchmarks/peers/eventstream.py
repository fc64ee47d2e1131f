"""django-eventstream, in one process, as its README sets it up."""

import django
from django.conf import settings
from site_settings import SITE

settings.configure(
    **SITE,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django_eventstream"],
)
django.setup()

import django_eventstream  # noqa: E402
from asgiref.sync import sync_to_async  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from payload import start_publishing  # noqa: E402

send_event = sync_to_async(django_eventstream.send_event)


async def publish(request):
    start_publishing(request.GET, lambda data: send_event("bench", "message", data))
    return HttpResponse(status=204)


urlpatterns = [
    path("events/", include(django_eventstream.urls), {"channels": ["bench"]}),
    path("publish", publish),
]
application = get_asgi_application()
