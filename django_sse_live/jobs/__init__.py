"""Jobs: text and progress of one long piece of work, for pages that may open at any time.

States: running → finished | failed | cancelled. The first *end* that is added to the cache stands. ``lost``: nobody
holds the lease; this is a conclusion, no end, and a producer that comes back takes its lease again. ``expired``: the
cache has no entry of the job any more.

Who may touch what:

- *The producer* (a view's thread, a task, a command) calls methods of Job. They append to its Writer under the writer's
  lock, and touch neither the cache nor the bus. Only the start and an end ask the cache in the producer's thread.
- *The gathering thread* (Writers), one for each process that has jobs, runs a round every 50 ms in which something was
  written. A round adds the new text to each record, sends the deltas of all jobs to the bus together, and writes the
  states that are due (twice a second for each job at most). Twice a second it asks the cache which jobs have ended or
  were stopped, and sets ``is_cancelled``. Every 5 s it renews the leases. A round and an end exclude each other, so
  that deltas go out in order.
- *The cache* (store.py) has for each job its *state*, written by its writer alone; its *end*, added once, by the writer
  or by the process that stops the job; its *lease*, whose value names the writer. For each key of an owner it has the
  id of the newest job. A run that replaces another adds itself as that one's *next*: the first to do so runs.
- *A hub* (watching.py), on its loop alone, holds the deltas of the last seconds. For all pages that join within 60 ms
  it reads the state once, in a thread, appends the deltas that it holds, and sends one frame. Deltas are no events: no
  log has them, they have no position, and the bus carries them apart.

Offsets make this exact. Each piece of text carries its offset in UTF-16 code units: a page drops what it has, and asks
again where something is missing. So the order in which the cache and the bus deliver does not matter.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from ..backends import get_backend
from ..callables import in_thread, takes
from ..hub.registry import process_part
from ..identity import user_pk
from ..namespaces import current_namespace, use_namespace
from .job import Job
from .records import Found, Record, key_digest
from .running import Locale, Running
from .store import JobStore, job_store
from .writer import JobOver, Writer
from .writers import Writers

__all__ = ["Job", "JobOver", "afind_job", "astart_job", "find_job", "start_job"]

KEY_MAX_CHARACTERS: Final = 500
TTL_MIN_SECONDS: Final = 1.0
ALONE_MIN_SECONDS: Final = 5.0
ENTRIES_PER_JOB_MAX: Final = 4  # entries in the cache, at most: state, lease or end, key, watched
CLAIMS_MAX: Final = 20  # attempts to follow a key's newest job while other processes are faster


def start_job(
    *,
    owner: Any = None,
    key: str | None = None,
    ttl_seconds: float = 3600,
    run: Callable[[Job], Any] | None = None,
    cancel_when_alone_seconds: float | None = None,
) -> Job:
    """Begin a job, or join the running one of this owner and key. ``is_new`` tells which: the caller that began it does
    the work; the others watch.

    ``owner``: a saved user or a primary key, who may watch and stop it. None: only tokens let anybody watch. ``key``:
    names the work, such as ``"chat:7:3"``; without one, every call begins a job. Keys are per owner. ``ttl_seconds``:
    how long the job is known after the last text. ``run``: a function of the job that does the work outside the
    request: a coroutine function in a task, any other in a thread. Its return value is the result. If it raises, the
    exception is logged and pages see a failure without its text. ``cancel_when_alone_seconds``: cancel the job when no
    page has watched it for this long.

    TypeError or ValueError for bad arguments; RuntimeError if 64 jobs run in this process by ``run``, if it may start
    no thread, or in a transaction of the database that holds the cache; and the cache's own errors. No job runs then.
    """
    record = _record(owner, key, ttl_seconds, cancel_when_alone_seconds)
    if run is not None and not (callable(run) and takes(run, "job")):
        raise TypeError(f"run is {run!r}; it must be a function of the job. Give it more with functools.partial().")
    if isgeneratorfunction(run) or isasyncgenfunction(run):
        raise TypeError(f"run is {run!r}, a generator: nobody takes what it yields. Give it to job.write() instead.")
    running = process_part(Running)
    if run is not None:
        running.reserve()
    job = None
    try:
        job = _start(job_store(), record)
        if run is not None and job.is_new:
            running.begin(job, run)
    finally:
        if run is not None and (job is None or not job.is_new):
            running.release()
    return job


async def astart_job(
    *,
    owner: Any = None,
    key: str | None = None,
    ttl_seconds: float = 3600,
    run: Callable[[Job], Any] | None = None,
    cancel_when_alone_seconds: float | None = None,
) -> Job:
    """start_job() from a coroutine."""
    # Asked here: what middleware has set for the running task is unknown in the thread.
    namespace, locale = current_namespace(), Locale()

    def start() -> Job:
        locale.activate()
        with use_namespace(namespace):
            return start_job(
                owner=owner,
                key=key,
                ttl_seconds=ttl_seconds,
                run=run,
                cancel_when_alone_seconds=cancel_when_alone_seconds,
            )

    return await in_thread(start)


def find_job(id: str | None = None, *, owner: Any = None, key: str | None = None) -> Job | None:
    """Find a job by its id, or the newest of an owner and key, in any state. None if none is known any more.

    It checks no permission: the view that shows the job does. Raises ValueError without an id or a key, TypeError for
    an id that is no str.
    """
    if (id is None) == (key is None):
        raise ValueError('find_job() needs an id, or a key: find_job(job_id), find_job(owner=user, key="import:7").')
    if id is not None and not isinstance(id, str):
        raise TypeError(f"The id of a job is a str, such as job.id, not {type(id).__name__}: {id!r}.")
    store = job_store()
    if key is not None:
        id = store.current(key_digest(current_namespace(), _owner_pk(owner), _checked_key(key)))
    found = None if id is None else store.read([id]).get(id)
    if found is None or found.record.namespace != current_namespace():
        return None
    return Job.of(found)


async def afind_job(id: str | None = None, *, owner: Any = None, key: str | None = None) -> Job | None:
    """find_job() from a coroutine."""
    namespace = current_namespace()

    def find() -> Job | None:
        with use_namespace(namespace):
            return find_job(id, owner=owner, key=key)

    return await in_thread(find)


def _record(owner: Any, key: str | None, ttl_seconds: float, alone_seconds: float | None) -> Record:
    _check_seconds("ttl_seconds", ttl_seconds, TTL_MIN_SECONDS)
    if alone_seconds is not None:
        _check_seconds("cancel_when_alone_seconds", alone_seconds, ALONE_MIN_SECONDS)
    namespace, pk = current_namespace(), _owner_pk(owner)
    digest = None if key is None else key_digest(namespace, pk, _checked_key(key))
    return Record(secrets.token_hex(16), namespace, pk, ttl_seconds, alone_seconds, digest)


def _check_seconds(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e9:
        raise ValueError(f"{name} is {value!r}; it must be a number of seconds of at least {least:g}.")


def _owner_pk(owner: Any) -> str | None:
    if owner is None:
        return None
    try:
        return user_pk(owner)
    except ValueError:
        raise ValueError(
            f"The owner of a job is a saved user or a primary key, not a {type(owner).__name__}. Of a visitor who is "
            "not logged in it is None: only who has its token, job.sign(), may watch it then."
        ) from None


def _checked_key(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f'The key of a job is a str, such as f"chat:{{chat.pk}}", not {type(key).__name__}.')
    if not 0 < len(key) <= KEY_MAX_CHARACTERS:
        raise ValueError(f"The key of a job has 1 to {KEY_MAX_CHARACTERS} characters; this one has {len(key)}.")
    return key


def _start(store: JobStore, record: Record) -> Job:
    if store.keeps_nothing:
        raise ImproperlyConfigured(f'{store.problem}. Set SSE_LIVE["JOBS_CACHE"] to a cache that can hold jobs.')
    if store.problem and get_backend().reaches_other_processes:
        process_part(Writers).warn(
            f'{store.problem}: no other process knows of a job. Set SSE_LIVE["JOBS_CACHE"] to a cache of Redis, '
            "memcached or a database."
        )
    if store.may_add_twice:
        process_part(Writers).warn(
            f"The cache {store.alias!r} is in files: two who begin a job of one key at one moment may both run it. Set "
            'SSE_LIVE["JOBS_CACHE"] to a cache of Redis, memcached or a database.'
        )
    for _ in range(CLAIMS_MAX):
        before = None if record.name is None else store.current(record.name)
        found: Found | None = None if before is None else store.read([before]).get(before)
        if found is not None and found.state == "running":
            return Job.of(found)
        if (lease := store.claim(record, before)) is not None:
            if record.alone_seconds is not None:
                store.watch(record.id, record.alone_seconds)
            writer, writers = Writer(record, lease), process_part(Writers)
            writers.add(writer)
            most = store.entries_max
            if most is not None and writers.count * ENTRIES_PER_JOB_MAX > most:
                writers.warn(
                    f"The cache {store.alias!r} has room for {most} entries, and drops some at random above that: jobs "
                    f'have {ENTRIES_PER_JOB_MAX} each, so running ones may seem lost. Raise OPTIONS["MAX_ENTRIES"] of '
                    f"CACHES[{store.alias!r}]."
                )
            return Job(record, None, "running", writer)
    raise RuntimeError("The cache drops what it is given, or other processes begin this job without end.")
