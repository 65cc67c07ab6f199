"""What a run has shown, as a table that can be read in a terminal and in the docs, and as JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

MARK: Final = "<!-- what follows is written by make chaos -->\n"
HEAD: Final = ("claim", "figure claimed", "measured here", "passed")


class Row(NamedTuple):
    """One claim. `clocked`: what is judged is a time, which needs the full size and a machine with nothing else to do."""

    claim: str
    claimed: str
    measured: str
    passed: bool
    clocked: bool = False


class Spread(NamedTuple):
    """Median and 99th percentile of so many times, in ms."""

    requests: int
    median_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"median {self.median_ms:.1f} ms, p99 {self.p99_ms:.1f} ms"


def spread(seconds: Sequence[float]) -> Spread:
    ordered = sorted(seconds)
    assert ordered, "nothing was timed"
    return Spread(len(ordered), statistics.median(ordered) * 1e3, ordered[len(ordered) * 99 // 100] * 1e3)


def change(before: Spread, meanwhile: Spread) -> float:
    """By how many percent the 99th percentile is higher."""
    return (meanwhile.p99_ms / before.p99_ms - 1.0) * 100.0


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    cells = [HEAD, *((row.claim, row.claimed, row.measured, "yes" if row.passed else "**NO**") for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    lines = ["| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "| " + " | ".join("-" * width for width in widths) + " |", *lines[1:]])


def machine() -> str:
    return f"{os.cpu_count()} processors ({platform.machine()}), Linux {platform.release()}, Python {platform.python_version()}"


def rewrite(page: Path, rows: Sequence[Row], seconds: float) -> None:
    """The table of `page` is that of `rows` from now on. Raises `ValueError` for a page without its mark."""
    text, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no line {MARK.strip()!r}, below which the table would go")
    page.write_text(f"{text}{mark}\n{table(rows)}\n\n{machine()}; the run took {seconds / 60:.0f} minutes.\n", encoding="utf-8")
