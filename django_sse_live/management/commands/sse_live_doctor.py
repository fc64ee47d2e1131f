"""manage.py sse_live_doctor URL: looks at a running site as a browser would, and says what to change."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.encoding import iri_to_uri

from ...backends import get_backend
from ...doctor.findings import examine
from ..arguments import seconds


class Command(BaseCommand):
    help = "Opens a stream of a running site as a browser would, and says what between the two should be changed."
    requires_system_checks: list[str] = ["sse_live"]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("url", nargs="?", default="http://127.0.0.1:8000/events/", help="of the stream")
        parser.add_argument("--token", help="of one of the site's pages, where the site has another SECRET_KEY")
        parser.add_argument(
            "--reload", metavar="COMMAND", help="reload the site by it, and look at what becomes of streams"
        )
        parser.add_argument("--seconds", type=seconds, default=20, help="to wait for what should come at once (20)")

    def handle(
        self, *args: Any, url: str, token: str | None, reload: str | None, seconds: float, **options: Any
    ) -> None:
        url = iri_to_uri(url)
        try:
            is_url = bool(urlsplit(url).hostname) and url.startswith(("http://", "https://"))
        except ValueError:
            is_url = False
        if not is_url:
            raise CommandError(f"{url!r} is no url, such as https://example.com/events/.")
        style = {"good": self.style.SUCCESS, "note": self.style.WARNING, "fault": self.style.ERROR}
        faults = 0
        try:
            for finding in examine(url, token=token, reload=reload, seconds=seconds):
                faults += finding.level == "fault"
                self.stdout.write(f"{style[finding.level](finding.level.ljust(5))}  {finding.what}")
                if finding.advice:
                    self.stdout.write(f"       {finding.advice}")
                self.stdout.flush()
        finally:
            get_backend().close()
        if faults:
            raise CommandError(f"{faults} to be changed." if faults > 1 else "One thing to be changed.")
