"""nginx, from the very file that docs/deploy/ hands out, with what a test needs changed."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from signal import SIGHUP, SIGQUIT

from .conditions import until
from .servers import ROOT, Server, free_port

CONFIGURATION = ROOT / "docs" / "deploy" / "nginx.conf"


class Nginx:
    """In front of a server: ``async with Nginx(server, proxy_read_timeout="15s") as nginx``; then its ``port``."""

    def __init__(self, server: Server, **directives: str) -> None:
        """``directives``: other values for directives that stand in the file."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="sse-live-nginx-"))
        text = CONFIGURATION.read_text()
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
        text = text.replace("location /events/", "location ~ ^/(events|ticks)/")
        # The test speaks plain HTTP/1.1, on the loopback alone.
        text = re.sub(r"listen 443 ssl http2;", f"listen 127.0.0.1:{self.port};", text)
        text = re.sub(r"^\s*(ssl_certificate|ssl_certificate_key) .*$", "", text, flags=re.MULTILINE)
        text = text.replace("worker_processes auto;", "worker_processes 1;")
        for name, value in directives.items():
            text, count = re.subn(rf"^(\s*){name} [^;]+;", rf"\g<1>{name} {value};", text, flags=re.MULTILINE)
            assert count, f"{name} does not stand in {CONFIGURATION.name}"
        text = text.replace(
            "http {",
            "http {\n    access_log off;\n"
            + "".join(
                f"    {kind}_temp_path {self.directory}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
            1,
        )
        self.file = self.directory / "nginx.conf"
        self.file.write_text(
            f"daemon off;\npid {self.directory}/pid;\nerror_log {self.directory}/error.log notice;\n" + text
        )
        self.process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Nginx:
        program = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
        assert program, "needs nginx"
        self.process = subprocess.Popen([program, "-p", str(self.directory), "-c", str(self.file)])  # noqa: ASYNC220
        await until(self._listens, say=self.output)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self.process is not None
        children = self.workers()
        self.process.kill()
        self.process.wait()
        for pid in children:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            assert self.process is not None and self.process.poll() is None, self.output()
            return False
        writer.close()
        return True

    def workers(self) -> set[int]:
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return {int(pid) for pid in children.split()}

    async def reload(self) -> None:
        """New workers are there; the old ones have been told to end."""
        assert self.process is not None
        before = self.workers()
        self.process.send_signal(SIGHUP)
        await until(lambda: self.workers() - before, say=self.output)

    def quit(self) -> None:
        assert self.process is not None
        self.process.send_signal(SIGQUIT)

    def output(self) -> str:
        log = self.directory / "error.log"
        return log.read_text(errors="replace") if log.exists() else ""
