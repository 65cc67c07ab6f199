"""A host that is told to end hands over its sessions first, also those that nobody asks for; what it cannot hand over it says."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import DEADLINE_S, until
from tests.end_to_end.servers import FLASK, clustersession, gunicorn

from .crowd import logged_in, looked, lost, owners
from .repaired import mended

SESSIONS: Final = 2000
FEWER: Final = 800
OWED_EXIT: Final = 75


@pytest.fixture(scope="module")
def running(module_cluster: NewCluster) -> Cluster:
    return module_cluster(3, MAX_BYTES="64MiB").start()


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    running.heal()
    yield running
    assert running.complaints() == []


def debt_of(host: Host) -> int | None:
    """What its node says it owes; None while it does not know, or does not answer."""
    code, body = host.ask_admin("/status")
    found: int | None = json.loads(body)["debt"] if code == 200 else None
    return found


def debt_when(host: Host, such: Callable[[int], bool]) -> int:
    """Its debt as soon as it is `such`."""

    def look() -> tuple[int] | None:
        debt = debt_of(host)
        return (debt,) if debt is not None and such(debt) else None

    found = until(look, "the drain does not get on")
    assert found is not None
    return found[0]


def test_all_it_had_is_on_two_others_before_it_ends(cluster: Cluster) -> None:
    """Exit code 0 and a debt that has come down to 0: two others have every session, without its files, and without
    the next host that is killed."""
    leaver, other, third = cluster
    users = logged_in(cluster.hosts, SESSIONS)
    program, owed, began = leaver.programs.pop("run"), set[int](), time.monotonic()
    program.send_signal(signal.SIGTERM)
    last: int | None = None
    while program.poll() is None:
        assert time.monotonic() - began < DEADLINE_S
        debt = debt_of(leaver)
        last = last if debt is None else debt
        owed |= set() if debt is None else {debt}
    print(f"drain: {max(owed)} sessions in {time.monotonic() - began:.1f} s, the app's end included")
    assert (program.returncode, last) == (0, 0)
    assert max(owed) > SESSIONS / 3
    assert len(owed) > 5, "it never said how far it was"
    shutil.rmtree(leaver.place)
    assert owners(looked(users, [other, third])) == {("n2", "n3"): SESSIONS}
    other.kill()
    assert lost(users, [third]) == []


def test_the_command_shows_how_much_is_left(cluster: Cluster) -> None:
    """`clustersession drain` counts down to 0 and exits with 0; the node stays, takes nothing new, ends with 0 when told to."""
    leaver, *others = cluster
    users = logged_in(cluster.hosts, FEWER)
    done = subprocess.run(
        clustersession("drain"), cwd=leaver.directory, env=leaver.environ, capture_output=True, text=True, timeout=60, check=False
    )
    print(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    counted = [int(number) for number in re.findall(r"^(\d+) sessions to hand over$", done.stdout, re.MULTILINE)]
    assert counted == sorted(counted, reverse=True)
    assert counted[-1] == 0
    assert counted[0] > FEWER / 3
    assert leaver.ask_admin("/readyz")[0] == 503
    assert owners(looked(users, others)) == {("n2", "n3"): FEWER}
    late = logged_in([leaver], 20, "late")
    assert owners(looked(late, others)) == {("n2", "n3"): 20}
    assert leaver.end() == 0
    assert lost(late, others) == []


def test_a_drain_that_is_killed_in_the_middle_loses_nothing(cluster: Cluster) -> None:
    """kill -9 while it hands over: every session is there at once, and soon has two copies again."""
    leaver, other, third = cluster
    users = logged_in(cluster.hosts, FEWER)
    leaver.programs["run"].send_signal(signal.SIGTERM)
    before = debt_when(leaver, lambda debt: debt > 0)
    left = debt_when(leaver, lambda debt: debt < before * 0.8)
    leaver.kill()
    killed = time.monotonic()
    print(f"killed when {left} of {before} sessions were left")
    assert 0 < left < before
    assert lost(users, [other, third]) == []
    until(lambda: mended([other, third], leaver), "they don't have two copies")
    print(f"two copies again {time.monotonic() - killed:.1f} s after the kill")
    assert owners(looked(users, [other, third])) == {("n2", "n3"): FEWER}
    other.kill()
    assert lost(users, [third]) == []


def test_what_no_time_was_left_for_is_said_and_stays_in_the_files(new_cluster: NewCluster) -> None:
    """With 1 ms to hand over: exit code 75, and the log says how many sessions have one copy. Nobody loses one, and they
    are there when the node comes back on its files."""
    cluster = new_cluster(3, DRAIN_TIMEOUT="1ms")
    leaver, *others = cluster
    for host in cluster:
        host.launch("node", clustersession("node"))
        host.launch("app", gunicorn(FLASK, host.app), CLUSTERSESSION_SPAWN="0")
    cluster.await_whole()
    users = logged_in([leaver], 500)
    assert leaver.end("node") == OWED_EXIT
    [owed] = re.findall(r"ERROR (\d+) sessions could not be handed over", leaver.logs()["node.log"])
    print(f"{owed} of 500 sessions could not be handed over")
    assert int(owed) > 0
    assert leaver.end("app") == 0
    assert lost(users, others) == []
    leaver.launch("node", clustersession("node"))
    leaver.launch("app", gunicorn(FLASK, leaver.app), CLUSTERSESSION_SPAWN="0")
    cluster.await_whole()
    assert lost(users, cluster.hosts) == []
    assert [line for line in cluster.complaints() if "could not be handed over" not in line] == []


def test_who_has_nobody_to_hand_over_to_says_so(new_cluster: NewCluster) -> None:
    """The last host of two: `clustersession run` exits with 75, at once, and names what it owes; its files keep it."""
    cluster = new_cluster(2, DRAIN_TIMEOUT="20s").start()
    other, last = cluster
    users = logged_in([last], 100)
    other.kill()
    until(lambda: last.member_states().get(other.name) == "dead", "the killed host is not missed")
    began = time.monotonic()
    assert last.end() == OWED_EXIT
    assert time.monotonic() - began < 10.0, "it waited for nobody"
    assert "100 sessions could not be handed over" in last.logs()["run.log"]
    cluster.heal()
    assert lost(users, cluster.hosts) == []
    assert [line for line in cluster.complaints() if "could not be handed over" not in line] == []
