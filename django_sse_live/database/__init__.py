"""The project's database as the bus between workers: an app of its own, and the backend that SSE_LIVE names.

What holds which lock, and what every crash leaves behind: docs/explanation/database.md.
"""

from .backend import DatabaseBackend

__all__ = ["DatabaseBackend"]
