"""The wheel holds all that the app needs, and nothing else; installed, it works where there is no checkout."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = importlib.metadata.version("django-sse-live")

# Django, and what Django itself stands on: all that a site without extras has.
DJANGO_ALONE = ["django", "asgiref", "sqlparse", "typing_extensions"]

# Runs in the bare environment.
USE_IT = """
import pathlib, sys
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="k",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions",
                    "django.contrib.staticfiles", "django_sse_live"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    ROOT_URLCONF="__main__", ASGI_APPLICATION="django_sse_live.asgi.application",
    STATIC_URL="static/", USE_I18N=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

import django_sse_live
assert pathlib.Path(sys.prefix) in pathlib.Path(django_sse_live.__file__).parents, django_sse_live.__file__
from django_sse_live import (
    abroadcast, adisconnect_clients, asend_to_user, broadcast, broadcast_template, broadcast_text, disconnect_clients,
    live_model, send_to_user, sign_channels, stream_position,
)
from django_sse_live.asgi import live_application
from django_sse_live.signals import live_event
from django_sse_live.testing import capture_broadcasts

from django.contrib.staticfiles import finders
assert finders.find("django_sse_live/sse-live.js")

from django.template import Context, Template
from django.test import RequestFactory
from django.contrib.auth.models import AnonymousUser
from django.utils import translation
from django.urls import include, path
urlpatterns = [path("events/", include("django_sse_live.urls"))]
request = RequestFactory().get("/")
request.user = AnonymousUser()
texts = set()
for language in ["en", "id"]:
    with translation.override(language):
        texts.add(Template('{% load sse_live %}{% sse_live "comments" %}').render(Context({"request": request})))
english, indonesian = sorted(texts, key=lambda text: "Disconnected" not in text)
assert "<sse-live" in english and "sse-live.js" in english and "Disconnected" in english, english
assert "Disconnected" not in indonesian, indonesian

from django.core.management import call_command
call_command("check")
print("it works")
"""


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The sdist, and the wheel that is built from it, from a copy of the checkout: no file of the tree is touched."""
    copy = tmp_path_factory.mktemp("checkout") / "django-sse-live"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "db.sqlite3*")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "out"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [sdist], [wheel] = (copy / "out").glob("*.tar.gz"), (copy / "out").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def wheel(distributions):
    return distributions[1]


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_version_is_that_of_setup_cfg(wheel):
    configuration = configparser.RawConfigParser()
    configuration.read(ROOT / "setup.cfg")
    assert configuration["metadata"]["version"] == VERSION
    assert wheel.name == f"django_sse_live-{VERSION}-py3-none-any.whl"


def test_every_file_of_the_package_is_in_the_wheel(names):
    left_out = {".pyc", ".pyo"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "django_sse_live").rglob("*")
        if path.is_file() and path.suffix not in left_out
    }
    assert wanted <= names
    for kind in ("py.typed", ".html", ".js", ".mo"):
        assert any(name.endswith(kind) for name in wanted), f"the package has no {kind}"


def test_nothing_else_is_in_the_wheel(names):
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"django_sse_live", "pytest_sse_live.py", f"django_sse_live-{VERSION}.dist-info"}


def test_django_is_the_only_hard_dependency(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"django_sse_live-{VERSION}.dist-info/METADATA").decode()
    required = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert required == ["Requires-Dist: Django>=5.2"]
    assert "License-Expression: MIT" in metadata


def test_the_sdist_holds_what_its_tests_need(distributions):
    with tarfile.open(distributions[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.cfg", "LICENSE", "README.md", "Makefile", "tests/settings.py", "example_project/manage.py"} <= names


def test_an_index_would_take_both(distributions):
    command = [sys.executable, "-m", "twine", "check", "--strict", *distributions]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2, done.stdout


def test_the_wheel_brings_fixtures_for_pytest(wheel):
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.read(f"django_sse_live-{VERSION}.dist-info/entry_points.txt").decode()
    assert "sse_live = pytest_sse_live" in entries


@pytest.mark.timeout(900)  # seconds: ten servers are started, and two front ends built
@pytest.mark.needs("curl", "chromium", "npm")
def test_a_newcomer_has_what_the_tutorial_says_then_jobs_then_react(wheel, tmp_path, tools):
    """From an empty directory: an environment, the wheel with what it asks for, a project, its server, a stream."""
    said = walk(wheel, tmp_path, "tutorial", "answer", "progress", "react", "spa", CHROMIUM=tools["chromium"])
    assert "event: new_comment" in said


@pytest.mark.timeout(900)  # seconds: eleven servers are started
@pytest.mark.needs("chromium", "npm")
def test_a_newcomer_has_what_readme_says_then_htmx_and_turbo(wheel, tmp_path, tools):
    """The guides alone, after README's five minutes: two windows, a restart of the server."""
    walk(wheel, tmp_path, "README", "htmx4", "htmx2", "turbo", CHROMIUM=tools["chromium"])


def walk(wheel, tmp_path, *page, **environment):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(f"Django=={importlib.metadata.version('Django')}\n")
    (tmp_path / "empty").mkdir()
    command = [sys.executable, ROOT / "tests" / "docs" / "newcomer.py", wheel, *page]
    environment = {**os.environ, **environment, "PIP_CONSTRAINT": str(constraints), "TMPDIR": str(tmp_path / "empty")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("--- It works.\n")
    return done.stdout


def test_an_installed_wheel_works_without_the_checkout(wheel, tmp_path):
    venv.create(tmp_path / "env", symlinks=True, with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    [packages] = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    pip = [sys.executable, "-m", "pip", "--quiet", "install"]
    subprocess.run([*pip, "--no-deps", "--target", packages, wheel], check=True)
    for name in DJANGO_ALONE:
        spec = importlib.util.find_spec(name)
        if spec and spec.origin:
            found = Path(spec.origin)
            found = found.parent if found.name == "__init__.py" else found
            (packages / found.name).symlink_to(found)
    command = [python, "-I", "-c", USE_IT]  # -I: no PYTHONPATH, and not the current directory
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("it works\n")
