"""Imports point one way: no two files of the package import each other, not even for types."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "django_sse_live"


def _imports() -> dict[str, set[str]]:
    """Of each file (``hub.log``), the files of the package that it imports, anywhere in it."""
    files = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for name, path in files.items():
        parts = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            for module, inner in _names(node, parts):
                target = inner if inner in files else module or "__init__"
                if target in files and target != name:
                    found[name].add(target)
    return found


def _names(node: ast.AST, parts: list[str]) -> list[tuple[str, str]]:
    """Of an import: each module within the package, and what is taken from it, by the names of files."""
    if isinstance(node, ast.Import):
        inner = [alias.name.split(".")[1:] for alias in node.names if alias.name.split(".")[0] == PACKAGE.name]
        return [(".".join(name), ".".join(name)) for name in inner]
    if not isinstance(node, ast.ImportFrom):
        return []
    path = node.module.split(".") if node.module else []
    if node.level:
        path = parts[: len(parts) - node.level + 1] + path
    elif path[0] == PACKAGE.name:
        path = path[1:]
    else:
        return []
    return [(".".join(path), ".".join([*path, alias.name])) for alias in node.names]


def _circles(graph: dict[str, set[str]]) -> list[list[str]]:
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            name = ahead.pop()
            if name not in seen:
                seen.add(name)
                ahead += graph[name]
        reach[start] = seen
    return sorted(
        {
            tuple(sorted(other for other in graph if other in reach[name] and name in reach[other]))
            for name in graph
            if name in reach[name]
        }
    )


def test_there_are_no_circles() -> None:
    assert _circles(_imports()) == []


def test_nobody_imports_the_package_itself() -> None:
    assert [name for name, imported in _imports().items() if "__init__" in imported] == []


def test_this_test_finds_them() -> None:
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [("b", "c")]
    assert "events" in _imports()["hub.log"] and "conf" in _imports()["hub.heartbeat"]
    assert "workers" in _imports()["management.commands.sse_live_status"]
    parts = ["hub"]
    assert [
        _names(ast.parse(line).body[0], parts)
        for line in (
            "from .log import EventLog",
            "from .. import conf",
            "from django_sse_live import broadcast",
            "import django_sse_live.events as events",
            "import json",
        )
    ] == [
        [("hub.log", "hub.log.EventLog")],
        [("", "conf")],
        [("", "broadcast")],
        [("events", "events")],
        [],
    ]
