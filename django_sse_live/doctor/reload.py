"""What an open stream, and who asks meanwhile, meet while a site is reloaded."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from http.client import HTTPException
from typing import Final

from .site import Finding, Site, Stream

RELOAD_SECONDS: Final = 60  # that a reload may take
REQUEST_PAUSE_SECONDS: Final = 0.02


def examine_reload(site: Site, command: str) -> Iterator[Finding]:
    """What an open stream and other requests meet while the site is reloaded."""
    stream = Stream(site)
    stream.next(site.seconds)
    failed: list[str] = []
    is_over = threading.Event()

    def request_regularly() -> None:
        while not is_over.wait(REQUEST_PAUSE_SECONDS):
            try:
                status = site.head("/").status
                if status >= 500:
                    failed.append(str(status))
            except (OSError, HTTPException) as error:
                failed.append(type(error).__name__)

    requesting = threading.Thread(target=request_regularly, daemon=True)
    requesting.start()
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if done.returncode:
        is_over.set()
        yield Finding(
            "fault", f"The command failed: {done.stderr.strip() or done.returncode}.", "Give another --reload."
        )
        return
    goodbye = None
    is_cut = False
    try:
        while (frame := stream.next(RELOAD_SECONDS)) is not None:
            if frame.type == "goodbye":
                goodbye = frame
        is_cut = goodbye is None
        comes_back = _opens_again(site, stream.last_id)
    except TimeoutError:
        comes_back = True  # it is still the old one
    is_over.set()
    requesting.join()
    if goodbye is not None:
        yield Finding("good", "The open stream is told goodbye.")
    elif is_cut:
        yield Finding(
            "fault",
            "The open stream was cut off without a goodbye: its page learns of it late.",
            "Put live_application around the application in asgi.py, and let the server stop by SIGTERM.",
        )
    else:
        yield Finding("note", f"The open stream goes on after {RELOAD_SECONDS} s: nothing was reloaded, or not yet.")
    if not comes_back:
        yield Finding("fault", "No new stream opened after it.", "Look at the log of the site.")
    if failed:
        yield Finding(
            "fault",
            f"{len(failed)} other requests failed meanwhile ({', '.join(sorted(set(failed)))}).",
            "Reload instead of restarting: new workers start before the old ones end. Gunicorn: kill -HUP.",
        )
    else:
        yield Finding("good", "No other request failed meanwhile.")


def _opens_again(site: Site, last_id: str) -> bool:
    end = time.monotonic() + site.seconds
    while time.monotonic() < end:
        try:
            stream = Stream(site, last_event_id=last_id)
            frame = stream.next(site.seconds)
            stream.close()
            if frame is not None and frame.type == "connected":
                return True
        except (OSError, HTTPException):
            pass
        time.sleep(REQUEST_PAUSE_SECONDS)
    return False
