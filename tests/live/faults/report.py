"""One row of the table in docs/faults.md: what was done, what was required, what was seen."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Row:
    fault: str
    server: str
    load: str
    figures: dict[str, object] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    misses: list[str] = field(default_factory=list)

    def require(self, holds: bool, words: str) -> None:
        """What holds on any machine, however busy."""
        if not holds:
            self.failures.append(words)

    def measure(self, holds: bool, words: str) -> None:
        """A figure that depends on the machine and its other work: judged by who measures, not by who tests."""
        if not holds:
            self.misses.append(words)

    @property
    def is_good(self) -> bool:
        return not self.failures and not self.misses

    def __str__(self) -> str:
        figures = " · ".join(f"{name} {value}" for name, value in self.figures.items())
        verdict = "yes" if self.is_good else "NO: " + "; ".join(self.failures + self.misses)
        return f"| {self.fault} | {self.server} | {self.load} | {figures} | {verdict} |"


HEADER = "| fault | server | load | seen | as required |\n|---|---|---|---|---|"


def first_lines(lines: list[str], count: int = 5) -> str:
    return " / ".join(line.strip()[:200] for line in lines[:count])
