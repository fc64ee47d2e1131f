"""The documentation: `make docs` builds it, with every warning an error."""

import configparser
from pathlib import Path

import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_sse_live"], USE_TZ=True
)
django.setup()

import django_sse_live  # noqa: E402

# An object that is called as a function is: its class says what it is, and its method what it does.
django_sse_live.live_model.__doc__ = type(django_sse_live.live_model).__call__.__doc__

_metadata = configparser.RawConfigParser()
_metadata.read(Path(__file__).parent.parent / "setup.cfg")

project = "django-sse-live"
author = "The django-sse-live contributors"
copyright = author
release = _metadata["metadata"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

html_theme = "furo"
html_title = f"django-sse-live {release}"
html_copy_source = False
html_show_sphinx = False
