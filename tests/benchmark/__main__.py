"""What a session costs, against what is used instead: `make bench`, or `python -m tests.benchmark [--quick] [--help]`.

Starts three nodes and three Redis servers on free ports, times everything in one run, prints the tables and whether each
limit holds. Exits with 1 if one does not, with 2 if there is no redis-server.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

import psutil

from . import added, cluster, limits, parts, redis_servers, report, scale, store_bench

MEMORY_OF_A_MILLION: Final = 3 * 2**30


class Size(NamedTuple):
    """How much is done: rounds and calls of a block for each run, sessions, seconds."""

    rounds: int
    block: int
    cold: int  # sessions in turn, more than a worker's caches keep
    part_rounds: int
    writers_s: float
    load_s: float
    many: int
    scale_rounds: int


SIZES: Final = {
    "full": Size(60, 50, 2500, 40, 2.0, 4.0, 1_000_000, 40),
    "quick": Size(8, 40, 2500, 10, 1.0, 1.0, 50_000, 20),
    "tiny": Size(1, 3, 20, 1, 0.1, 0.1, 2000, 1),
}
FEW: Final = 1000
SESSIONS: Final = 64


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    size = SIZES[options.size]
    if size.many > SIZES["quick"].many and psutil.virtual_memory().available < MEMORY_OF_A_MILLION:
        print(
            f"less than 3 GiB of memory are free: the read at scale is of {SIZES['quick'].many:,} sessions, not of {size.many:,}",
            file=sys.stderr,
        )
        size = size._replace(many=SIZES["quick"].many)
    logging.getLogger("clustersession").setLevel(logging.ERROR)
    try:
        results = _run(size)
    except redis_servers.RedisMissing as missing:
        print(f"\n*** {missing} ***\n", file=sys.stderr)
        return 2
    print(report.markdown(results))
    if options.docs is not None:
        report.rewrite(Path(options.docs), results)
    if options.json is not None:
        Path(options.json).write_text(json.dumps(report.as_json(results), indent=1) + "\n", encoding="utf-8")
    broken = [each.what for each in results.limits if not each.holds]
    print(f"\n{len(broken)} of {len(results.limits)} limits broken" if broken else f"\nall {len(results.limits)} limits hold")
    return 1 if broken else 0


def _run(size: Size) -> report.Results:
    began = monotonic()
    with ExitStack() as stack:
        servers = stack.enter_context(redis_servers.running())
        nodes = stack.enter_context(cluster.running())
        before = scale.Footprint.of(nodes)
        _say(f"making {size.cold:,} sessions")
        cookies = added.cookies_of(nodes, SESSIONS, size.cold)
        memory = scale.memory_between(before, scale.Footprint.of(nodes))
        _say("timing requests")
        of_apps = added.bench_added(nodes, servers, cookies, size.rounds, size.block)
        _say("timing the parts")
        of_parts = parts.bench_parts(nodes, servers, size.part_rounds, size.block)
        _say("one node's server under load")
        throughput = scale.bench_throughput(nodes, size.load_s)
    _say("four writers")
    writers = store_bench.bench_four_writers(size.writers_s)
    _say(f"{size.many:,} sessions in one store")
    scaled = scale.bench_scale(FEW, size.many, size.scale_rounds, size.block)
    judged, beside = limits.limits(of_apps, of_parts, scaled), limits.beside(of_apps, of_parts)
    return report.Results(of_apps, of_parts, writers, throughput, scaled, memory, judged, beside, monotonic() - began)


def _say(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--quick", dest="size", action="store_const", const="quick", help="about a minute, 50,000 sessions at scale"
    )
    parser.add_argument(
        "--tiny", dest="size", action="store_const", const="tiny", help="a few calls of everything: does it still run?"
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--docs", metavar="FILE", help="put the tables into FILE, in place of those that it has")
    parser.set_defaults(size="full")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
