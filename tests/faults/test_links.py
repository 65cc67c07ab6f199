"""What a network does short of a cut: answers that come late, stop in one direction, vanish, or end in resets. Only the calls to
one of three hosts are hit; its own calls to the others arrive."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.end_to_end.cluster import Cluster
from tests.end_to_end.conftest import NewCluster

from .crowd import Load, logged_in, lost
from .proxy import BOTH, Link, links

FAULT_S: Final = 4.5  # longer than it takes to count a host as dead
IDLE: Final = 60
FAULTS: Final[dict[str, tuple[str, Callable[[Link], None]]]] = {
    "late by a second": ("delay", lambda link: setattr(link, "delay_s", 1.0)),
    "late by a tenth": ("delay", lambda link: setattr(link, "delay_s", 0.1)),
    "requests stall": ("stall", lambda link: setattr(link, "stalled", frozenset({"in"}))),
    "answers stall": ("stall", lambda link: setattr(link, "stalled", frozenset({"out"}))),
    "all is swallowed": ("swallow", lambda link: setattr(link, "swallowed", BOTH)),
    "resets": ("reset", Link.reset),
}


@pytest.fixture(scope="module")
def spoilt(module_cluster: NewCluster) -> Iterator[tuple[Cluster, dict[str, Link]]]:
    with ExitStack() as stack:
        cluster = module_cluster(3)
        found = stack.enter_context(links(cluster))
        yield cluster.start(), found


@pytest.mark.parametrize("name", FAULTS)
def test_calls_to_one_host_are_hit(spoilt: tuple[Cluster, dict[str, Link]], name: str) -> None:
    """Users of all three hosts go on: nobody is logged out, nothing acked is lost or read late, few requests are refused."""
    cluster, found = spoilt
    link = found["n2"]
    kind, begin = FAULTS[name]
    cluster.await_whole()
    idle = logged_in(cluster.hosts, IDLE)
    load = Load(logged_in(cluster.hosts, 6, "active"), cluster.hosts, pause_s=0.03)
    hit = link.hit[kind]
    try:
        with load.running():
            load.await_more(50)
            began = time.monotonic()
            begin(link)
            time.sleep(FAULT_S)
            assert lost(idle, cluster.others("n2")) == []
            ended = time.monotonic()
            link.heal()
            load.await_more(100)
    finally:
        link.heal()
    meanwhile = sorted(seconds for at, seconds in load.seconds if began <= at <= ended)
    p50, p99 = statistics.median(meanwhile) * 1e3, meanwhile[len(meanwhile) * 99 // 100] * 1e3
    print(
        f"{name}: {link.hit[kind] - hit} hit, {len(meanwhile)} requests meanwhile, median {p50:.0f} ms, p99 {p99:.0f} ms, "
        f"{len(load.refused)} to be repeated"
    )
    assert link.hit[kind] > hit
    assert len(meanwhile) > 100
    load.assert_fine(at_least=100, refused=len(meanwhile) // 50)
    cluster.await_whole()
    assert lost(idle, cluster.hosts) == []
    assert cluster.complaints() == []
