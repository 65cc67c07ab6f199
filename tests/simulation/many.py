"""Many seeds in worker processes: progress in one line, a table of what happened, and how to replay what failed."""

from __future__ import annotations

import gc
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, TextIO

import pytest

from .builds import BUILDS
from .operating import COUNTED, Operating
from .run import Result, run_seed
from .schedules import mixed, schedule_of
from .workload import BEYOND, User

SHOWN: Final = (
    "reads",
    "writes",
    "logins",
    "logouts",
    "rotations",
    "replays",
    *COUNTED.values(),
    "unavailable",
    "excused",
    BEYOND,
)
STRUCK: Final = ("dropped", "delayed", "duplicated", "cut", "drained", "left for good")
FAULT: Final = "fault: "
REFUSED: Final = "refused: "
FAILING_SHOWN_MAX: Final = 20


class Job(NamedTuple):
    """One seed as it is run, and as it can be run again."""

    seed: int
    seconds: float
    schedule: str
    kinds: tuple[str, ...] = ()  # instead of those of the schedule
    build: str = ""  # a broken one
    users: int = 0  # 0: as the schedule has it
    nodes: int = 0
    zones: int = 0
    faults: tuple[int, ...] | None = None  # only these strike
    plain: bool = False  # users only read and write

    def run(self, **more: object) -> Result:
        """Run it in this process."""
        people = User if self.plain else Operating
        given = self.given() | {"seconds": self.seconds, "faults": self.faults, "people": people, "on_wire": False} | more
        with pytest.MonkeyPatch.context() as patch:
            if self.build:
                BUILDS[self.build].broken(patch)
            return run_seed(self.seed, **given)

    def given(self) -> dict[str, Any]:
        """What its schedule says, and what is said instead."""
        own = {"kinds": self.kinds, "users": self.users, "nodes": self.nodes, "zones": self.zones}
        return dict(schedule_of(self.schedule)) | {name: value for name, value in own.items() if value}

    @property
    def command(self) -> str:
        """What replays it."""
        parts = ["python -m tests.simulation", f"--seed {self.seed}", f"--seconds {self.seconds:g}"]
        parts.append(f"--schedule {self.schedule!r}")
        if self.kinds:
            parts.append(f"--kinds {','.join(self.kinds)!r}")
        parts += [
            f"--{name} {value}" for name, value in (("users", self.users), ("nodes", self.nodes), ("zones", self.zones)) if value
        ]
        if self.faults is not None:
            parts.append(f"--faults {','.join(map(str, self.faults)) or 'none'}")
        if self.plain:
            parts.append("--plain")
        if self.build:
            parts.append(f"--broken {self.build!r}")
        return " ".join(parts)


def jobs_of(seeds: Sequence[int], seconds: float, schedule: str = "", kinds: tuple[str, ...] = (), build: str = "") -> list[Job]:
    """One job a seed; `schedule` "": the mix."""
    given = ((schedule, 0) if schedule else mixed(seed) for seed in seeds)
    return [Job(seed, seconds, name, kinds, build, zones=zones) for seed, (name, zones) in zip(seeds, given, strict=True)]


def run_many(jobs: Sequence[Job], processes: int, out: TextIO = sys.stdout) -> int:
    """Run them all, print the outcome. 0, or 1 if a rule was broken, or if the runs have shown nothing."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    broken: list[tuple[Job, Result]] = []
    for done, (job, result) in enumerate(_results(jobs, processes), 1):
        counts += result.counts
        if result.violations:
            broken.append((job, result))
        if out.isatty() or done == len(jobs):
            took = time.monotonic() - began
            print(f"\r{done}/{len(jobs)} seeds, {took:.0f} s, {len(broken)} failing", end="", file=out, flush=True)
    took = time.monotonic() - began
    print(f"\n{len(jobs) / max(took, 0.001):.2f} seeds a second in {processes} processes\n", file=out)
    _print_table(counts, sum(len(result.violations) for _, result in broken), out)
    _print_failing(broken, out)
    if not counts["reads"] or not any(kind.startswith(FAULT) for kind in counts):
        print("nothing was read, or no fault struck: this run has shown nothing", file=out)
        return 1
    return 1 if broken else 0


def _results(jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Result]]:
    with multiprocessing.get_context("spawn").Pool(processes, initializer=_begin) as pool:
        yield from pool.imap_unordered(_run, jobs)


def _begin() -> None:
    """Cycles are looked for between the seeds, and among what they have left."""
    gc.freeze()
    gc.disable()


def _run(job: Job) -> tuple[Job, Result]:
    result = job.run()
    gc.collect()
    return job, result


def _print_table(counts: Counter[str], violations: int, out: TextIO) -> None:
    rows = sorted(kind for kind in counts if kind.startswith(FAULT)) + [kind for kind in (*STRUCK, *SHOWN) if counts[kind]]
    rows += sorted(kind for kind in counts if kind.startswith(REFUSED))
    for kind in rows:
        print(f"{kind:<30} {counts[kind]:>12,}", file=out)
    print(f"{'violations':<30} {violations:>12,}", file=out)


def _print_failing(broken: list[tuple[Job, Result]], out: TextIO) -> None:
    for job, result in sorted(broken, key=lambda each: each[0].seed)[:FAILING_SHOWN_MAX]:
        print(f"\nseed {job.seed} ({job.schedule}): {len(result.violations)} violations, the first is", file=out)
        print(f"  {result.violations[0]}", file=out)
        print(f"  {job.command}", file=out)
    if len(broken) > FAILING_SHOWN_MAX:
        print(f"\nand {len(broken) - FAILING_SHOWN_MAX} more seeds", file=out)
