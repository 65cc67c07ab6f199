"""One cookie jar, six writes at once, responses taken in any order: still logged in, and no acknowledged write lost."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from . import interleaved, jar
from .cluster import Cluster
from .conftest import NewCluster

ROUNDS = 100
KILLS = 5
ROUNDS_IN_PROCESS = 1000
UNAVAILABLE_MAX = 0.01
SEED = 7


@pytest.fixture(scope="module")
def cluster(module_cluster: NewCluster) -> Cluster:
    return jar.start(module_cluster(3))


def test_a_login_among_writes_keeps_the_user_logged_in(cluster: Cluster) -> None:
    """Real hosts and sockets: the cookie of the login is never put back by a response that was under way."""
    tally = jar.login_rounds([host.app for host in cluster], ROUNDS, SEED)
    print(tally.as_dict())
    assert tally.problems == []
    assert tally.good == ROUNDS
    assert tally.late_cookies > ROUNDS / 10
    assert tally.statuses[409] > 0, "no write ever came too late: the races were none"
    assert cluster.complaints() == []


@pytest.mark.slow
def test_the_death_of_an_owners_host_among_writes_keeps_the_user_logged_in(cluster: Cluster) -> None:
    """kill -9 of an owner's host while six writes are under way: later requests show the login and what was acknowledged."""
    tally = jar.failover_rounds(cluster, KILLS, SEED)
    print(tally.as_dict())
    assert tally.problems == []
    assert tally.good == KILLS
    assert cluster.complaints() == []


@pytest.mark.parametrize("one_round", [interleaved.login_round, interleaved.failover_round])
def test_a_thousand_rounds_of_every_interleaving_keep_the_user_logged_in(
    one_round: Callable[[random.Random, int], jar.Outcome],
) -> None:
    """The same in one process, where every step between two calls is a chance for another request, and any fault can come."""
    tally = jar.Tally()
    for number in range(ROUNDS_IN_PROCESS):
        tally.add(number, one_round(random.Random(f"{SEED}/{number}"), number))
    print(tally.as_dict())
    assert tally.problems == []
    assert tally.good == ROUNDS_IN_PROCESS
    assert tally.met > ROUNDS_IN_PROCESS * 0.8
    assert tally.statuses[503] <= UNAVAILABLE_MAX * tally.statuses.total()
    assert tally.late_cookies > ROUNDS_IN_PROCESS / 10
