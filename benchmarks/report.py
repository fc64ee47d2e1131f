"""From the figures of all rounds to a Markdown table, and to a picture."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape

from .scenarios import Column, Figures

Rounds = dict[str, list[Figures]]  # by the title of the row; one item a round

BAR_HEIGHT, GAP, LEFT, WIDTH = 26, 12, 360, 900
INK, OURS, OTHERS = "#1d2430", "#1b8a5a", "#a9b1bd"


def value(rounds: Rounds, row: str, column: Column) -> float | None:
    """The median of the rounds; of the ratios to the first row in the same round, where the column is relative."""
    figures = [one[column.key] for one in rounds[row] if column.key in one]
    if column.relative:
        first = [one[column.key] for one in next(iter(rounds.values()))]
        figures = [mine / theirs for mine, theirs in zip(figures, first) if theirs]  # noqa: B905
    return statistics.median(figures) if figures else None


def table(rounds: Rounds, columns: Sequence[Column]) -> str:
    lines = [
        "| | " + " | ".join(column.title for column in columns) + " |",
        "|---|" + "---:|" * len(columns),
    ]
    for row in rounds:
        cells = []
        for column in columns:
            figure = value(rounds, row, column)
            cells.append("–" if figure is None else _shown(figure, column))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _shown(figure: float, column: Column) -> str:
    if column.relative:
        return f"{figure:.2f}×"
    return f"{figure:,.{column.digits}f}{column.unit}"


def picture(rounds: Rounds, column: Column, title: str, note: str) -> str:
    """Bars, as an SVG that reads on light and on dark pages."""
    figures = {row: figure for row in rounds if (figure := value(rounds, row, column)) is not None}
    longest = max(figures.values())
    height = 74 + len(figures) * (BAR_HEIGHT + GAP) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="14">',
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fbfaf8"/>',
        f'<text x="24" y="38" font-size="17" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    top = 62
    for row, figure in figures.items():
        ours = row.startswith("django-sse-live")
        length = max(2, round((WIDTH - LEFT - 90) * figure / longest))
        middle = top + BAR_HEIGHT // 2 + 5
        label = escape(row.replace("`", ""))
        weight = 600 if ours else 400
        lines += [
            f'<text x="{LEFT - 12}" y="{middle}" text-anchor="end" font-weight="{weight}" fill="{INK}">{label}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{length}" height="{BAR_HEIGHT}" rx="4" '
            f'fill="{OURS if ours else OTHERS}"/>',
            f'<text x="{LEFT + length + 8}" y="{middle}" fill="{INK}">{escape(_shown(figure, column))}</text>',
        ]
        top += BAR_HEIGHT + GAP
    lines += [f'<text x="24" y="{height - 18}" font-size="12" fill="#5b6472">{escape(note)}</text>', "</svg>"]
    return "\n".join(lines) + "\n"
