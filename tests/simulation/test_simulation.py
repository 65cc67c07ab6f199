"""Load, save, end and rotate through seeded faults: no acked write is lost, no logout undone; broken builds are caught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import pytest

from .broken import BUILDS
from .faults import CUTS, LONG, MORE_THAN_ONE
from .run import Result, run_seed
from .workload import SHORT_IDLE_S

SEEDS = range(60)
BATCH = 10
SEEDS_TO_CATCH = 40
Schedule = Mapping[str, Any]  # arguments of `run_seed`
EXPIRY: Final[Schedule] = {"kinds": LONG, "idle_s": SHORT_IDLE_S}
OTHERS: Final[Mapping[str, tuple[Schedule, int]]] = {
    "one link of many is cut": ({"kinds": CUTS}, 10),
    "many calls fail at once": ({"kinds": MORE_THAN_ONE}, 20),
    "sessions expire": ({"idle_s": SHORT_IDLE_S}, 10),
    "a fault lasts longer than a session may be idle": (EXPIRY, 20),
}
FOUND: Final[Mapping[str, tuple[int, Schedule]]] = {
    # a survivor promoted twice while the first new backup accepted by itself: two histories were read in turn
    "a backup that accepts alone": (384, {}),
    # a host that had been silent still took all others for dead and was taken for dead by them
    "a session created at a host that has just come back": (25, {}),
    # a node asked about a pending change kept it as a pointer to an accepted one: it and the owners corrected each other for ever
    "a pointer that ranks above what it was told of": (88, {"kinds": MORE_THAN_ONE}),
    # a late copy of a change that its master had given up won at the new backup, and nobody brought it back to that master
    "a change that its own master does not hold": (1, {"kinds": MORE_THAN_ONE}),
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


@pytest.mark.parametrize("name", OTHERS)
def test_other_schedules_of_faults(name: str) -> None:
    """The same rules where faults are of one kind, come together, or last longer than a session may be idle."""
    schedule, seeds = OTHERS[name]
    counts: Counter[str] = Counter()
    for seed in range(seeds):
        result = run_seed(seed, **schedule)
        assert not result.violations, _told(result)
        counts += result.counts
    assert counts["reads"] > 100 * seeds
    assert sum(count for kind, count in counts.items() if kind.startswith("fault: ")) >= seeds


def _enough_happened(counts: Counter[str]) -> None:
    """A run in which nothing succeeded, or no fault struck, proves nothing."""
    for kind in ("reads", "writes", "logins", "logouts", "rotations", "replays"):
        assert counts[kind] > 100, (kind, counts)
    for struck in ("dropped", "delayed", "duplicated", "cut", "fault: crash", "fault: crash and lose files", "fault: pause"):
        assert counts[struck] > 0, (struck, counts)


@pytest.mark.parametrize("story", FOUND)
def test_a_case_that_was_found_stays_cured(story: str) -> None:
    """A seed that once failed goes on being run."""
    seed, schedule = FOUND[story]
    result = run_seed(seed, **schedule)
    assert not result.violations, _told(result)


@pytest.mark.parametrize("build", BUILDS)
def test_a_broken_build_is_caught(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this rule the checker finds a violation in at least one of a few seeds."""
    BUILDS[build].broken(monkeypatch)
    for seed in range(SEEDS_TO_CATCH):
        if any(violation.rule != "no recovery" for violation in run_seed(seed, **BUILDS[build].schedule).violations):
            return
    pytest.fail(f"the build with {build!r} was not caught in {SEEDS_TO_CATCH} seeds")


def test_a_seed_is_a_function() -> None:
    """The same seed gives the same run, to the last count."""
    assert run_seed(3, seconds=20) == run_seed(3, seconds=20)
