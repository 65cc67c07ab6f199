"""The cluster's secret is changed while it serves: host by host, by writing the file that holds the ring, without a restart."""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import pytest

from clustersession.settings import new_key
from tests.end_to_end.browser import Browser, send
from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import FLASK, gunicorn

from .crowd import Load, User, logged_in, looked, lost

ACTIVE: Final = 6
OLD, NEW = new_key(1), new_key(2)
HASH_AT: Final = 45  # of an ID: five fields of eight digits come first
WORKERS_LOOK_S: Final = 1.0


def write_ring(host: Host, *keys: str) -> None:
    """Puts a new file in place of the old one, as configuration management does."""
    path = host.directory / "secret"
    fresh = host.directory / "secret.new"
    fresh.write_text(",".join(keys))
    fresh.chmod(0o600)
    fresh.replace(path)
    host.environ["CLUSTERSESSION_SECRET_FILE"] = str(path)
    host.environ.pop("CLUSTERSESSION_SECRET", None)


def announced(cluster: Cluster, host: Host, kids: Sequence[int]) -> bool:
    """Whether all hosts have heard that `host` has exactly these keys, in this order."""
    said = [member["kids"] for each in cluster for member in each.status()["members"] if member["identity"] == host.name]
    return said == [list(kids)] * len(cluster.hosts)


def signed_by(browser: Browser) -> int:
    """The number of the key that the browser's ID is signed with."""
    [text] = browser.jar.values()
    hashed = text[HASH_AT:].upper()
    return base64.b32hexdecode(hashed + "=" * (-len(hashed) % 8))[0]


def kids_of(users: Iterable[User]) -> set[int]:
    return {signed_by(user.browser) for user in users}


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    made = new_cluster(3)
    for host in made:
        write_ring(host, OLD)
    yield made.start()
    assert made.complaints() == []


def test_step_by_step_nobody_is_logged_out_until_the_old_key_goes(cluster: Cluster) -> None:
    """Known everywhere, then signing, then alone: all under load. What the old key signed is honoured as long as it is in
    the ring, and refused from then on."""
    early = logged_in(cluster.hosts, 30, "early")
    load = Load(logged_in(cluster.hosts, ACTIVE, "active"), cluster.hosts, pause_s=0.03)
    with load.running():
        for host in cluster:
            write_ring(host, OLD, NEW)
            until(lambda host=host: announced(cluster, host, [1, 2]), "the new key is not announced")  # type: ignore[misc]
            load.await_more(30)
        assert kids_of([*early, *logged_in(cluster.hosts, 6, "between")]) == {1}
        for host in cluster:
            write_ring(host, NEW, OLD)
            until(lambda host=host: kids_of(logged_in([host], 4)) == {2}, "the new key does not sign")  # type: ignore[misc]
            load.await_more(30)
        late = logged_in(cluster.hosts, 30, "late")
    load.assert_fine(at_least=100)
    assert (kids_of(early), kids_of(late)) == ({1}, {2})
    assert lost([*early, *late], cluster.hosts) == []

    still = Load(logged_in(cluster.hosts, ACTIVE, "still"), cluster.hosts, pause_s=0.03)
    with still.running():
        for host in cluster:
            write_ring(host, NEW)
            until(lambda host=host: announced(cluster, host, [2]), "the old key is not given up")  # type: ignore[misc]
            still.await_more(30)
    still.assert_fine(at_least=50)
    assert lost(late, cluster.hosts) == []
    until(lambda: all(answer.items == {} for answer in looked(early, cluster.hosts)), "the revoked key is honoured", 10.0)
    print(f"{load.done.total() + still.done.total()} requests during the change")


def test_a_key_put_in_front_signs_only_when_the_last_host_has_it(cluster: Cluster) -> None:
    """The short way: the new key comes first at once, host by host. Hosts that don't have it yet verify everything."""
    users = logged_in(cluster.hosts, 30)
    load = Load(logged_in(cluster.hosts, ACTIVE, "active"), cluster.hosts, pause_s=0.02)
    with load.running():
        for number, host in enumerate(cluster):
            if number:
                assert kids_of(logged_in(cluster.hosts, 9, f"before{number}")) == {1}
            write_ring(host, NEW, OLD)
            until(lambda host=host: announced(cluster, host, [2, 1]), "the new key is not announced")  # type: ignore[misc]
            load.await_more(100)
        until(lambda: kids_of(logged_in(cluster.hosts, 9)) == {2}, "the new key does not sign")
    load.assert_fine(at_least=150)
    assert lost(users, cluster.hosts) == []
    print(f"{load.done.total()} requests during the change")


def recycled(host: Host) -> None:
    """Has the app server put new workers in place of all that it has, and comes back when only those serve."""
    before = pids_of(host)
    host.programs["run"].send_signal(signal.SIGHUP)
    until(lambda: pids_of(host).isdisjoint(before), "the old workers still serve")


def pids_of(host: Host) -> set[int]:
    answers = [send(host.app, "/look", []) for _ in range(12)]
    assert [answer.status for answer in answers] == [200] * len(answers)
    return {answer.seen["pid"] for answer in answers}


@pytest.mark.parametrize("flags", [(), ("--preload",)], ids=["fresh", "preloaded"])
def test_workers_that_start_during_and_after_the_change_are_taken(new_cluster: NewCluster, flags: tuple[str, ...]) -> None:
    """They have the new ring from their start, also where their parent has read the settings before the change."""
    [host] = cluster = new_cluster(1)
    write_ring(host, OLD)
    host.run(gunicorn(FLASK, host.app, "--worker-class", "gthread", "--threads", "1", *flags))
    cluster.await_whole()
    for ring, kids in (((NEW, OLD), [2, 1]), ((NEW,), [2])):
        write_ring(host, *ring)
        recycled(host)  # at once: the node may not have looked yet
        until(lambda kids=kids: announced(cluster, host, kids), "the ring is not announced")  # type: ignore[misc]
        recycled(host)
    assert kids_of(logged_in([host], 4)) == {2}
    assert cluster.complaints() == []
