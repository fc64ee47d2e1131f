"""What the sites have in common whose pages run under a strict policy, which requires trusted types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.settings import INSTALLED_APPS, MIDDLEWARE, TEMPLATES


def strict_site(package: str, directory: Path) -> dict[str, Any]:
    """Settings of a site that is this package, with static files and templates of its own."""
    return {
        "DEBUG": True,  # runserver serves the static files
        "ROOT_URLCONF": f"{package}.urls",
        "ASGI_APPLICATION": f"{package}.asgi.application",
        "INSTALLED_APPS": [*INSTALLED_APPS, package],
        "STATICFILES_DIRS": [directory / "static"],
        "TEMPLATES": [{**TEMPLATES[0], "DIRS": [directory / "templates"]}],
        "MIDDLEWARE": ["tests.live.browser.pages.policy.strict_policy", *MIDDLEWARE],
        "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    }
