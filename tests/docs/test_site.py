"""The site, as `make docs` builds it: its search, its front page."""

from __future__ import annotations

import json
import re

import pytest

from tests.docs.blocks import DOCS

SITE = DOCS / "_build"

pytestmark = pytest.mark.skipif(not (SITE / "searchindex.js").exists(), reason="the site is not built: make docs")

WORDS = [
    "progress",
    "LLM",
    "Turbo",
    "DRF",
    "ninja",
    "Celery",
    "CORS",
    "multi-tenant",
    "htmx",
    "Redis",
    "phone",
    "Uvicorn",
]


@pytest.fixture(scope="module")
def index():
    text = (SITE / "searchindex.js").read_text()
    return json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text.strip(), re.DOTALL)[1])


@pytest.mark.parametrize("word", WORDS)
def test_the_search_finds(index, word):
    """Sphinx stems words as it indexes and as it searches; a word with a hyphen is two."""
    stemmer = pytest.importorskip("snowballstemmer").stemmer("english")
    for part in re.findall(r"\w+", word.lower()):
        terms = index["terms"].get(stemmer.stemWord(part)), index["titleterms"].get(stemmer.stemWord(part))
        assert any(found is not None for found in terms), part


def test_the_front_page_moves_and_leads_on():
    page = (SITE / "index.html").read_text()
    assert page.count(".webp") >= 2 and "only-dark" in page
    assert page.count("sd-card-body") >= 6
    assert re.search(r'<link rel="(shortcut )?icon"', page) and 'property="og:title"' in page
    assert (SITE / "_static" / "card.png").exists()


def test_no_title_is_said_twice():
    for page in SITE.rglob("*.html"):
        text = re.sub(r"<(script|pre|code)\b.*?</\1>|<[^>]+>", "", page.read_text(), flags=re.DOTALL)
        assert "](" not in text, page
