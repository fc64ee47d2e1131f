"""A page that shows a job; and what begins one in the server's own process."""

from __future__ import annotations

import json
from functools import partial

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.decorators.csrf import csrf_exempt

from django_sse_live import broadcast_patch, find_job, start_job

from .producer import produce


def page(request):
    """`job`: ids; `share`: with one connection for all tabs; `alone`: without a stream of the page's own."""
    jobs = [find_job(each) for each in request.GET.getlist("job")]
    return render(
        request,
        "work/page.html",
        {"jobs": jobs, **{name: name in request.GET for name in ("share", "alone", "control")}},
    )


def element(request):
    """One job's element by itself, as htmx would fetch it."""
    return render(request, "work/_job.html", {"job": find_job(request.GET["job"])})


@csrf_exempt
def patch(request):
    """A patch that brings a job's element into every page."""
    order = json.loads(request.body)
    html = render_to_string("work/_job.html", {"job": find_job(order["job"])}, request)
    broadcast_patch("news", "append", "place", html=f'<section id="patched">{html}</section>')
    return HttpResponse(status=204)


@csrf_exempt
def refresh(request):
    broadcast_patch("news", "refresh", "region")
    return HttpResponse(status=204)


def written(request):
    """What the producer has written until it ended, or until now."""
    return JsonResponse({"text": find_job(request.GET["job"]).text})


@csrf_exempt
def start(request):
    order = json.loads(request.body)
    run = partial(produce, key=order["key"], count=order["count"], rate=order["rate"])
    job = start_job(owner=None, key=order["key"], run=run)
    return JsonResponse({"id": job.id, "token": job.sign(may_stop=True)})
