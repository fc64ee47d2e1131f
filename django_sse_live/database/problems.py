"""Database errors about tables that are missing, forbidden or read-only, with what to do about them."""

from __future__ import annotations

from typing import Any, Final

from django.db import DatabaseError

MIGRATE: Final = "python manage.py migrate sse_live_database"
TABLES: Final = ("sse_live_stream", "sse_live_event", "sse_live_event_channel", "sse_live_job_delta")

_MISSING: Final = frozenset({"42P01", "1146"})  # SQLSTATE of PostgreSQL, errno of MySQL
_FORBIDDEN: Final = frozenset({"42501", "1142", "1143", "1044"})
_READ_ONLY: Final = frozenset({"25006", "1792", "1836"})


def migrate_command(alias: str) -> str:
    return MIGRATE if alias == "default" else f"{MIGRATE} --database {alias}"


def explained(error: BaseException, alias: str) -> BaseException:
    """The same kind of error with the way out in its text; other errors unchanged."""
    cause: Any = error.__cause__ if error.__cause__ is not None else error
    codes = {str(getattr(cause, name, "")) for name in ("sqlstate", "pgcode")} | {str(code) for code in cause.args[:1]}
    text = str(error)
    if codes & _MISSING or "no such table" in text or "no such column" in text:
        problem = f"the tables of the SSE bus are missing in database {alias!r}. Run: {migrate_command(alias)}"
    elif codes & _FORBIDDEN or "permission denied for table" in text:
        problem = (
            f"the user of database {alias!r} may not use the tables of the SSE bus. "
            f"Run: GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(TABLES)} TO that user"
        )
    elif codes & _READ_ONLY or "readonly database" in text or "read-only option" in text:
        problem = (
            f"database {alias!r} is read-only: a replica, or a file or folder that this process may not write. "
            'Name the alias of one that takes writes in SSE_LIVE["OPTIONS"]["DATABASE"], or let it write'
        )
    else:
        return error
    kind = type(error) if isinstance(error, DatabaseError) else DatabaseError
    result = kind(f"{problem}. ({text.strip()})")
    result.__cause__ = error
    return result
