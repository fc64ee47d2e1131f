"""The documentation: `make docs` builds it, with every warning an error."""

import configparser
import os
import re
from html import escape
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_metadata = configparser.RawConfigParser()
_metadata.read(Path(__file__).parent.parent / "setup.cfg")

project = "django-sse-live"
author = "The django-sse-live contributors"
copyright = author
release = _metadata["metadata"]["version"]

extensions = ["myst_parser", "sphinx_design"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure"]  # Pygments knows no generics in TSX, and says so of each

html_theme = "furo"
html_title = f"django-sse-live {release}"
html_copy_source = False
html_show_sphinx = False
html_favicon = "images/favicon.svg"
html_static_path = ["images/card.png", "images/site.css"]
html_css_files = ["site.css"]
pygments_dark_style = "github-dark"
html_baseurl = os.environ.get("DOCS_URL", "")  # such as https://docs.example.com/: a social card needs it


def _describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """What a link to a page shows where it is shared."""
    tags = {
        "og:title": context.get("title", project),
        "og:site_name": project,
        "og:type": "website",
        "og:description": _metadata["metadata"]["description"],
        "twitter:card": "summary_large_image",
    }
    if html_baseurl:
        tags |= {"og:url": f"{html_baseurl}{page}.html", "og:image": f"{html_baseurl}_static/card.png"}
    lines = (f'<meta property="{name}" content="{escape(str(text))}">' for name, text in tags.items())
    context["metatags"] = context.get("metatags", "") + "\n".join(lines)


def _finish(app: Sphinx, exception: Exception | None) -> None:
    """What the theme and the Markdown leave to be wished by who uses a keyboard or has pages read aloud."""
    if exception is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text()
        for before, after in _READABLE:
            text = re.sub(before, after, text)
        page.write_text(text)


def _breakable(cell: re.Match[str]) -> str:
    """A table's cell whose names may break after a dot or an underscore."""
    return re.sub(r"(?<=\w)([._])(?=\w+[^<>]*</span>)", r"\1<wbr>", cell[0])


_READABLE: list[tuple[str, Any]] = [
    (r'<td><p><code class="docutils.*?</td>', _breakable),
    (r"<pre>", '<pre tabindex="0">'),  # it scrolls
    (r'<div class="(table-wrapper[^"]*)">', r'<div class="\1" tabindex="0">'),
    (r'<th class="([^"]*)"><p></p></th>', r'<td class="\1"></td>'),
    (r'role="heading">', 'role="heading" aria-level="2">'),
    (r'<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Pages">'),
    (r'<aside class="toc-drawer( no-toc)?">', r'<aside class="toc-drawer\1" aria-label="This page">'),
]


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", _describe)
    app.connect("build-finished", _finish)
