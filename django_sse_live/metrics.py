"""Prometheus metrics, where prometheus-client is installed: the hubs' own counts, read when they are scraped.

Nothing happens here while events are delivered. In prometheus-client's multiprocess mode, where a scrape reads what
every process has written to files, each writes its counts once a second, on the loop of its hub, and when it stops and
its last stream has ended: it may then be killed before it can write again.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from .backends import get_backend
from .exits import exit_work_done
from .hub.counts import LATENCY_SECONDS, Latency
from .hub.failures import guarded, report_failure
from .hub.hub import Hub, hub_ended, hub_opened
from .hub.registry import count_of_published, open_hubs, process_counts, process_part, when_published
from .jobs.writers import Writers

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

WRITE_SECONDS: Final = 1.0
PUBLISHED: Final = "sse_live_events_published"
LATENCY: Final = "sse_live_publish_to_write_seconds"

# name → (its one label, what it is, where it is: in Counts, or elsewhere). Exposed with _total behind the name.
COUNTERS: Final[dict[str, tuple[str | None, str, str | Callable[[], Any]]]] = {
    "sse_live_streams_opened": (None, "Streams that were opened", "opened"),
    "sse_live_streams_closed": ("reason", "Streams that ended, by what ended them", "closed"),
    "sse_live_streams_refused": ("reason", "Requests for a stream that were refused", "refused"),
    "sse_live_tickets_accepted": (None, "Streams that went on by their ticket, without Django", "tickets"),
    "sse_live_tickets_refused": ("reason", "Tickets that were of no use, so that Django was asked", "tickets_refused"),
    PUBLISHED: (None, "Events that this process has handed to the bus", "published"),
    "sse_live_events_received": (None, "Events that the bus has handed to this process", "received"),
    "sse_live_events_delivered": (None, "Events handed to the server, counted once for each stream", "delivered"),
    "sse_live_events_replayed": (
        None,
        "Of the delivered events, those from before their stream was opened",
        "replayed",
    ),
    "sse_live_resets": ("reason", "Streams that were told that they have missed events", "resets"),
    "sse_live_heartbeats": (None, "Heartbeats handed to the server", "heartbeats"),
    "sse_live_sent_bytes": (None, "Bytes of event streams handed to the server", "bytes"),
    "sse_live_signals_dropped": (
        None,
        "Django signals that were not sent, since their receivers are too slow",
        "signals_dropped",
    ),
    "sse_live_messages": (None, "Messages that browsers have sent", "messages"),
    "sse_live_message_answers": ("status", "Messages that a handler answered, by the status of its answer", "answers"),
    "sse_live_messages_refused": ("reason", "Messages that were given to no handler", "messages_refused"),
    "sse_live_jobs_started": (None, "Jobs that this process has begun or taken", lambda: process_part(Writers).started),
    "sse_live_jobs_ended": (
        "state",
        "Of these, those that are over, by how they ended",
        lambda: process_part(Writers).ended,
    ),
    "sse_live_bus_outages": (None, "How often the bus could not be reached", lambda: get_backend().outages),
    "sse_live_bus_dropped_events": (
        None,
        "Events given up because too many waited for the bus",
        lambda: get_backend().dropped,
    ),
    "sse_live_bus_unreadable_events": (
        None,
        "Foreign or malformed entries of the bus that were skipped",
        lambda: get_backend().unreadable,
    ),
}
GAUGES: Final[dict[str, tuple[str, Callable[[], int]]]] = {
    "sse_live_streams": ("Streams that are open", lambda: sum(len(hub.clients) for hub in open_hubs())),
    "sse_live_streams_websocket": (
        "Of these, those that a WebSocket carries",
        lambda: sum(hub.fan_out.count_form("lines") for hub in open_hubs()),
    ),
    "sse_live_streams_lagging": (
        "Streams whose client has let a send wait for more than a second",
        lambda: sum(hub.lagging for hub in open_hubs()),
    ),
    "sse_live_log_events": (
        "Events in the log from which streams are served",
        lambda: sum(len(hub.log) for hub in open_hubs()),
    ),
    "sse_live_log_bytes": ("About how many bytes the log keeps", lambda: sum(hub.log.bytes for hub in open_hubs())),
    "sse_live_jobs_running": ("Jobs that this process writes", lambda: process_part(Writers).count),
    "sse_live_bus_up": ("1 while this process can reach the bus", lambda: int(get_backend().is_available)),
    "sse_live_bus_buffered_events": ("Events that the bus has not taken yet", lambda: get_backend().buffered),
}
MESSAGES: Final = "sse_live_message_seconds"
HISTOGRAMS: Final[dict[str, str]] = {
    LATENCY: (
        "From an event's publication to when it was handed to the server for every client that was waiting for it; "
        "the oldest event of each fan-out of a channel, counted once for the fan-out"
    ),
    MESSAGES: "How long the handlers of messages ran",
}


@cache
def connect() -> None:
    """Called when the app is ready: more than once, where a test changes INSTALLED_APPS."""
    if find_spec("prometheus_client") is None:
        return
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
        metrics = MultiprocessMetrics()
        hub_opened.connect(metrics.begin, weak=False, dispatch_uid="django_sse_live.metrics")
        hub_ended.connect(metrics.hub_ended, weak=False, dispatch_uid="django_sse_live.metrics")
        when_published(metrics.count)
        atexit.register(metrics.end)
        exit_work_done.connect(lambda **_: metrics.end(), weak=False, dispatch_uid="django_sse_live.metrics")
    else:
        from prometheus_client import REGISTRY

        REGISTRY.register(Collector())


def counters() -> dict[str, int | Counter[str]]:
    """The value of each of COUNTERS now, by its label's value where it has a label."""
    counts = process_counts()
    return {
        name: getattr(counts, where) if isinstance(where, str) else where() for name, (_, _, where) in COUNTERS.items()
    }


def gauges() -> dict[str, int]:
    return {name: value() for name, (_, value) in GAUGES.items()}


def histograms() -> dict[str, Latency]:
    counts = process_counts()
    return {LATENCY: counts.latency, MESSAGES: counts.message_seconds}


class Collector:
    """What the default registry asks at each scrape, in whatever thread."""

    def describe(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import Metric

        yield from (Metric(name, text, "counter") for name, (_, text, _) in COUNTERS.items())
        yield from (Metric(name, text, "gauge") for name, (text, _) in GAUGES.items())
        yield from (Metric(name, text, "histogram") for name, text in HISTOGRAMS.items())

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, counted in counters().items():
            label, text, _ = COUNTERS[name]
            counter = CounterMetricFamily(name, text, labels=[label] if label else [])
            for value, count in dict(counted).items() if isinstance(counted, Counter) else [("", counted)]:
                counter.add_metric([value] if label else [], count)
            yield counter
        for name, number in gauges().items():
            yield GaugeMetricFamily(name, GAUGES[name][0], value=number)
        for name, observed in histograms().items():
            bounds = [*map(str, LATENCY_SECONDS), "+Inf"]
            buckets = list(zip(bounds, accumulate(observed.counts), strict=True))
            yield HistogramMetricFamily(name, HISTOGRAMS[name], buckets=buckets, sum_value=sum(observed.sums))


class _Written:
    """What one process has written. A fork has files of its own, and begins at 0."""

    def __init__(self) -> None:
        self.pid: int = os.getpid()
        self.lock = threading.RLock()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.observed: dict[str, Latency] = {name: Latency() for name in HISTOGRAMS}
        self.due = 0.0  # of time.monotonic(): when a process without a hub writes everything again
        # Made with the first hub. A process without a hub would have them too, and its 0 would say that it cannot reach
        # the bus.
        self.gauges: dict[str, Any] = {}
        self.has_hub = False
        self.has_failed = False  # the last time; the log has it
        self.writer = 0  # the thread that is writing
        self.is_stale = False  # that thread was interrupted by something that counted


class MultiprocessMetrics:
    """The same as metrics of prometheus-client's own, which keep the files of the multiprocess mode.

    Called on the loops of hubs and on the way of each broadcast, in any thread. Nothing is raised from here: that a
    file cannot be written is logged once, and tried again. A broadcast that interrupts a write, from a finalizer or a
    signal handler, leaves its count to that write: the locks of prometheus-client are not re-entrant.
    """

    def __init__(self) -> None:
        from prometheus_client import Counter, Histogram

        # In no registry: what is scraped is read from the files.
        self._counters = {
            name: Counter(name, text, [label] if label else [], registry=None)
            for name, (label, text, _) in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, text, buckets=LATENCY_SECONDS, registry=None) for name, text in HISTOGRAMS.items()
        }
        self._written = _Written()

    def _here(self) -> _Written:
        if self._written.pid != os.getpid():
            self._written = _Written()
        return self._written

    def begin(self, *, hub: Hub, **_: Any) -> None:
        self._here().has_hub = True
        self._follow(hub)

    def _follow(self, hub: Hub) -> None:
        hub.loop.call_later(WRITE_SECONDS, self._follow, hub)
        self.write()

    def count(self) -> None:
        """Written at once: a process that only publishes may do it once, and may end by os._exit()."""
        self.write(only_published=time.monotonic() < self._here().due or bool(open_hubs()))

    def hub_ended(self, **_: Any) -> None:
        if not any(hub.clients for hub in open_hubs()):
            self.end()

    def end(self) -> None:
        """Write what may be the last, and take what is so no longer out of what all processes add up to."""
        from prometheus_client.multiprocess import mark_process_dead

        self.write()
        written = self._here()
        with written.lock:
            written.gauges, written.has_hub = {}, False
            guarded(mark_process_dead, os.getpid())

    def write(self, *, only_published: bool = False) -> None:
        """Bring the files up to date with the counts."""
        written, thread = self._here(), threading.get_ident()
        if written.writer == thread:
            written.is_stale = True
            return
        with written.lock:
            written.writer = thread
            try:
                self._write(written, only_published)
                written.has_failed = False
            except Exception:
                if not written.has_failed:
                    written.has_failed = True
                    report_failure("The metrics of django_sse_live cannot be written; it is tried again.")
            finally:
                written.writer = 0
        if written.is_stale:
            written.is_stale = False
            self.write(only_published=True)

    def _write(self, written: _Written, only_published: bool) -> None:
        if only_published:
            self._raise(written, self._counters[PUBLISHED], (PUBLISHED, ""), count_of_published())
            return
        written.due = time.monotonic() + WRITE_SECONDS
        for name, value in counters().items():
            counter = self._counters[name]
            if isinstance(value, Counter):
                for label, count in dict(value).items():
                    self._raise(written, counter.labels(label), (name, label), count)
            else:
                self._raise(written, counter, (name, ""), value)
        for name, observed in histograms().items():
            self._observe(written, name, observed)
        if written.has_hub and not written.gauges:
            written.gauges = _make_gauges()
        if written.gauges:
            for name, number in gauges().items():
                written.gauges[name].set(number)

    def _raise(self, written: _Written, counter: Any, key: tuple[str, str], count: Any) -> None:
        if count > written.counts[key]:
            counter.inc(count - written.counts[key])
            written.counts[key] = count

    def _observe(self, written: _Written, name: str, latency: Latency) -> None:
        """Those of a bucket that are new, each as their mean: it is in the same bucket, and their sum is the same."""
        before, written.observed[name] = written.observed[name], latency
        for bucket, bound in enumerate([*LATENCY_SECONDS, float("inf")]):
            count = latency.counts[bucket] - before.counts[bucket]
            if count > 0:
                mean = min((latency.sums[bucket] - before.sums[bucket]) / count, bound)
                for _ in range(count):
                    self._histograms[name].observe(mean)


def _make_gauges() -> dict[str, Any]:
    from prometheus_client import Gauge

    return {
        name: Gauge(name, text, registry=None, multiprocess_mode="livemin" if name.endswith("_up") else "livesum")
        for name, (text, _) in GAUGES.items()
    }
