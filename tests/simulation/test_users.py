"""The end of all sessions of a user, under the outside checker."""

from __future__ import annotations

from collections import Counter

import pytest

from clustersession.core import upkeep
from clustersession.core.bars import Tally
from clustersession.core.effects import Operation

from .broken import no_hints
from .everywhere import Everywhere
from .faults import CUTS, DRAINS, ONE_AT_A_TIME
from .run import Result, run_seed

SEEDS = 12
SECONDS = 40.0


def runs(first: int, count: int, kinds: tuple[str, ...] = (*ONE_AT_A_TIME, *DRAINS)) -> list[Result]:
    return [run_seed(seed, seconds=SECONDS, kinds=kinds, people=Everywhere) for seed in range(first, first + count)]


def test_who_is_logged_out_everywhere_stays_so() -> None:
    """Through every single fault: no read or write finds an ended session, and no session of anybody else, nor one begun later,
    is lost."""
    counts: Counter[str] = Counter()
    for result in runs(0, SEEDS):
        assert not result.violations, (result.seed, result.violations[:3])
        counts += result.counts
    assert counts["ended everywhere"] > 2 * counts["logouts"] > 100, counts
    assert counts["with a silent node"] > 5, counts


def test_who_is_logged_out_in_one_part_of_a_cluster_stays_so() -> None:
    """Some pairs of hosts cannot talk, in one direction or both."""
    results = runs(0, SEEDS, CUTS)
    assert [(result.seed, result.violations[:3]) for result in results if result.violations] == []
    assert sum(result.counts["ended everywhere"] for result in results) > 100


def test_without_bars_and_hints_it_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not reach the one that ends hears of it twice: by its peers' bars, and by the hints of the other owners.
    Without both it goes on serving what was ended elsewhere."""

    def deaf(me: str, peer: str, mine: Tally) -> Operation[bool]:
        return True
        yield

    monkeypatch.setattr(upkeep, "barred", deaf)
    no_hints(monkeypatch)
    assert sum(bool(result.violations) for result in runs(0, SEEDS, CUTS)) > 1
