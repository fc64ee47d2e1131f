"""Database errors about missing or forbidden tables, with what to do about them."""

from __future__ import annotations

from typing import Any, Final

from django.db import DatabaseError

MIGRATE: Final = "python manage.py migrate sse_live_database"
TABLES: Final = ("sse_live_stream", "sse_live_event", "sse_live_event_channel")

_MISSING: Final = frozenset({"42P01", "1146"})  # SQLSTATE of PostgreSQL, errno of MySQL
_FORBIDDEN: Final = frozenset({"42501", "1142", "1143", "1044"})


def migrate_command(alias: str) -> str:
    return MIGRATE if alias == "default" else f"{MIGRATE} --database {alias}"


def explained(error: BaseException, alias: str) -> BaseException:
    """The same kind of error with the way out in its text; other errors unchanged."""
    cause: Any = error.__cause__ if error.__cause__ is not None else error
    codes = {str(getattr(cause, name, "")) for name in ("sqlstate", "pgcode")} | {str(code) for code in cause.args[:1]}
    text = str(error)
    if codes & _MISSING or "no such table" in text or "no such column" in text:
        problem = f"the tables of the SSE bus are missing in database {alias!r}. Run: {migrate_command(alias)}"
    elif codes & _FORBIDDEN or "permission denied for table" in text or "readonly database" in text:
        problem = (
            f"the user of database {alias!r} may not use the tables of the SSE bus. "
            f"Run: GRANT SELECT, INSERT, UPDATE, DELETE ON {', '.join(TABLES)} TO that user"
        )
    else:
        return error
    kind = type(error) if isinstance(error, DatabaseError) else DatabaseError
    result = kind(f"{problem}. ({text.strip()})")
    result.__cause__ = error
    return result
