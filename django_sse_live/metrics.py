"""Prometheus metrics, where prometheus-client is installed: the hubs' own counts, read when they are scraped.

Nothing happens here while events are delivered. In prometheus-client's multiprocess mode, where a scrape reads what
every process has written to files, each writes its counts once a second, on the loop of its hub, and when its last
stream has ended with it: what comes after that may be a signal that lets nobody write.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from .backends import get_backend
from .hub.counts import LATENCY_SECONDS, Latency
from .hub.hub import Hub, hub_ended, hub_opened
from .hub.registry import event_published, open_hubs, process_counts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

WRITE_SECONDS: Final = 1.0
PUBLISHED: Final = "sse_live_events_published"
LATENCY: Final = "sse_live_publish_to_write_seconds"

# name → (its one label, what it is). Counters are exposed with _total behind their name.
COUNTERS: Final[dict[str, tuple[str | None, str]]] = {
    "sse_live_streams_opened": (None, "Streams that were opened"),
    "sse_live_streams_closed": ("reason", "Streams that ended, by what ended them"),
    "sse_live_streams_refused": ("reason", "Requests for a stream that were refused"),
    PUBLISHED: (None, "Events that this process has handed to the bus"),
    "sse_live_events_received": (None, "Events that the bus has handed to this process"),
    "sse_live_events_delivered": (None, "Events handed to the server, counted once for each stream"),
    "sse_live_events_replayed": (None, "Of the delivered events, those from before their stream was opened"),
    "sse_live_resets": ("reason", "Streams that were told that they have missed events"),
    "sse_live_heartbeats": (None, "Heartbeats handed to the server"),
    "sse_live_sent_bytes": (None, "Bytes of event streams handed to the server"),
    "sse_live_bus_outages": (None, "How often the bus could not be reached"),
    "sse_live_bus_dropped_events": (None, "Events given up because too many waited for the bus"),
}
GAUGES: Final[dict[str, str]] = {
    "sse_live_streams": "Streams that are open",
    "sse_live_streams_lagging": "Streams whose client has let a send wait for more than a second",
    "sse_live_log_events": "Events in the log from which streams are served",
    "sse_live_log_bytes": "About how many bytes the log keeps",
    "sse_live_bus_up": "1 while this process can reach the bus",
    "sse_live_bus_buffered_events": "Events that wait for the bus to be back",
}
LATENCY_HELP: Final = (
    "From an event's publication to when it was handed to the server for every client that was waiting for it; "
    "the oldest event of each fan-out of a channel, counted once for the fan-out"
)


@cache
def connect() -> None:
    """Called when the app is ready: more than once, where a test changes INSTALLED_APPS."""
    if find_spec("prometheus_client") is None:
        return
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ:
        mirror = Mirror()
        hub_opened.connect(mirror.begin, weak=False, dispatch_uid="django_sse_live.metrics")
        hub_ended.connect(mirror.hub_ended, weak=False, dispatch_uid="django_sse_live.metrics")
        event_published.connect(mirror.count, weak=False, dispatch_uid="django_sse_live.metrics")
        atexit.register(mirror.end)
        os.register_at_fork(after_in_child=mirror.start_anew)
    else:
        from prometheus_client import REGISTRY

        REGISTRY.register(Collector())


def counters() -> dict[str, int | Counter[str]]:
    """The value of each of COUNTERS now, by its label's value where it has a label."""
    counts, backend = process_counts(), get_backend()
    return {
        "sse_live_streams_opened": counts.opened,
        "sse_live_streams_closed": counts.closed,
        "sse_live_streams_refused": counts.refused,
        PUBLISHED: counts.published,
        "sse_live_events_received": counts.received,
        "sse_live_events_delivered": counts.delivered,
        "sse_live_events_replayed": counts.replayed,
        "sse_live_resets": counts.resets,
        "sse_live_heartbeats": counts.heartbeats,
        "sse_live_sent_bytes": counts.bytes,
        "sse_live_bus_outages": backend.outages,
        "sse_live_bus_dropped_events": backend.dropped,
    }


def gauges() -> dict[str, int]:
    hubs, backend = open_hubs(), get_backend()
    return {
        "sse_live_streams": sum(len(hub.clients) for hub in hubs),
        "sse_live_streams_lagging": sum(hub.lagging for hub in hubs),
        "sse_live_log_events": sum(len(hub.log) for hub in hubs),
        "sse_live_log_bytes": sum(hub.log.bytes for hub in hubs),
        "sse_live_bus_up": int(backend.is_available),
        "sse_live_bus_buffered_events": backend.buffered,
    }


class Collector:
    """What the default registry asks at each scrape, in whatever thread."""

    def describe(self) -> Iterator[Metric]:
        return self._families()

    def collect(self) -> Iterator[Metric]:
        return self._families(counters(), gauges(), process_counts().latency)

    def _families(
        self,
        counted: dict[str, Any] | None = None,
        gauged: dict[str, int] | None = None,
        latency: Latency | None = None,
    ) -> Iterator[Metric]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, (label, text) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=[label] if label else [])
            if counted is not None:
                values = dict(counted[name]) if label else {"": counted[name]}
                for value, count in values.items():
                    counter.add_metric([value] if label else [], count)
            yield counter
        for name, text in GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=[])
            if gauged is not None:
                gauge.add_metric([], gauged[name])
            yield gauge
        histogram = HistogramMetricFamily(LATENCY, LATENCY_HELP, labels=[])
        if latency is not None:
            total = 0
            buckets: list[Any] = []
            for bound, count in zip([*map(str, LATENCY_SECONDS), "+Inf"], list(latency.counts), strict=True):
                total += count
                buckets.append((bound, total))
            histogram.add_metric([], buckets, sum_value=sum(latency.sums))
        yield histogram


class Mirror:
    """The same as metrics of prometheus-client's own, which keep the files of the multiprocess mode.

    Called on the loops of hubs and by whoever publishes, in any thread: the lock is for what has been written.
    """

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        # In no registry: what is scraped is read from the files.
        self._counters = {
            name: Counter(name, text, [label] if label else [], registry=None)
            for name, (label, text) in COUNTERS.items()
        }
        # Made with the first hub. They are 0 in each process that has them, which would say of one without a hub that
        # it cannot reach the bus.
        self._gauges: dict[str, Gauge] = {}
        self._latency = Histogram(LATENCY, LATENCY_HELP, buckets=LATENCY_SECONDS, registry=None)
        self.start_anew()

    def start_anew(self) -> None:
        """A fork counts from nothing, and has files of its own."""
        self._lock = threading.Lock()
        self._written: Counter[tuple[str, str]] = Counter()
        self._observed = Latency()
        self._due = 0.0  # of time.monotonic(): when one without a hub writes again

    def begin(self, *, hub: Hub, **_: Any) -> None:
        from prometheus_client import Gauge

        with self._lock:
            if not self._gauges:
                self._gauges = {
                    name: Gauge(
                        name,
                        text,
                        registry=None,
                        multiprocess_mode="livemin" if name.endswith("_up") else "livesum",
                    )
                    for name, text in GAUGES.items()
                }
        self._follow(hub)

    def _follow(self, hub: Hub) -> None:
        self.write()
        hub.loop.call_later(WRITE_SECONDS, self._follow, hub)

    def count(self, **_: Any) -> None:
        """Written at once: a process that only publishes may do it once, and may end by os._exit()."""
        self._counters[PUBLISHED].inc()
        if time.monotonic() >= self._due and not open_hubs():
            self.write()

    def hub_ended(self, **_: Any) -> None:
        if not any(hub.clients for hub in open_hubs()):
            self.end()

    def end(self) -> None:
        """Write what may be the last, and take what is so no longer out of what all processes add up to."""
        from prometheus_client.multiprocess import mark_process_dead

        self.write()
        with self._lock:
            self._gauges = {}
            mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]

    def write(self) -> None:
        """Bring the files up to date with the counts."""
        with self._lock:
            self._due = time.monotonic() + WRITE_SECONDS
            for name, value in counters().items():
                counter = self._counters[name]
                if isinstance(value, Counter):
                    for label, count in dict(value).items():
                        self._raise(counter.labels(label), (name, label), count)
                elif name != PUBLISHED:
                    self._raise(counter, (name, ""), value)
            if self._gauges:
                for name, number in gauges().items():
                    self._gauges[name].set(number)
            self._observe(process_counts().latency)

    def _raise(self, counter: Any, key: tuple[str, str], count: int) -> None:
        if count > self._written[key]:
            counter.inc(count - self._written[key])
            self._written[key] = count

    def _observe(self, latency: Latency) -> None:
        """Those of a bucket that are new, each as their mean: it is in the same bucket, and their sum is the same."""
        before, self._observed = self._observed, latency
        for bucket, bound in enumerate([*LATENCY_SECONDS, float("inf")]):
            count = latency.counts[bucket] - before.counts[bucket]
            if count > 0:
                mean = min((latency.sums[bucket] - before.sums[bucket]) / count, bound)
                for _ in range(count):
                    self._latency.observe(mean)
