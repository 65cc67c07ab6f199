"""Sessions of healthy hosts beside one that stands still, or is slow: they must not notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.end_to_end.processes import state_of
from tests.faults.proxy import links

from . import idle
from .fleet import Fleet
from .idle import Click, between, refused, worst
from .report import Row, change, spread
from .sizes import Sizes

P99_MORE: Final = 20.0  # percent
SLOW_S: Final = 2.0
HEALTHY: Final = "100:150:n2,n3"  # read and written by a worker of n2
STRUCK: Final = "40:20:n1,n2"  # in another thread of the same worker
Phase = tuple[float, float]


def stopped(sizes: Sizes, directory: Path) -> list[Row]:
    """SIGSTOP of n1, for eight seconds at a time: longer than it takes to count as dead."""
    with Fleet(directory, 3).start() as fleet:
        victim = fleet["n1"]

        def hit() -> None:
            assert {state_of(pid) for pid in victim.pause()} == {"T"}

        return _rows("stopped (SIGSTOP)", *measured(sizes, fleet, hit, victim.resume, HEALTHY, STRUCK))


def slow(sizes: Sizes, directory: Path) -> list[Row]:
    """All that n1 is asked comes two seconds late, and its answers two seconds later still."""
    with Fleet(directory, 3) as fleet, links(fleet) as between_nodes:
        fleet.start()
        link = between_nodes["n1"]
        rows = _rows(
            f"slow by {SLOW_S:.0f} s each way",
            *measured(sizes, fleet, lambda: setattr(link, "delay_s", SLOW_S), link.heal, HEALTHY, STRUCK),
        )
        assert link.hit["delay"] > 0
        return rows


def measured(
    sizes: Sizes, fleet: Fleet, hit: Callable[[], None], heal: Callable[[], None], *kinds: str
) -> tuple[list[list[Click]], list[Phase], list[Phase]]:
    """As many stretches with the fault as without it, in turn, so that whatever else the machine does meets both alike."""
    quiet, meanwhile = list[Phase](), list[Phase]()
    with idle.clicking(fleet["n2"], *kinds) as seen:
        for _ in range(sizes.rounds):
            fleet.await_settled()
            began = time.monotonic()
            time.sleep(sizes.round_s)
            quiet.append((began, time.monotonic()))
            hit()
            began = time.monotonic()
            time.sleep(sizes.round_s)
            meanwhile.append((began, time.monotonic()))
            heal()
        fleet.await_settled()
    return seen, quiet, meanwhile


def _rows(how: str, seen: list[list[Click]], quiet: list[Phase], meanwhile: list[Phase]) -> list[Row]:
    healthy, struck = seen
    before, during = within(healthy, quiet), within(healthy, meanwhile)
    assert len(before) > 100
    assert len(during) > 100
    first, then = (spread([each.seconds for each in clicks]) for clicks in (before, during))
    more = change(first, then)
    wrong = worst(healthy) + worst(struck)
    slowest = max(each.seconds for each in within(struck, meanwhile))
    print(*wrong[:5], sep="\n")
    return [
        Row(
            f"p99 of sessions of healthy hosts beside a host that is {how}",
            f"at most +{P99_MORE:.0f} %",
            f"{more:+.0f} %: {then}, without it {first} ({then.requests:,} requests each)",
            more <= P99_MORE,
            clocked=True,
        ),
        Row(
            f"errors meanwhile, beside a host that is {how}",
            "0",
            f"{refused(during)} of its neighbours' sessions refused; of its own {refused(struck)} of {len(struck):,}, "
            f"the slowest {slowest * 1e3:.0f} ms; {len(wrong)} wrong or lost",
            not refused(during) and not wrong,
        ),
    ]


def within(clicks: list[Click], phases: list[Phase]) -> list[Click]:
    return [each for phase in phases for each in between(clicks, *phase)]
