"""The project on a real server: as a test case, and as a pytest fixture, found by a pytest of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from django_sse_live.testing import LiveServerTestCase
from tests.testapp.models import Note

ROOT = Path(__file__).resolve().parents[2]


@override_settings(SSE_LIVE={"PUBLIC_CHANNELS": ["notes"]})
class OnALiveServer(LiveServerTestCase):
    def test_a_save_in_the_test_is_heard_over_the_socket(self):
        with httpx.stream("GET", self.live_server_url + "/events/?channel=notes", timeout=60) as response:
            lines = response.iter_lines()
            self.assertIn("event: connected", lines)
            Note.objects.create(text="hello")
            self.assertIn("event: new_note", lines)

    def test_the_server_sees_the_rows_of_the_test(self):
        self.client.force_login(User.objects.create_user("otter"))
        cookies = {name: morsel.value for name, morsel in self.client.cookies.items()}
        url = self.live_server_url + "/events/"
        with httpx.stream("GET", url, cookies=cookies, timeout=60) as response:
            data = next(line for line in response.iter_lines() if line.startswith("data: "))
        self.assertEqual(json.loads(data[6:])["channels"], [f"user:{User.objects.get().pk}"])

    def test_it_serves_static_files(self):
        answer = httpx.get(self.live_server_url + "/static/django_sse_live/sse-live.js")
        self.assertIn("SSELive", answer.text)

    def test_a_stream_left_open_does_not_hold_up_the_end(self):
        response = httpx.Client(timeout=60)
        stream = response.send(
            response.build_request("GET", self.live_server_url + "/events/?channel=notes"), stream=True
        )
        self.addClassCleanup(response.close)
        self.assertEqual(stream.status_code, 200)


@pytest.fixture
def run_pytest(tmp_path):
    """Runs a file of tests as somebody's project would, with this plugin and pytest-django's alone."""

    def run(source: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source))
        (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        plugins = ["pytest_django.plugin", "pytest_asyncio.plugin", "django_sse_live.testing.pytest_plugin"]
        command = [sys.executable, "-m", "pytest", "-q", *(f"-p{name}" for name in plugins)]
        environment = {
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(ROOT),
            "DJANGO_SETTINGS_MODULE": "tests.settings",
        }
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return run


def test_the_fixtures(run_pytest):
    done = run_pytest(
        """
        import httpx
        import pytest
        from tests.testapp.models import Note

        @pytest.fixture(autouse=True)
        def public(settings):
            settings.SSE_LIVE = {"PUBLIC_CHANNELS": ["notes"]}

        @pytest.mark.parametrize("turn", [1, 2])
        def test_live(live_asgi_server, turn):
            with httpx.stream("GET", live_asgi_server + "/events/?channel=notes", timeout=60) as response:
                lines = response.iter_lines()
                assert "event: connected" in lines
                Note.objects.create(text="hello")
                assert "event: new_note" in lines

        @pytest.mark.django_db(transaction=True)
        async def test_stream(stream_client):
            async with stream_client.stream("/events/", {"channel": "notes"}) as stream:
                await Note.objects.acreate(text="hello")
                assert (await stream.next()).type == "new_note"

        @pytest.mark.django_db
        async def test_stream_in_a_transaction(stream_client):
            async with stream_client.stream("/events/", {"channel": "notes"}) as stream:
                await Note.objects.acreate(text="hello")
                assert (await stream.next()).type == "new_note"
        """
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_whoever_does_not_use_django_is_not_bothered(run_pytest, tmp_path):
    (tmp_path / "test_it.py").write_text("def test_nothing(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-pdjango_sse_live.testing.pytest_plugin"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
