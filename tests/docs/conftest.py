"""The project that the tutorial builds, made once from its blocks; and a copy for each page that goes on from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks_of


@dataclass(frozen=True)
class Project:
    directory: Path
    package: Path = ROOT  # where django_sse_live is imported from

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": f"{self.directory}:{self.package}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }

    def run(self, *arguments: str | Path, **environment: str) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(
            command,
            cwd=self.directory,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{' '.join(command)[:300]}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("checkout") / "django-sse-live"
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "node_modules", "db.sqlite3*")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (copy / "out").glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel installs, in a folder of its own: all that somebody without a checkout has."""
    directory = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@pytest.fixture(scope="session")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tutorial")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""}
    for command in (["startproject", "mysite", "."], ["startapp", "board"]):
        subprocess.run([sys.executable, "-m", "django", *command], cwd=directory, env=environment, check=True)
    for block in blocks_of("tutorial.md"):
        if block.path:
            block.write_into(directory)
    return directory


@pytest.fixture(scope="session")
def project_of(tutorial: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Project]:
    """The tutorial's project with the files of a page in it, checked and migrated. Pages without files share one."""
    made: dict[str, Project] = {}

    def project(page: str) -> Project:
        files = [block for block in blocks_of(page) if block.path and page != "tutorial.md"]
        key = page if files else "tutorial.md"
        if key not in made:
            directory = tmp_path_factory.mktemp("project") / "site"
            shutil.copytree(tutorial, directory)
            made[key] = Project(directory)
            for block in files:
                block.write_into(directory)
            made[key].run("-c", PREPARE)
        return made[key]

    return project


PREPARE = """
import django
django.setup()
from django.core.management import call_command
call_command("makemigrations", "board", verbosity=0)
call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")
"""
