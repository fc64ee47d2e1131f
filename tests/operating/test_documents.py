"""The documentation names every metric, and the dashboard none that does not exist."""

from __future__ import annotations

import json
import re

from django.core.management import get_commands

from django_sse_live.metrics import COUNTERS, GAUGES, LATENCY, MESSAGES
from tests.live.harness.servers import ROOT

EXPOSED = {*(f"{name}_total" for name in COUNTERS), *GAUGES, LATENCY, MESSAGES}


def test_every_metric_has_its_row() -> None:
    named = set(re.findall(r"sse_live_[a-z_]+", (ROOT / "docs/operating.md").read_text()))
    assert named - set(get_commands()) == EXPOSED


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    dashboard = json.loads((ROOT / "docs/grafana.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"sse_live_\w+", target["expr"])
    }
    assert {name.removesuffix("_bucket") for name in asked} <= EXPOSED
    assert len(asked) >= 15
