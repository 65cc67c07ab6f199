"""Links between hosts fall silent, one direction or a whole host, while their users reach all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import Host
from tests.end_to_end.processes import until

from .apart import ApartCluster, namespaces
from .calling import Caller, in_parallel
from .crowd import Load, logged_in, lost

CUT_S: Final = 6.0  # longer than it takes to count a host as dead
LEASE_S: Final = 2.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApartCluster]:
    with namespaces("n1", "n2", "n3") as network, ApartCluster(tmp_path, network) as made:
        made.start()
        yield made
        assert made.complaints() == []


def test_one_direction_of_one_link(cluster: ApartCluster) -> None:
    """What n1 sends does not reach n2. Users go on with all three hosts: nobody is logged out, no acked write is lost or read
    late, and a logout on one side of the cut is one on the other within the lease."""
    idle = logged_in(cluster.hosts, 60)
    leaving = logged_in([cluster["n1"]], 10, "leaving")
    stolen = [user.browser.cookies for user in leaving]
    load = Load(logged_in(cluster.hosts, 6, "active"), cluster.hosts, pause_s=0.03)
    with load.running():
        load.await_more(50)
        cluster.cut("n1", "n2")
        began = time.monotonic()
        ended = in_parallel(lambda caller, user: caller.get(cluster["n1"].app, "/end", user.browser).status, leaving)
        acked = time.monotonic()
        until(lambda: dead_on(cluster, "n2", stolen), "a logged-out session is served", LEASE_S + 1.0)
        print(f"logouts are known on the other side {time.monotonic() - acked:.2f} s after the last one")
        time.sleep(max(0.0, CUT_S - (time.monotonic() - began)))
        assert lost(idle, cluster.hosts) == []
        load.await_more(50)
        dropped = cluster.mend()
        load.await_more(50)
    print(f"{dropped} packets dropped, {load.done.total()} requests, {len(load.refused)} to be repeated")
    assert dropped["n1", "n2"] > 10
    assert set(ended) == {200}
    load.assert_fine(at_least=100)
    cluster.await_whole()
    assert lost(idle, cluster.hosts) == []
    assert all(dead_on(cluster, host.name, stolen) for host in cluster)


def dead_on(cluster: ApartCluster, name: str, stolen: list[list[str]]) -> bool:
    answers = in_parallel(lambda caller, cookies: caller.look(cluster[name].app, "/look", cookies), stolen)
    return all(answer.items == {} for answer in answers)


def test_a_host_cut_off_from_the_others(cluster: ApartCluster) -> None:
    """Both sides go on with the sessions they have. When the link is back each session holds what either side has acked, and
    what was ended on one side is ended."""
    alone, other, third = cluster
    users = [user for user in logged_in([alone], 40) if user.browser.get(alone.app, "/look").seen["owners"][1]]
    ended, kept = users[:10], users[10:]
    stolen = [user.browser.cookies for user in ended]
    there = {user.name: user.browser.copy() for user in kept}  # the same session in another window, on the other side
    for peer in ("n2", "n3"):
        cluster.cut("n1", peer)
        cluster.cut(peer, "n1")
    began = time.monotonic()
    assert in_parallel(lambda caller, user: caller.get(other.app, "/end", user.browser).status, ended) == [200] * len(ended)
    right = in_parallel(lambda caller, user: write(caller, third.app, there[user.name], right="1"), kept)
    assert all(right), right
    print(f"the side of two has acked everything {time.monotonic() - began:.1f} s after the cut")
    todo, refused = [*kept, *ended[:5]], 0  # the latter, as their browsers are told nothing of their end on this side
    while todo:
        acked = in_parallel(lambda caller, user: write(caller, alone.app, user.browser, left="1"), todo)
        todo = [user for user, done in zip(todo, acked, strict=True) if not done]
        refused += len(todo)
        assert time.monotonic() - began < CUT_S, "the host that is alone takes no writes"
    print(f"the host that is alone after {time.monotonic() - began:.1f} s, {refused} requests were to be repeated until then")
    time.sleep(max(0.0, CUT_S - (time.monotonic() - began)))
    dropped = cluster.mend()
    print(f"{dropped} packets dropped")
    assert min(dropped.values()) > 10
    cluster.await_whole()
    whole = time.monotonic()
    for host in cluster:
        until(lambda host=host: dead_on(cluster, host.name, stolen), "a logged-out session is back", LEASE_S)  # type: ignore[misc]
    wanted = [{**user.items, "left": "1", "right": "1"} for user in kept]
    for browsers in ([user.browser for user in kept], [there[user.name] for user in kept]):
        for host in cluster:
            until(lambda host=host, browsers=browsers: shown(host, browsers) == wanted, "acked values are missing", LEASE_S)  # type: ignore[misc]
    print(f"both histories are one {time.monotonic() - whole:.1f} s after all hosts see each other")
    assert all(dead_on(cluster, host.name, stolen) for host in cluster)


def shown(host: Host, browsers: list[Browser]) -> list[dict[str, Any] | None]:
    """What each session holds; None where it cannot be reached: a worker may keep off a peer a moment after the link is back."""
    answers = in_parallel(lambda caller, each: caller.look(host.app, "/look", each.cookies), browsers)
    assert {answer.status for answer in answers} <= {200, 503}
    return [answer.items if answer.status == 200 else None for answer in answers]


def write(caller: Caller, at: tuple[str, int], browser: Browser, **values: str) -> bool:
    return caller.get(at, "/set", browser, **values).status == 200
