from functools import partial

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from django_sse_live import find_job, start_job

from .answers import write_answer
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
        remember(request, form.save())
        return redirect("board")
    context = {"form": form, "comments": Comment.objects.all()[:50], "job": find_job(request.session.get("answer", ""))}
    if request.user.is_authenticated:
        context["mentions"] = request.user.mentions.all()[:5]
    return render(request, "board/board.html", context)


@require_POST
def answer(request):
    """Begin an answer. Every tab of this visitor shows it, whenever it is opened."""
    question = request.POST.get("question", "")[:200].strip() or "nothing at all"
    request.session["asked"] = True  # so that the session has a key
    if request.session.session_key is None:
        request.session.save()
    owner = request.user if request.user.is_authenticated else None
    # Asked twice at once, as by a double click, it is begun once.
    key = f"answer:{request.session.session_key}"
    job = start_job(owner=owner, key=key, run=partial(write_answer, question=question))
    request.session["answer"] = job.id
    return redirect(reverse("board") + "#answer")


@require_http_methods(["GET", "HEAD", "POST"])
def comment(request, pk):
    """One comment. Who wrote it may change and delete it."""
    comment = get_object_or_404(Comment, pk=pk)
    form = None
    if may_change(request, comment):
        form = CommentForm(request.POST or None, instance=get_object_or_404(Comment, pk=pk), user=request.user)
    if request.method == "POST":
        if form is None:
            raise PermissionDenied
        if "delete" in request.POST:
            comment.delete()
            return redirect("board")
        if form.is_valid():
            form.save()
            return redirect(comment)
    return render(request, "board/comment.html", {"comment": comment, "form": form})


def remember(request, comment):
    """Who wrote it may change it, also without being logged in."""
    request.session["author"] = comment.author
    request.session["mine"] = [*request.session.get("mine", []), comment.pk][-50:]


def may_change(request, comment):
    user = request.user
    is_author = user.is_authenticated and comment.author == user.get_username()
    return is_author or user.is_staff or comment.pk in request.session.get("mine", [])
