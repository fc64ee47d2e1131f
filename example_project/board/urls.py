from django.urls import path

from . import views

urlpatterns = [
    path("", views.board, name="board"),
    path("<int:pk>/", views.comment, name="comment"),
    path("answer/", views.answer, name="answer"),
]
