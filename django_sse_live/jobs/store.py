"""JobStore: the keys of jobs in the cache that JOBS_CACHE names. Methods may be called in any thread, and raise what
the cache raises."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, Final

from django.conf import settings
from django.core.cache import DEFAULT_CACHE_ALIAS, caches
from django.core.cache.backends.db import BaseDatabaseCache, DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.db import connections, router
from django.utils import timezone

from ..conf import live_settings
from ..savepoints import is_in_transaction
from .records import (
    End,
    Found,
    Record,
    end_key,
    end_of,
    is_id,
    lease_key,
    name_key,
    next_key,
    record_of,
    state_key,
    watched_key,
)

LEASE_SECONDS: Final = 18  # renewed every 5 s; watchers see "lost" at most 20 s after a producer's death
END_LONGER_SECONDS: Final = 60  # an end is kept longer than the state, so that no ended job looks lost


def job_store() -> JobStore:
    return JobStore(live_settings().jobs_cache or DEFAULT_CACHE_ALIAS)


class JobStore:
    """Made where it is needed, since Django has one cache object for each thread."""

    def __init__(self, alias: str) -> None:
        self.alias: str = alias
        self._cache: Any = caches[alias]

    @property
    def keeps_nothing(self) -> bool:
        return isinstance(self._cache, DummyCache)

    @property
    def problem(self) -> str:
        """Why this cache does not show jobs of other processes; empty if it does."""
        if self.keeps_nothing:
            return f"The cache {self.alias!r} keeps nothing"
        if isinstance(self._cache, LocMemCache):
            return f"The cache {self.alias!r} is in the memory of this process"
        return ""

    @property
    def may_add_twice(self) -> bool:
        """Whether two processes or threads may both add the entry by which a job of a key begins, or ends."""
        return isinstance(self._cache, FileBasedCache)

    @property
    def entries_max(self) -> int | None:
        """The number of entries beyond which the cache drops any of them; None if memory is the bound."""
        if not isinstance(self._cache, (LocMemCache, BaseDatabaseCache, FileBasedCache)):
            return None
        return int(settings.CACHES[self.alias].get("OPTIONS", {}).get("MAX_ENTRIES", 300))  # Django's default

    # Reading

    def read(self, ids: Iterable[str]) -> dict[str, Found]:
        """The jobs that are known among these, by one query. Ids may come from a visitor: an invalid one is skipped,
        since memcached refuses spaces in keys."""
        ids = [id for id in ids if is_id(id)]
        values = self._cache.get_many([key(id) for id in ids for key in (state_key, end_key, lease_key)])
        found = {}
        for id in ids:
            record, end = values.get(state_key(id)), values.get(end_key(id))
            if record is not None:
                has_lease = lease_key(id) in values
                found[id] = Found(record_of(record), None if end is None else end_of(end), has_lease)
        return found

    def look(self, ids: Iterable[str]) -> set[str]:
        """The ids that have ended or have no lease, so that read() may find news. Reads no text."""
        ids = list(ids)
        values = self._cache.get_many([key(id) for id in ids for key in (end_key, lease_key)])
        return {id for id in ids if end_key(id) in values or lease_key(id) not in values}

    def current(self, name: str) -> str | None:
        """The id of the newest job of a key."""
        if isinstance(self._cache, DatabaseCache) and not _has_entry(self._cache, name_key(name)):
            return None  # not asked by get(): see _has_entry()
        id: str | None = self._cache.get(name_key(name))
        while id is not None and (successor := self._cache.get(next_key(id))) is not None:
            id = successor
        return id

    # The right to write

    def claim(self, record: Record, before: str | None) -> str | None:
        """Take the place of a key's newest job, ``before``, or the first place. Returns the lease, which names its
        holder; None if another process was first. The state is stored before anybody can find the job."""
        self._refuse_transaction("begun")
        lease = secrets.token_hex(8)
        ttl = record.ttl_seconds
        self._cache.set(lease_key(record.id), lease, LEASE_SECONDS)
        self.put([record])
        if record.name is None:
            return lease
        entry = name_key(record.name) if before is None else next_key(before)
        try:
            if isinstance(self._cache, DatabaseCache):
                _delete_expired(self._cache, entry)
            # A client library that gets no answer may send it again, and take its own entry for another's.
            is_first = self._cache.add(entry, record.id, ttl) or self._cache.get(entry) == record.id
            if is_first and before is not None:
                self._cache.set(name_key(record.name), record.id, ttl)
        except Exception:
            with suppress(Exception):  # no job runs, and none that seems to run is to be joined
                self._forget(record.id)
            raise
        if not is_first:
            self._forget(record.id)
        return lease if is_first else None

    def _forget(self, id: str) -> None:
        self._cache.delete_many([lease_key(id), state_key(id)])

    def take(self, id: str) -> str:
        """Take the lease, even if it is held."""
        self._refuse_transaction("taken")
        lease = secrets.token_hex(8)
        self._cache.set(lease_key(id), lease, LEASE_SECONDS)
        return lease

    def _refuse_transaction(self, what: str) -> None:
        """Raise in a transaction of the cache's database. Other processes would not see the lease until the commit, and
        the gathering thread writes the same rows: it would wait for the commit with all jobs of this process, or fail
        on SQLite."""
        if not isinstance(self._cache, BaseDatabaseCache):
            return
        alias = router.db_for_write(self._cache.cache_model_class)
        if is_in_transaction(connections[alias]):
            raise RuntimeError(
                f"A job cannot be {what} in a transaction of the database {alias!r}, which has the cache "
                f"{self.alias!r}: other processes would not know of it, and its text could be lost. Do it when the "
                "transaction has been committed: transaction.on_commit(partial(start_job, owner=user, key=key))."
            )

    def renew(self, record: Record, *, lease: bool, state: bool) -> None:
        """Keep the entries of a running job alive: its key; with ``lease``, its lease; with ``state``, its state, which
        put() renews too."""
        if lease:
            self._cache.touch(lease_key(record.id), LEASE_SECONDS)
        if state and not self._cache.touch(state_key(record.id), record.ttl_seconds):
            self.put([record])
        if record.name is not None and not self._cache.touch(name_key(record.name), record.ttl_seconds):
            self._cache.add(name_key(record.name), record.id, record.ttl_seconds)

    def lease_again(self, id: str, lease: str) -> None:
        """Set a lease that has lapsed, or that the cache has lost, and that nobody else holds."""
        self._cache.add(lease_key(id), lease, LEASE_SECONDS)

    def release(self, id: str) -> None:
        self._cache.delete(lease_key(id))

    def standing(self, records: Iterable[Record]) -> dict[str, Any]:
        """What a producer must know of its jobs, by cache key: ends, leases, successors, watchers."""
        keys = []
        for record in records:
            keys += [end_key(record.id), lease_key(record.id), next_key(record.id)]
            if record.alone_seconds is not None:
                keys.append(watched_key(record.id))
        values: dict[str, Any] = self._cache.get_many(keys)
        return values

    # Writing

    def put(self, records: Iterable[Record]) -> None:
        by_ttl: dict[float, dict[str, Any]] = {}
        for record in records:
            # Stored as a dict: another version of this package may not have the class.
            by_ttl.setdefault(record.ttl_seconds, {})[state_key(record.id)] = asdict(record)
        for ttl, values in by_ttl.items():
            self._cache.set_many(values, ttl)

    def end(self, id: str, end: End, ttl_seconds: float) -> End:
        """End the job. Returns the end that stands: this one, or one that was first."""
        mark = secrets.token_hex(8)  # by which it is known again, as in claim()
        for _ in range(2):  # the entry may lapse between add() and get()
            if self._cache.add(end_key(id), {**asdict(end), "mark": mark}, ttl_seconds + END_LONGER_SECONDS):
                return end
            if (there := self._cache.get(end_key(id))) is not None:
                return end if there.get("mark") == mark else end_of(there)
        return end

    def watch(self, id: str, alone_seconds: float) -> None:
        """Note that somebody watches the job, or did until now. Called every third of that time; the note lasts for
        half of it."""
        self._cache.set(watched_key(id), 1, alone_seconds / 2)


# Of Django's database cache, which is atomic only for a key that has no expired entry


def _has_entry(cache: Any, key: str) -> bool:
    """Whether there is an entry that has not expired. A get() deletes an expired one by its key, although another
    process may have added it anew meanwhile."""
    with _table_of(cache) as (cursor, table, where, now):
        cursor.execute(f"SELECT 1 FROM {table} WHERE {where} >= %s", [cache.make_key(key), now])
        return cursor.fetchone() is not None


def _delete_expired(cache: Any, key: str) -> None:
    """An add() overwrites an expired entry for each of several processes that ask at one moment."""
    with _table_of(cache) as (cursor, table, where, now):
        cursor.execute(f"DELETE FROM {table} WHERE {where} < %s", [cache.make_key(key), now])


@contextmanager
def _table_of(cache: Any) -> Iterator[tuple[Any, str, str, Any]]:
    model = cache.cache_model_class
    database = connections[router.db_for_write(model)]
    table, name, expires = map(database.ops.quote_name, (model._meta.db_table, "cache_key", "expires"))
    with database.cursor() as cursor:
        yield cursor, table, f"{name} = %s AND {expires}", database.ops.adapt_datetimefield_value(timezone.now())
