from django.urls import include, path

from . import messages, views

urlpatterns = [
    path("events/", include("django_sse_live.urls")),
    path("", views.page, {"template": "suite.html"}),
    path("tab/", views.tab),
    path("prerendered/", views.prerendered),
    path("prerendered/rules/", views.prerendering_rules),
    path("states/", views.page, {"template": "states.html"}),
    path("answer/<int:status>/", views.answer),
    path("libraries/", views.libraries),
    path("fragment/", views.fragment),
    path("broadcast/", views.send),
    path("ticks/", views.ticks),
    path("clients/", views.clients),
    path("script/<str:name>/", views.script),
    path("script/<str:name>/plan/", views.plan),
    path("report/", views.report),
    path("messages/", messages.page),
    path("messages/written/", messages.written),
    path("messages/enter/<str:name>/", messages.enter),
]
