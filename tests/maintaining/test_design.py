"""docs/maintaining/design.md: the map names every file and folder of the package, and nothing that is not there."""

from __future__ import annotations

import re

from tests.docs.blocks import DOCS, ROOT

PACKAGE = ROOT / "django_sse_live"
NAMED = re.findall(r"`([^` ]+)`", (DOCS / "maintaining/design.md").read_text())


def test_every_file_and_folder_is_on_the_map() -> None:
    there = {f"{path.name}/" if path.is_dir() else path.name for path in PACKAGE.iterdir() if path.name[0] not in "_."}
    top = {name.split("/")[0] + "/" if "/" in name else name for name in NAMED}
    assert there - top == {"py.typed", "urls.py"}


def test_what_the_map_names_is_there() -> None:
    for name in NAMED:
        if "/" in name or name.endswith(".py"):
            homes = [ROOT, PACKAGE, PACKAGE / "jobs", PACKAGE / "backends", PACKAGE / "http/servers"]
            assert any((home / name).exists() for home in homes), name
