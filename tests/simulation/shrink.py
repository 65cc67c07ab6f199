"""A failing seed made small: fewer users, fewer hosts, fewer faults, less time, as long as the same rule is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from .checker import Violation
from .many import FAULT, Job
from .run import Result
from .story import Storyteller
from .workload import NUMBERS

RUNS_MAX: Final = 150
SEEDS_TRIED: Final = 4  # with fewer users all that follows is another story: the same rule may be broken in one of a few
NODES_MIN: Final = 3
FEW: Final = 2
SECONDS_MIN: Final = 4.0


class Shrunk(NamedTuple):
    """The smallest run found that breaks the same rule, and how many runs it took to find it."""

    job: Job
    violation: Violation
    runs: int

    def story(self) -> list[str]:
        """What happened to the session whose rule was broken, in words."""
        teller = Storyteller(self.violation.key, self.violation.session)
        result = self.job.run(listener=teller.listener)
        return teller.told(result.violations)


def shrink(job: Job, report: Callable[[str], None] = lambda _: None) -> Shrunk | None:
    """None: the seed breaks no rule."""
    result = job.run()
    if not result.violations:
        return None
    rule = result.violations[0].rule
    job, found, runs = _explicit(job, result), result.violations[0], 1
    smaller = _smaller(job, found)
    while runs < RUNS_MAX and (candidate := next(smaller, None)) is not None:
        result = candidate.run()
        runs += 1
        same = [violation for violation in result.violations if violation.rule == rule]
        if same:
            job, found = candidate, same[0]
            report(f"{job.users} users, {job.nodes} hosts, {len(job.faults or ())} faults, {job.seconds:g} s")
            smaller = _smaller(job, found)
    return Shrunk(job, found, runs)


def _explicit(job: Job, result: Result) -> Job:
    """The same run, with everything said that a smaller one changes."""
    struck = sum(count for kind, count in result.counts.items() if kind.startswith(FAULT))
    faults = tuple(range(struck)) if job.faults is None else job.faults
    schedule = job.given()
    return job._replace(
        users=schedule.get("users", 6), nodes=schedule.get("nodes", NODES_MIN + job.seed % NODES_MIN), faults=faults
    )


def _smaller(job: Job, found: Violation) -> Iterator[Job]:
    """What to try next, the largest steps first."""
    faults = job.faults or ()
    shorter = (round(found.at + 0.5, 1), round(job.seconds / 2, 1))
    smaller = [job._replace(seconds=seconds) for seconds in shorter if SECONDS_MIN <= seconds < job.seconds - 0.5]
    smaller += [job._replace(users=users) for users in (1, 2, job.users // 2, job.users - 1) if 0 < users < job.users]
    smaller += [job._replace(faults=(fault,)) for fault in faults if len(faults) > 1]
    smaller += [job._replace(faults=tuple(f for f in faults if f != fault)) for fault in faults if len(faults) > FEW]
    if job.nodes > NODES_MIN:
        smaller.append(job._replace(nodes=NODES_MIN))
    for candidate in smaller:
        yield candidate
        if candidate.seconds == job.seconds:
            yield from (candidate._replace(seed=job.seed + NUMBERS * k) for k in range(1, SEEDS_TRIED))
