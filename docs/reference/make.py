"""Writes signatures and docstrings into the pages of the reference, which can so be read where nothing builds them.

    python docs/reference/make.py            # after a docstring has changed
    python docs/reference/make.py --check    # exit status 1, and the pages, where one is not current

What stands between `<!-- api PATH -->` and `<!-- end -->` is written here; the rest of a page is by hand. PATH is that
of a function, a class or an exception; `PATH: a, b` are the methods and fields of a class that are shown with it; `tag
PATH` is a template tag or filter, which has no Python signature of its own.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

MARKED = re.compile(r"(<!-- api (tag )?([\w.]+)(?:: ([\w, ]+))? -->\n).*?(<!-- end -->)", re.DOTALL)
LINE_LENGTH = 90
HIDDEN_PARAMETERS = {"self", "cls"}

# In a docstring: ``name``: what it is, at the start of a line or sentence; name: the same below "Args:"; an error's
# name at the start of a line, and what it is raised for.
_ARGUMENT = re.compile(r"(?:^|(?<=[.:;] ))((?:``[\w*]+``(?:, | or | with ))*``[\w*]+``): ")
_NAME = r"(?:\w+Error|ImproperlyConfigured|StreamRefused|StreamEnded|MessageRefused|JobOver)\b"
_ERROR = re.compile(rf"^{_NAME}(?!\()")
_NEXT_ERROR = re.compile(rf"(?<=[.;] )(?={_NAME})")
_CALL_OR_SETTING = re.compile(r"(?<![\w.])([\w.]+\(\)|[A-Z]{3,}_[A-Z_]+|@\w+)(?!\w)")


def render(path: str, members: str, is_tag: bool) -> str:
    thing, name = find(path)
    blocks = list(describe(thing, name, is_tag))
    for member in filter(None, members.split(", ")):
        if member in fields_of(thing):
            continue
        child = inspect.getattr_static(thing, member)
        kind = type(child).__name__
        child = getattr(child, "fget", None) or getattr(child, "__func__", child)
        blocks += [f"#### `{name}.{member}{'' if kind == 'property' else '()'}`"]
        blocks += describe(child, member, False, heading=False, is_property=kind == "property")
    return "\n\n".join(blocks) + "\n"


def find(path: str) -> tuple[Any, str]:
    """The object of a dotted path, and its name as a reader writes it."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            thing: Any = __import__(".".join(parts[:end]), fromlist=["_"])
        except ImportError:
            continue
        # A module of the same name hides what the package exports.
        package = __import__(".".join(parts[: end - 1]) or parts[0], fromlist=["_"])
        if end == len(parts):
            thing, rest = package, parts[end - 1 :]
        else:
            rest = parts[end:]
        for part in rest:
            thing = getattr(thing, part)
        return thing, ".".join(rest)
    raise LookupError(path)


def describe(thing: Any, name: str, is_tag: bool, *, heading: bool = True, is_property: bool = False) -> Iterator[str]:
    is_class = inspect.isclass(thing)
    function = thing if is_class or inspect.isroutine(thing) else type(thing).__call__
    if heading and not is_tag:
        yield f"### `{name}{'' if is_class else '()'}`"
    if not is_class and not is_tag and not is_property:
        yield fenced(signature(function, name.rpartition(".")[2] if not heading else name))
    elif is_class and "__init__" in vars(thing) and _ARGUMENT.search(" ".join(str(thing.__doc__).split())):
        yield fenced(signature(thing.__init__, name).partition(" -> ")[0])
    doc = inspect.getdoc(function)
    assert doc or is_property, f"{name} has no docstring"
    yield from prose(doc or "")
    if fields_of(thing):
        yield "\n".join(fields_of(thing).values())


def fields_of(thing: Any) -> dict[str, str]:
    """Of a dataclass: a line for each field, with its comment."""
    if not hasattr(thing, "__dataclass_fields__"):
        return {}
    source = textwrap.dedent(inspect.getsource(thing))
    lines = {}
    for node in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            comment = source.splitlines()[node.lineno - 1].partition("  # ")[2]
            meaning = f": {comment}" if comment else ""
            lines[node.target.id] = f"- `{node.target.id}` (`{ast.unparse(node.annotation)}`){meaning}"
    return lines


def fenced(text: str) -> str:
    return f"```py\n{text}\n```"


def signature(function: Any, name: str) -> str:
    function = inspect.unwrap(function)
    parts, star = [], False
    declared = inspect.signature(function)
    for parameter in declared.parameters.values():
        if parameter.name in HIDDEN_PARAMETERS:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        text = parameter.name
        if parameter.kind is parameter.VAR_POSITIONAL:
            text, star = f"*{text}", True
        elif parameter.kind is parameter.VAR_KEYWORD:
            text = f"**{text}"
        if parameter.annotation is not parameter.empty:
            text += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            shown = repr(parameter.default).replace("'", '"')
            default_is_private = "\\x00" in shown or shown.startswith("<")
            text += f" = {'...' if default_is_private else shown}"
        parts.append(text)
    is_async = inspect.iscoroutinefunction(function)
    begin = f"{'async ' if is_async else ''}{name}("
    end = ")" if declared.return_annotation is declared.empty else f") -> {annotation(declared.return_annotation)}"
    if len(begin + ", ".join(parts) + end) <= LINE_LENGTH:
        return begin + ", ".join(parts) + end
    return begin + "\n" + "".join(f"    {part},\n" for part in parts if part) + end


def annotation(value: Any) -> str:
    return value.replace("'", '"') if isinstance(value, str) else getattr(value, "__name__", str(value))


def prose(doc: str) -> Iterator[str]:
    """Paragraphs; arguments and errors as lists."""
    doc = re.sub(
        r"::\n\n((?:    .*\n|\n)+)", lambda code: f":\n\n```py\n{textwrap.dedent(code[1]).strip()}\n```\n\n", doc + "\n"
    )
    for paragraph in re.split(r"\n\n(?! )", doc.strip()):
        if paragraph.startswith("```"):
            yield paragraph
        elif match := re.fullmatch(r"(Args|Returns|Raises):\n(.*)", paragraph, re.DOTALL):
            items = re.split(r"\n(?=\S)", textwrap.dedent(match[2]).strip())
            named = (re.sub(r"^([\w*]+): ", r"`\1`: ", re.sub(r"\s+", " ", item)) for item in items)
            yield heading_of(match[1]) + "\n".join(f"- {tidy(item)}" for item in named)
        else:
            yield from listed(paragraph)


def heading_of(section: str) -> str:
    return "" if section == "Args" else f"{section}:\n\n"


def listed(paragraph: str) -> Iterator[str]:
    lines = paragraph.splitlines()
    first_error = next((number for number, line in enumerate(lines) if _ERROR.match(line)), len(lines))
    text = " ".join(line.strip() for line in lines[:first_error])
    pieces = _ARGUMENT.split(text)
    if pieces[0].strip():
        yield tidy(pieces[0].strip())
    if len(pieces) > 1:
        pairs = zip(pieces[1::2], pieces[2::2], strict=True)
        yield "\n".join(f"- {tidy(names)}: {tidy(meaning.strip())}" for names, meaning in pairs)
    if first_error < len(lines):
        errors = _NEXT_ERROR.split(" ".join(line.strip() for line in lines[first_error:]))
        yield "Raises:\n\n" + "\n".join(f"- {tidy(error.strip())}" for error in errors)


def tidy(text: str) -> str:
    """As Markdown: what is code by its looks is marked as such."""
    spans = text.replace("``", "`").split("`")
    spans[::2] = (_CALL_OR_SETTING.sub(r"`\1`", span) for span in spans[::2])
    return "`".join(spans)


def written(page: Path) -> str:
    return MARKED.sub(
        lambda found: f"{found[1]}\n{render(found[3], found[4] or '', bool(found[2]))}\n{found[5]}", page.read_text()
    )


def main() -> int:
    import django
    from django.conf import settings

    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_sse_live"], USE_TZ=True
    )
    django.setup()
    stale = 0
    for page in sorted(HERE.glob("*.md")):
        text = written(page)
        if text == page.read_text():
            continue
        if "--check" in sys.argv:
            print(f"{page.name} is not current: python docs/reference/make.py")
            stale = 1
        else:
            page.write_text(text)
    return stale


if __name__ == "__main__":
    sys.exit(main())
