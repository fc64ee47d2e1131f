"""Every text of the widget and the admin page is said in every language that is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.docs.blocks import ROOT


@pytest.mark.skipif(not shutil.which("xgettext"), reason="needs gettext, which is not on this machine")
def test_nothing_is_left_untranslated(tmp_path):
    package = tmp_path / "django_sse_live"
    shutil.copytree(ROOT / "django_sse_live", package, ignore=shutil.ignore_patterns("__pycache__"))
    languages = sorted(path.name for path in (package / "locale").iterdir())
    assert len(languages) >= 5
    command = [sys.executable, "-m", "django", "makemessages", "--no-obsolete", *(f"-l{name}" for name in languages)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": ""}
    subprocess.run(command, cwd=package, env=environment, check=True, capture_output=True)
    for name in languages:
        catalogue = package / "locale" / name / "LC_MESSAGES" / "django.po"
        for option in ("--untranslated", "--only-fuzzy"):
            shown = subprocess.run(["msgattrib", option, catalogue], check=True, capture_output=True, text=True).stdout
            left = re.findall(r'^msgid "(.+)"$', shown, re.MULTILINE)
            assert left == [], f"{name}, {option}: run makemessages, and translate"


@pytest.mark.skipif(not shutil.which("msgfmt"), reason="needs gettext, which is not on this machine")
def test_what_is_compiled_is_what_was_translated(tmp_path):
    for source in (ROOT / "django_sse_live" / "locale").rglob("*.po"):
        subprocess.run(["msgfmt", "-o", tmp_path / "new.mo", source], check=True)
        texts = [
            subprocess.run(["msgunfmt", "--sort-output", file], check=True, capture_output=True).stdout
            for file in (source.with_suffix(".mo"), tmp_path / "new.mo")
        ]
        assert texts[0] == texts[1], f"{source.parts[-3]}: run compilemessages"
