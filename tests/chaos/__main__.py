"""Faults in real processes at full size, beside what is claimed: `make chaos`, or
`python -m tests.chaos [--only NAME] [--small] [--docs FILE] [--json FILE]`. Exits with 1 if a claim does not hold."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from pathlib import Path

from . import report
from .fleet import place
from .report import Row
from .scenarios import SCENARIOS
from .sizes import FULL, SMALL, Sizes


def run(name: str, sizes: Sizes) -> list[Row]:
    """The rows of one scenario; one that says so where it came to no end."""
    with place() as directory:
        try:
            return SCENARIOS[name](sizes, directory)
        except AssertionError as error:
            traceback.print_exception(error)
            return [Row(name, "comes to an end", str(error).partition("\n")[0][:300] or "an assertion failed", passed=False)]


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    began, rows = time.monotonic(), list[Row]()
    for name in options.only or SCENARIOS:
        print(f"... {name}", file=sys.stderr, flush=True)
        at = time.monotonic()
        found = run(name, SMALL if options.small else FULL)
        print(f"{report.table(found)}\n{name}: {time.monotonic() - at:.0f} s\n", flush=True)
        rows += found
    took = time.monotonic() - began
    print(report.table(rows))
    if options.docs:
        report.rewrite(Path(options.docs), rows, took)
    if options.json:
        Path(options.json).write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n", encoding="utf-8")
    broken = sum(not row.passed for row in rows)
    print(f"\n{broken} of {len(rows)} claims do not hold" if broken else f"\nall {len(rows)} claims hold")
    return 1 if broken else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--only", action="append", choices=list(SCENARIOS), metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--small", action="store_true", help="two minutes: do the scenarios still work?")
    parser.add_argument("--docs", metavar="FILE", help="put the table into FILE, in place of the one that it has")
    parser.add_argument("--json", metavar="FILE", help="write all rows to FILE as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
