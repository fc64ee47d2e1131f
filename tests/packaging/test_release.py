"""The dry run of a release, in a clone of its own: it works offline, and says what is missing."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = importlib.metadata.version("django-sse-live")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def git(clone: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    subprocess.run(["git", *identity, *arguments], cwd=clone, check=True, capture_output=True)


def check(clone: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, ".ci/release_check.py"], cwd=clone, capture_output=True, text=True)


def test_a_release_that_is_not_ready_is_told_why(clone: Path) -> None:
    (clone / "left.txt").write_text("left")
    done = check(clone)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "changes that are not committed" in done.stdout
    assert f'CHANGELOG.md has no heading "## {VERSION} (year-month-day)"' in done.stdout
    assert "lacks" not in done.stdout


def test_a_release_that_is_ready_is_told_its_tag(clone: Path) -> None:
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace(f"## Unreleased ({VERSION})", f"## {VERSION} (2026-12-01)"))
    git(clone, "commit", "--all", "--message", VERSION)
    done = check(clone)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"git tag -s v{VERSION}" in done.stdout
    git(clone, "tag", f"v{VERSION}")
    assert f"The tag v{VERSION} is there already" in check(clone).stdout
