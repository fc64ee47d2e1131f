"""The pytest plugin, as pytest meets it in the runs of an environment where the package is installed."""

from __future__ import annotations

import subprocess
import sys


def test_the_plugin_imports_neither_django_nor_the_package_until_a_fixture_is_asked_for() -> None:
    look = (
        "import sys, pytest_sse_live; print([name for name in sys.modules if name.split('.')[0] in ('django', "
        "'django_sse_live', 'asgiref', 'channels')])"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
