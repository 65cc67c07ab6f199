"""The tables of a run, as Markdown that can be read in a terminal too, and the same figures as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from .added import BASE, FRAMEWORKS, ON_REDIS, REDIS, REDIS_TWO, ROWS, Added, Cell
from .limits import Limit
from .measure import Times
from .scale import Memory, Scaled, Throughput
from .store_bench import Writers
from .traffic import ACTIONS

PACKAGES: Final = ("starlette", "starsessions", "flask", "flask-session", "django", "redis", "lmdb")


class Results(NamedTuple):
    """Everything of one run."""

    added: Added
    parts: dict[str, Times]
    writers: Writers
    throughput: dict[str, Throughput]
    scaled: list[Scaled]
    memory: Memory
    limits: list[Limit]
    beside: list[Limit]
    seconds: float


MARK: Final = "<!-- what follows is written by the benchmark -->\n"


def rewrite(page: Path, results: Results) -> None:
    """The tables of `page` are those of `results` from now on. Raises `ValueError` for a page without their mark."""
    text, mark, _ = page.read_text(encoding="utf-8").partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no line {MARK.strip()!r}, below which the tables would go")
    page.write_text(f"{text}{mark}\n{markdown(results)}\n", encoding="utf-8")


def markdown(results: Results) -> str:
    sections = [
        ("Machine", _lines(f"- {name}: {text}" for name, text in machine().items())),
        *((f"{framework}: us added to a request", _added(results.added, framework)) for framework in FRAMEWORKS),
        ("Parts: us", _parts(results)),
        ("Scale", _scale(results)),
        ("Limits", limits_table(results.limits, ("PASS", "FAIL"))),
        ("Beside the limits", limits_table(results.beside, ("yes", "no"))),
    ]
    return "\n".join(f"## {title}\n\n{text}\n" for title, text in sections) + f"\nThe run took {results.seconds:.0f} s."


def _added(added: Added, framework: str) -> str:
    head = [f"{action}, {which}" for action in ACTIONS for which in ("p50", "p99")]
    rows = []
    for row in ROWS:
        times = [added[Cell(framework, row, action)] for action in ACTIONS]
        name = row.replace(REDIS, f"{ON_REDIS[framework]} {REDIS}") if row in (REDIS, REDIS_TWO) else row
        rows.append([f"{name} (whole request)" if row == BASE else name, *_figures(times)])
    return _table(["", *head], rows)


def _figures(times: Iterable[Times]) -> list[str]:
    return [f"{figure:.1f}" for each in times for figure in (each.p50, each.p99)]


def _parts(results: Results) -> str:
    rows = [[name, *_figures([times])] for name, times in results.parts.items()]
    change = results.writers.change
    rows.append(["store: write, four busy writers", f"{change.p50:.1f}", f"{change.p99:.1f}"])
    return _table(["", "p50", "p99"], rows)


def _scale(results: Results) -> str:
    facts = [
        *(
            f"- one node's server, 16 connections, {what}: {each.per_second:,.0f} a second, "
            f"{each.server_us:.0f} us of the server's processor time for each"
            for what, each in results.throughput.items()
        ),
        *(
            f"- {each.sessions:,} sessions: a read that its worker makes first {each.read.p50:.1f} us (p99 {each.read.p99:.1f}), "
            f"of that in the store {each.store_read.p50:.1f} us; {each.bytes_each:.0f} bytes each, with a 3-item cart"
            for each in results.scaled
        ),
        _memory(results.memory),
        f"- store writes by four busy processes: {results.writers.per_second:,.0f} a second",
    ]
    return _lines(facts)


def _memory(memory: Memory) -> str:
    return (
        f"- memory of one copy with a 20-item cart: {memory.store_bytes:,.0f} bytes in the store, "
        f"{memory.resident_bytes:,.0f} resident in its node ({memory.copies:,} copies)"
    )


def limits_table(limits: Iterable[Limit], words: tuple[str, str]) -> str:
    rows = [
        [
            words[0 if each.holds else 1],
            each.what,
            f"{each.ours:.1f}",
            f"{each.theirs:.1f}",
            f"{each.ratio:.2f}",
            f"{each.factor:g}",
        ]
        for each in limits
    ]
    return _table(["", "", "ours, us", "theirs, us", "ratio", "at most"], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    left = {at for at in range(len(head)) if not any(row[at][:1].isdigit() for row in rows)}

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(cells)} |"

    rule = ["-" * width if at in left else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return _lines([line(head), line(rule), *map(line, rows)])


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def machine() -> dict[str, str]:
    """What the figures depend on; the load says whether it was quiet."""
    return {
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "load when the run ended": f"{os.getloadavg()[0]:.1f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def as_json(results: Results) -> dict[str, Any]:
    """Microseconds throughout. `added` by framework, row and action; the baseline there is the whole request."""
    return {
        "machine": machine(),
        "added": {
            framework: {
                row: {action: results.added[Cell(framework, row, action)]._asdict() for action in ACTIONS} for row in ROWS
            }
            for framework in FRAMEWORKS
        },
        "parts": {name: times._asdict() for name, times in results.parts.items()},
        "four_writers": {**results.writers.change._asdict(), "per_second": results.writers.per_second},
        "throughput": {what: each._asdict() for what, each in results.throughput.items()},
        "scale": [
            {**each._asdict(), "read": each.read._asdict(), "store_read": each.store_read._asdict()} for each in results.scaled
        ],
        "memory": results.memory._asdict(),
        "limits": [_limit(each) for each in results.limits],
        "beside": [_limit(each) for each in results.beside],
        "seconds": results.seconds,
    }


def _limit(limit: Limit) -> dict[str, Any]:
    return {**limit._asdict(), "ratio": limit.ratio, "holds": limit.holds}
