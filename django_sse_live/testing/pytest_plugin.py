"""The fixtures under the name that `pytest -p` may be given; what installs them by itself is pytest_sse_live.py."""

from pytest_sse_live import live_asgi_server, stream_client

__all__ = ["live_asgi_server", "stream_client"]
