"""Many seeds (`make sim SEEDS=0-1999 SECONDS=120 JOBS=2`), one of them again, or one made small and told in words."""

from __future__ import annotations

import argparse
import sys

from .builds import BUILDS
from .faults import DURATION_S, NOISE
from .many import Job, jobs_of, run_many
from .run import Listener
from .schedules import APART, SCHEDULES, mixed
from .shrink import shrink


def main(arguments: list[str]) -> int:
    """0: no rule was broken; 1: one was, as is printed."""
    options = _options(arguments)
    if options.seed is None:
        jobs = jobs_of(options.seeds, options.seconds, options.schedule, options.kinds, options.broken)
        return run_many(
            [
                job._replace(users=options.users, nodes=options.nodes, zones=options.zones or job.zones, plain=options.plain)
                for job in jobs
            ],
            options.jobs,
        )
    schedule, zones = (options.schedule, 0) if options.schedule else mixed(options.seed)
    job = Job(
        options.seed,
        options.seconds,
        schedule,
        options.kinds,
        options.broken,
        options.users,
        options.nodes,
        options.zones or zones,
        options.faults,
        options.plain,
    )
    return _shrunk(job) if options.shrink else _again(job, told=options.trace)


def _again(job: Job, *, told: bool) -> int:
    result = job.run(listener=Listener(print)) if told else job.run()
    for kind, count in sorted(result.counts.items()):
        print(f"{kind:<30} {count:>9,}")
    print(*result.violations, sep="\n")
    return 1 if result.violations else 0


def _shrunk(job: Job) -> int:
    found = shrink(job, lambda text: print(f"... {text}", file=sys.stderr))
    if found is None:
        print("this seed breaks no rule")
        return 0
    print(*found.story(), sep="\n")
    print(f"\n{found.violation}\nfound in {found.runs} runs; to see it again: {found.job.command} --shrink")
    return 1


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default=range(200), metavar="FIRST-LAST", help="which to run (0-199)")
    parser.add_argument("--seconds", type=float, default=120.0, help="simulated seconds of each (120)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (2)")
    parser.add_argument("--schedule", default="", choices=("", *SCHEDULES, *APART), help="this one, not all in turn")
    parser.add_argument("--kinds", type=_kinds, default=(), metavar="FAULT,...", help="only these faults")
    parser.add_argument("--broken", default="", choices=("", *BUILDS), help="a build without one of its rules")
    parser.add_argument("--users", type=int, default=0, help="at once")
    parser.add_argument("--nodes", type=int, default=0, help="hosts; 3 to 5 by the seed")
    parser.add_argument("--zones", type=int, default=0, help="that hosts are in; those of the mix")
    parser.add_argument("--plain", action="store_true", help="users only read and write: no counting, no locks")
    one = parser.add_argument_group("one seed")
    one.add_argument("--seed", type=int, help="run only this one, and print what it counted")
    one.add_argument("--faults", type=_faults, metavar="0,3,...", help="only these of its faults strike")
    one.add_argument("--trace", action="store_true", help="print what happens")
    one.add_argument("--shrink", action="store_true", help="make it small, and tell it in words")
    return parser.parse_args(arguments)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind.strip() for kind in text.replace("isolation, lossy", "isolation; lossy").split(","))
    kinds = tuple(kind.replace(";", ",") for kind in kinds)
    unknown = [kind for kind in kinds if kind not in (*DURATION_S, *NOISE)]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such fault: {', '.join(unknown)}; there are {', '.join((*DURATION_S, *NOISE))}")
    return kinds


def _faults(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
