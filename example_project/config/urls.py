from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("board.urls")),
    path("events/", include("django_sse_live.urls")),
    path(
        "login/",
        auth.LoginView.as_view(template_name="board/login.html", extra_context={"shows_users": settings.DEBUG}),
        name="login",
    ),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url=static("board/icon.svg"))),  # for pages that name no icon: the admin's
]
