"""What whoever operates the site sees of jobs: the admin's list, its button, and the metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client

from django_sse_live import astart_job, find_job, start_job
from django_sse_live.hub.registry import find_hub
from django_sse_live.metrics import counters, gauges
from django_sse_live.workers import worker_of
from tests.jobs.test_watching import watch

PAGE = "/admin/django_sse_live/liveconnection/"


def logged_in(*permissions: str) -> Client:
    user = User.objects.create_user("-".join(permissions), is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{p}_liveconnection" for p in permissions]))
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.django_db(transaction=True)
def test_the_admin_stops_a_job() -> None:
    client, looker = logged_in("view", "change"), logged_in("view")
    job = start_job(owner=7)
    headers = {"Accept": "application/json"}
    assert looker.post(f"{PAGE}disconnect/", {"job": job.id}, headers=headers).status_code == 403
    assert Client().post(f"{PAGE}disconnect/", {"job": job.id}, headers=headers).status_code == 302
    assert job.state == "running"
    assert client.post(f"{PAGE}disconnect/", {"job": job.id}, headers=headers).status_code == 200
    found = find_job(job.id)
    assert found is not None and found.state == "cancelled"
    assert job.id in LogEntry.objects.get().object_id
    assert client.post(f"{PAGE}disconnect/", {"job": "0" * 32}, headers=headers).status_code == 400
    page = client.get(PAGE).content.decode()
    assert 'id="sse-jobs"' in page and 'name="job"' in page
    assert 'name="job"' not in looker.get(PAGE).content.decode()


async def test_workers_report_the_jobs_that_run_and_who_watches_here() -> None:
    job = await astart_job(owner=7)
    async with watch(job.sign()) as page:
        job.progress(0.5, "half")
        job.write("abc")
        while page.text != "abc":
            await page.frame()
        hub = find_hub(asyncio.get_running_loop())
        assert hub is not None
        worker = worker_of(hub)
        report = await worker.report(limit=10)
        assert report["jobs"] == [
            {
                "id": job.id, "owner": "7", "state": "running", "progress": 0.5, "label": "half", "length": 3,
                "watchers": 1,
            }
        ]  # fmt: skip
        assert (await worker.report(limit=10, namespace="other"))["jobs"] == []
        await job.afinish()
        await page.until("finished")
        assert (await worker.report(limit=10))["jobs"] == []


async def test_metrics() -> None:
    def found() -> tuple[Any, ...]:
        counted = counters()
        ended = counted["sse_live_jobs_ended"]
        return counted["sse_live_jobs_started"], ended["finished"], ended["failed"], gauges()["sse_live_jobs_running"]

    started, finished, failed, running = await sync_to_async(found)()
    jobs = [await astart_job() for _ in range(3)]
    await jobs[0].afinish()
    await jobs[1].afail("no")
    assert await sync_to_async(found)() == (started + 3, finished + 1, failed + 1, running + 1)
