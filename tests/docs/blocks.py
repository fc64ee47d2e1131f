"""The code blocks of the documentation, as they stand in its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts)

_BLOCK = re.compile(
    r"^(?P<fence>`{3,}|:{3,})(?P<language>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE
)
# A block that opens with a comment which is a path is that file, or what is added to it. The comment is copied with it.
_PATH = re.compile(r"(?:#|//|\{#|<!--) ([\w./-]+\.\w+)(, at the end)?(?: #\}| -->)?\n")


@dataclass(frozen=True, slots=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.language}"

    @property
    def path(self) -> str | None:
        match = _PATH.match(self.text)
        return match[1] if match else None

    def write_into(self, project: Path) -> None:
        match = _PATH.match(self.text)
        assert match, f"{self} is no file"
        path = project / match[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_text() if match[2] else ""
        path.write_text(before + self.text)


def blocks_of(page: str, heading: str = "") -> Iterator[Block]:
    """Of a page below docs, such as ``"../README.md"``; ``heading``: of that section alone."""
    text = (DOCS / page).read_text()
    start = text.index(f"\n## {heading}\n") + 1 if heading else 0
    end = text.find("\n## ", start) if heading else -1
    for match in _BLOCK.finditer(text, start, len(text) if end < 0 else end):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"].strip().removesuffix("+django"), match["text"])
