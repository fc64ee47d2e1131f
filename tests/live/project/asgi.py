import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.project.settings")

django_application = get_asgi_application()

from django_sse_live.asgi import live_application  # noqa: E402

application = live_application(django_application)
