from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from .forms import CommentForm
from .models import Comment


@require_http_methods(["GET", "HEAD", "POST"])
def board(request):
    """The page, and its form: POST, redirect, GET, as if there were no JavaScript."""
    initial = {"author": request.session.get("author", ""), "text": request.GET.get("text", "")}
    form = CommentForm(request.POST or None, initial=initial, user=request.user)
    if initial["text"]:
        form.fields["text"].widget.attrs["autofocus"] = True
    if request.method == "POST" and form.is_valid():
        request.session["author"] = form.save().author
        return redirect("board")
    context = {"form": form, "comments": Comment.objects.all()[:50]}
    if request.user.is_authenticated:
        context["mentions"] = request.user.mentions.all()[:5]
    return render(request, "board/board.html", context)
