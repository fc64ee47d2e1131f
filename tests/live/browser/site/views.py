"""What the suite plays with: a broadcast at will, numbered ticks, and servers that misbehave as they are told."""

from __future__ import annotations

import asyncio
import json

from django.dispatch import receiver
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import csrf_exempt

from django_sse_live import abroadcast, broadcast_text
from django_sse_live.signals import client_connected, client_disconnected

open_clients: dict[str, list[str]] = {}
plans: dict[str, list[dict]] = {}
requests: dict[str, list[dict]] = {}
reports: list[dict] = []
background: set[asyncio.Task] = set()


@receiver(client_connected)
async def note(client, **_):
    open_clients[client.id] = list(client.channels)


@receiver(client_disconnected)
async def forget(client, **_):
    open_clients.pop(client.id, None)


async def page(request, template):
    return render(request, template)


async def prerendered(request):
    """A page that has the pages of `next` prerendered; by a header, as the policy allows nothing inline."""
    response = render(request, "prerendered.html")
    if request.GET.get("next"):
        response["Speculation-Rules"] = f'"/prerendered/rules/?{request.GET.urlencode()}"'
    return response


async def prerendering_rules(request):
    run, channels = request.GET["run"], request.GET["next"].split(",")
    urls = [f"/prerendered/?run={run}&channel={channel}" for channel in channels]
    rules = {"prerender": [{"urls": urls, "eagerness": "immediate"}]}
    return JsonResponse(rules, content_type="application/speculationrules+json")


class Visitor:
    """A user as far as the tag looks at one."""

    is_authenticated = True

    def __init__(self, name):
        self.pk = name


async def tab(request):
    """A page of a site: its channels, who it was drawn for, and whether it shares."""
    if name := request.GET.get("user"):
        request.user = Visitor(name)
    context = {
        "channels": request.GET.getlist("channel"),
        **{key: request.GET.get(key) for key in ("share", "persist")},
    }
    return render(request, "tab.html", context)


async def answer(request, status):
    return HttpResponse(status=status)


async def libraries(request):
    return render(request, "libraries.html", {"channel": request.GET["channel"]})


async def fragment(request):
    return HttpResponse("<b>fetched</b>")


@csrf_exempt
async def send(request):
    event = json.loads(request.body)
    if "html" in event:
        broadcast_text(event["channel"], event["type"], event["html"], on_commit=False)
    else:
        await abroadcast(event["channel"], event["type"], event.get("data"))
    return HttpResponse(status=204)


@csrf_exempt
async def ticks(request):
    """`count` events `tick` with the data 0, 1, 2 …, `interval` seconds apart."""
    order = json.loads(request.body)

    async def run():
        for number in range(order["count"]):
            await abroadcast(order["channel"], "tick", number)
            await asyncio.sleep(order["interval"])

    task = asyncio.create_task(run())
    background.add(task)
    task.add_done_callback(background.discard)
    return HttpResponse(status=204)


async def clients(request):
    return JsonResponse({"clients": list(open_clients.values())})


@csrf_exempt
async def plan(request, name):
    """POST: what the connections to this script get, one after the other. GET: what they asked for."""
    if request.method == "POST":
        plans[name] = json.loads(request.body)
        requests[name] = []
    return JsonResponse({"requests": requests.get(name, [])})


async def script(request, name):
    """One step of the plan; its last is for all that come after. HEAD is told what the last GET was."""
    steps = plans[name]
    if request.method == "HEAD":
        step = steps[min(len(requests[name]), len(steps)) - 1]
    else:
        step = steps[min(len(requests[name]), len(steps) - 1)]
        requests[name].append(dict(request.GET.items()))
    if "status" in step:
        return HttpResponse(status=step["status"], headers=step.get("headers", {}))

    async def stream():
        for frame in step["frames"]:
            head = f"id: {frame.pop('id')}\n" if "id" in frame else ""
            yield f"{head}data: {json.dumps(frame)}\n\n"
        await asyncio.sleep(step.get("seconds", 0))

    return StreamingHttpResponse(stream(), content_type="text/event-stream", headers={"Cache-Control": "no-store"})


@csrf_exempt
async def report(request):
    if request.method == "POST":
        reports.append(json.loads(request.body))
    return JsonResponse({"reports": reports})
