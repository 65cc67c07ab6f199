"""A host that is killed comes back without its files before anybody has given it up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.cluster import Cluster
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until

from .crowd import logged_in, lost

SESSIONS = 300
REFILLED_S = 15.0


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    made = new_cluster(3).start()
    yield made
    assert made.complaints() == []


def test_a_host_that_is_back_at_once_without_its_files_gets_its_copies_again(cluster: Cluster) -> None:
    """Killed, files lost, started again before it counts as dead: when nobody owes anything, every idle session is on two hosts
    again, and the next kill loses nothing."""
    empty, other, _ = cluster
    users = logged_in(cluster.hosts, SESSIONS)
    held = empty.status()["store"]["entries"]
    assert held > SESSIONS / 3
    empty.kill()
    shutil.rmtree(empty.place)
    empty.run()
    began = time.monotonic()
    cluster.await_whole()
    until(lambda: all(host.status()["debt"] == 0 for host in cluster), "they don't say that nothing is owed", REFILLED_S)
    print(f"{empty.status()['store']['entries']} of {held} sessions are back after {time.monotonic() - began:.1f} s")
    other.kill()
    assert lost(users, cluster.others(other.name)) == []
