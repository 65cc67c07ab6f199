"""Load, save, end and rotate through seeded faults: no acked write is lost, no logout undone; broken builds are caught."""

from __future__ import annotations

from collections import Counter

import pytest

from .broken import BUILDS
from .run import Result, run_seed

SEEDS = range(60)
BATCH = 10
SEEDS_TO_CATCH = 40
FOUND = {
    # a survivor promoted twice while the first new backup accepted by itself: two histories were read in turn
    "a backup that accepts alone": 384,
    # a host that had been silent still took all others for dead and was taken for dead by them
    "a session created at a host that has just come back": 25,
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


def _enough_happened(counts: Counter[str]) -> None:
    """A run in which nothing succeeded, or no fault struck, proves nothing."""
    for kind in ("reads", "writes", "logins", "logouts", "rotations", "replays"):
        assert counts[kind] > 100, (kind, counts)
    for struck in ("dropped", "delayed", "duplicated", "cut", "fault: crash", "fault: crash and lose files", "fault: pause"):
        assert counts[struck] > 0, (struck, counts)


@pytest.mark.parametrize("story", FOUND)
def test_a_case_that_was_found_stays_cured(story: str) -> None:
    """A seed that once failed goes on being run."""
    result = run_seed(FOUND[story])
    assert not result.violations, _told(result)


@pytest.mark.parametrize("build", BUILDS)
def test_a_broken_build_is_caught(build: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this rule the checker finds a violation in at least one of a few seeds."""
    BUILDS[build](monkeypatch)
    for seed in range(SEEDS_TO_CATCH):
        if any(violation.rule != "no recovery" for violation in run_seed(seed).violations):
            return
    pytest.fail(f"the build with {build!r} was not caught in {SEEDS_TO_CATCH} seeds")


def test_a_seed_is_a_function() -> None:
    """The same seed gives the same run, to the last count."""
    assert run_seed(3, seconds=20) == run_seed(3, seconds=20)
