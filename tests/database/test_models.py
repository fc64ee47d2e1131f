"""Saves and their patches where the rows are those of a database server: the tests of models, once more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.live.harness.servers import ROOT


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"], indirect=True)
def test_saves_deletes_and_moves_are_patches_on_it_too(kind: str, server: Any) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MODEL_DATABASE": json.dumps(server.settings("models"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--ds=tests.database.model_settings"]
    files = ["tests/test_model_patches.py", "tests/test_live_saves.py"]
    tests = [*files, "-k", "EachChange or Moves or Rendering or SomeFields or AnotherForm"]
    ran = subprocess.run([*command, *tests], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    assert " passed" in ran.stdout
