"""Load, save, end and rotate through seeded faults: no acked write is lost, no logout undone; broken builds are caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import pytest

from .builds import BUILDS, Build
from .faults import MORE_THAN_ONE
from .many import Job
from .operating import COUNTED, Operating
from .run import Result, run_seed
from .schedules import APART, SCHEDULES, Schedule, schedule_of
from .workload import BEYOND, User

SEEDS = range(60)
BATCH = 10
SECONDS = 60.0
SEEDS_TO_CATCH = 40
SEEDS_USUAL: Final = 10
SEEDS_OF: Final[Mapping[str, int]] = {
    "many calls fail at once": 20,
    "long faults, short sessions": 20,
    "one host alone": 20,
    "many links at once": 20,
    "everything": 20,
    "half done, and then only read": 4,
}
FOUND: Final[Mapping[str, tuple[int, Schedule]]] = {
    # what a merge brought had a higher number than the master's next write of the same key, and came back with the next merge
    "a write over a merged value of a higher number": (1931, {**schedule_of("one host alone"), "seconds": 120.0}),
    # a side that had lost tried its change of owners again, which then ranked above what was accepted
    "a change that is tried again": (1715, {**schedule_of("one host alone"), "seconds": 120.0}),
    # a survivor promoted twice while the first new backup accepted by itself: two histories were read in turn
    "a backup that accepts alone": (384, {}),
    # a host that had been silent still took all others for dead and was taken for dead by them
    "a session created at a host that has just come back": (25, {}),
    # a node asked about a pending change kept it as a pointer to an accepted one: it and the owners corrected each other for ever
    "a pointer that ranks above what it was told of": (88, {"kinds": MORE_THAN_ONE, "settled": False}),
    # a late copy of a change that its master had given up won at the new backup, and nobody brought it back to that master
    "a change that its own master does not hold": (1, {"kinds": MORE_THAN_ONE, "settled": False}),
    # most were gone for it, and the first it heard again did not know that it had been given up: it served what had ended
    "a host that does not know that it was cut off": (374, schedule_of("a lossy heal, and then only read")),
    # a master had numbered a write, the next one refused it as its lock was another's by then: a merge brought it back
    "a write that was refused after it was numbered": (14, {"people": Operating}),
    # a master that had numbered a write fell silent, another one got the lock, and the write came back in a merge and was acked
    "a write under a lock that another has by now": (196, {**schedule_of("cuts"), "seconds": 120.0, "people": Operating}),
    # two owners in two zones, each of which took the other for lost, chose their new backup by their own zone: not the same one
    "two zones choose two backups": (26, {**schedule_of("cuts, in zones"), "nodes": 4}),
    "two zones choose two backups, again": (38, {**schedule_of("cuts, in zones"), "nodes": 4}),
    # both owners that it knew had left for good, and new ones had come: nobody it asked knew that its sessions had ended
    "a host that comes back to strangers": (5, {**schedule_of("others leave meanwhile"), "seconds": 25.0, "people": Operating}),
    "a host that is back among strangers": (13, {**schedule_of("others leave meanwhile"), "seconds": 37.0, "people": Operating}),
    # two new hosts had made it, and who was asked for it had not heard of either yet: lost, it said
    "a session of two hosts that are new": (6, {**schedule_of("others leave meanwhile"), "seconds": 50.0, "people": Operating}),
}


def _told(result: Result) -> str:
    return "\n".join(f"seed {result.seed}: {violation}" for violation in result.violations)


@pytest.mark.parametrize("first", SEEDS[::BATCH])
def test_no_acked_write_is_lost_and_no_logout_undone(first: int) -> None:
    """One fault at a time, with recovery in between: the outside checker finds nothing."""
    counts: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        result = run_seed(seed)
        assert not result.violations, _told(result)
        counts += result.counts
    _enough_happened(counts)


@pytest.mark.parametrize("name", [*SCHEDULES, *APART][1:])
def test_other_schedules_of_faults(name: str) -> None:
    """The same rules where faults are of one kind, come together, or last longer than a session may be idle."""
    counts: Counter[str] = Counter()
    seeds = SEEDS_OF.get(name, SEEDS_USUAL)
    for seed in range(seeds):
        result = run_seed(seed, **schedule_of(name))
        assert not result.violations, _told(result)
        counts += result.counts
    assert counts["reads"] > 100 * seeds
    struck = {kind for kind in counts if kind.startswith("fault: ")}
    assert struck == {f"fault: {kind}" for kind in schedule_of(name).get("kinds", ())} or name == "short sessions"
    assert counts[BEYOND] or name != "many links at once"  # the checker's exception for it is needed
    assert sum(counts[kind] for kind in struck) >= seeds


def _enough_happened(counts: Counter[str]) -> None:
    """A run in which nothing succeeded, or no fault struck, proves nothing."""
    for kind in ("reads", "writes", "logins", "logouts", "rotations", "replays", *COUNTED.values()):
        assert counts[kind] > 100, (kind, counts)
    for struck in ("dropped", "delayed", "duplicated", "cut", "fault: crash", "fault: crash and lose files", "fault: pause"):
        assert counts[struck] > 0, (struck, counts)
    assert counts["refused: LockLost"] > 0


@pytest.mark.parametrize("story", FOUND)
def test_a_case_that_was_found_stays_cured(story: str) -> None:
    """A seed that once failed goes on being run, with the users there were then."""
    seed, schedule = FOUND[story]
    result = run_seed(seed, **{"people": User, **schedule})
    assert not result.violations, _told(result)


@pytest.mark.parametrize("name", BUILDS)
def test_a_broken_build_is_caught(name: str) -> None:
    """Without this rule the outside checker finds what the rule is there for, in one of a few seeds."""
    build = BUILDS[name]
    for seed in (build.first, *range(SEEDS_TO_CATCH)):
        if _broken_rules(Job(seed, SECONDS, build.schedule, build=name)) & build.rules:
            _alone_shows_nothing(build, seed)
            return
    pytest.fail(f"the build with {name!r} was not caught in {SEEDS_TO_CATCH} seeds")


def _broken_rules(job: Job) -> set[str]:
    return {violation.rule for violation in job.run().violations}


def _alone_shows_nothing(build: Build, seed: int) -> None:
    if build.covered is not None:
        with pytest.MonkeyPatch.context() as patch:
            build.covered(patch)
            assert not _broken_rules(Job(seed, SECONDS, build.schedule))


def test_a_seed_is_a_function() -> None:
    """The same seed gives the same run, to the last count, whether messages travel as bytes or not."""
    first = run_seed(3, seconds=20)
    assert first == run_seed(3, seconds=20)
    assert first == run_seed(3, seconds=20, on_wire=False)
