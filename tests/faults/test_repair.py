"""A host that is killed for good: its sessions get a second copy again, at once and without a request for any of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.end_to_end.cluster import Cluster
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until

from .crowd import logged_in, looked, lost, owners
from .repaired import mended

SESSIONS: Final = 2000
DEAD_S: Final = 3.0  # so long a host is missed before it counts as gone
MENDED_S: Final = 15.0  # what is claimed for fifty times as many


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    made = new_cluster(3, MAX_BYTES="64MiB").start()
    yield made
    assert made.complaints() == []


def test_a_second_kill_after_the_repair_of_the_first_loses_nothing(cluster: Cluster) -> None:
    """When the survivors say that they owe nothing, every idle session is on both, and one of them is enough."""
    killed, other, third = cluster
    users = logged_in(cluster.hosts, SESSIONS)
    before = owners(looked(users, cluster.hosts))
    struck = SESSIONS - before["n2", "n3"]
    assert struck > SESSIONS / 2
    assert all(host.status()["debt"] == 0 for host in cluster)
    killed.kill()
    began = time.monotonic()
    until(lambda: mended([other, third], killed), "they don't have two copies", DEAD_S + MENDED_S)
    print(f"{struck} of {SESSIONS} sessions have two copies again {time.monotonic() - began:.1f} s after the kill")
    assert sum(host.status()["store"]["entries"] for host in (other, third)) == 2 * SESSIONS
    other.kill()
    assert lost(users, [third]) == []
    cluster.heal()
    assert lost(users, cluster.hosts) == []


def test_the_killed_host_comes_back_in_the_middle_of_the_repair(cluster: Cluster) -> None:
    """It is back on its old files while others take over what it had: nothing is lost, and nothing old is served."""
    killed, other, third = cluster
    users = logged_in(cluster.hosts, SESSIONS)
    killed.kill()
    for number, user in enumerate(users[:200]):
        user.items["cart"] = str(number)
        assert user.browser.get((other, third)[number % 2].app, "/set", cart=number).status == 200
    until(lambda: third.member_states().get(killed.name) == "dead", "it is not missed")
    killed.run()
    cluster.await_whole()
    assert lost(users, [killed]) == []
    assert lost(users, [other, third]) == []
