import os

from django.core.asgi import get_asgi_application

from django_sse_live.asgi import live_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.live.browser.pages.settings")

application = live_application(get_asgi_application())
