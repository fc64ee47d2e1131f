"""``python -m benchmarks`` from end to end, with few clients: that it runs, not what it measures."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

from benchmarks.__main__ import chosen_peers, main
from benchmarks.report import picture, table, value
from benchmarks.scenarios import SCENARIOS, Column

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
@pytest.mark.parametrize(
    ("scenario", "amounts"),
    [
        ("fanout", ["--events", "3", "--hz", "50"]),
        ("metrics", ["--events", "3", "--hz", "50"]),
        ("burst", ["--events", "100"]),
        ("spread", ["--events", "2", "--hz", "20"]),
        ("neighbour", ["--events", "4", "--hz", "20"]),
        ("idle", []),
        ("connect", ["--middleware"]),
        ("resume", ["--events", "5"]),
    ],
)
def test_each_scenario_gives_a_table(
    scenario: str, amounts: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    figures, drawing = tmp_path / "figures.json", tmp_path / "drawing.svg"
    peers = "live,metrics" if scenario == "metrics" else "live"
    common = ["--peers", peers, "--clients", "5", "--rounds", "1", "--seconds", "20", "--python", sys.executable]
    files = ["--work", str(tmp_path / "work"), "--json", str(figures), "--picture", str(drawing)]
    assert main([scenario, *amounts, *common, *files]) == 0
    assert "| django-sse-live |" in capsys.readouterr().out
    assert drawing.read_text().startswith("<svg")
    (measured,) = json.loads(figures.read_text())["django-sse-live"]
    for figure in ("lost_percent", "disorder", "failed"):
        assert measured.get(figure, 0) == 0, measured


def test_every_column_is_of_a_figure_that_a_table_can_show() -> None:
    rounds = {"first": [{"us": 10.0}, {"us": 40.0}, {"us": 20.0}], "second": [{"us": 30.0}, {"us": 40.0}, {"us": 30.0}]}
    ratio, plain = Column("us", "CPU", relative=True), Column("us", "CPU", 1, unit=" µs")
    assert value(rounds, "second", plain) == 30.0
    assert value(rounds, "second", ratio) == 1.5, "the median of the ratios, each within its round"
    assert table(rounds, (ratio, plain)).splitlines()[-1] == "| second | 1.50× | 30.0 µs |"
    assert value(rounds, "second", Column("other", "none")) is None


def test_the_picture_is_well_formed() -> None:
    rounds = {"bare <app>": [{"us": 10.0}], "django-sse-live": [{"us": 11.0}]}
    drawn = picture(rounds, Column("us", "CPU", relative=True), "CPU & more", "a note")
    texts = [element.text for element in xml.etree.ElementTree.fromstring(drawn).iter() if element.text]
    assert {"bare <app>", "django-sse-live", "1.10×", "CPU & more", "a note"} <= set(texts)


def test_a_connect_is_compared_with_an_empty_view() -> None:
    titles = [peer.title for peer in chosen_peers(SCENARIOS["connect"], "live,plain")]
    assert titles[2:] == ["an empty Django view", "the same within `live_application`"]


def test_metrics_are_compared_with_the_same_without_them() -> None:
    assert [peer.key for peer in chosen_peers(SCENARIOS["metrics"], None)] == ["live", "metrics"]
    assert "metrics" not in [peer.key for peer in chosen_peers(SCENARIOS["fanout"], None)]


def test_an_unknown_peer_is_named() -> None:
    with pytest.raises(SystemExit, match="There is no peer nginx"):
        chosen_peers(SCENARIOS["fanout"], "live,nginx")
