"""A host starts without its files: before anybody has given it up, or where it cannot find the others."""

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
CUT_OFF_S = 4.0  # longer than it takes until a table with nobody in it would count as complete


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


@pytest.mark.parametrize("seeds", ["dns://app.invalid:10060", "127.0.0.1:9,127.0.0.1:19"], ids=["unresolved", "refused"])
def test_a_host_that_starts_empty_and_finds_nobody_logs_nobody_out(new_cluster: NewCluster, seeds: str) -> None:
    """Its name server or its way to the others fails: balancers are told, and sessions of the others are unavailable here, never
    gone. Who logs in here is served."""
    made = new_cluster(3)
    one, two, apart = made
    for host in (one, two):
        host.environ["CLUSTERSESSION_PEERS"] = ",".join(f"{each.peer[0]}:{each.peer[1]}" for each in (one, two))
        host.run()
    until(lambda: all(host.sees({"n1", "n2"}) for host in (one, two)), "the two do not meet")
    users = logged_in([one, two], 6)
    apart.environ |= {"CLUSTERSESSION_PEERS": seeds, "CLUSTERSESSION_READY_TIMEOUT": "5s"}
    apart.run()
    until(lambda: "where CLUSTERSESSION_PEERS names others" in apart.ask_admin("/readyz")[1], "it does not say that it is alone")
    until(apart.serves, "it does not serve")
    began = time.monotonic()
    while time.monotonic() < began + CUT_OFF_S:
        assert {apart.look(user.browser).status for user in users} == {503}
    assert lost(logged_in([apart], 3, "here"), [apart]) == []
    until(lambda: apart.ask_admin("/readyz")[0] == 200, "it is never ready", 15.0)
    assert {apart.look(user.browser).status for user in users} == {503}
    assert lost(users, [one, two]) == []
    assert [line for host in made for line in host.complaints()] == []
