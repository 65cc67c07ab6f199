"""All sessions of a user are ended while hosts are down or stand still: what those hold is dead when they are back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.end_to_end.browser import send
from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import state_of, until

from .calling import Caller, in_parallel
from .crowd import CART, User

EACH: Final = 10
PAUSE_S: Final = 2.5
USER: Final = "7"


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    made = new_cluster(4).start()
    yield made
    assert made.complaints() == []


def sessions_on(hosts: list[Host], by: set[str], user: str) -> list[User]:
    """So many sessions of one user that have exactly these owners, and none that has others."""
    found: list[User] = []

    def enter(caller: Caller, number: int) -> User | None:
        made = User(f"{user}.{number}")
        at = hosts[number % len(hosts)]
        owners = made.set(caller, at, _user_id=user, cart=CART).seen["owners"]
        owners = caller.get(at.app, "/look", made.browser).seen["owners"] if owners is None else owners
        if set(owners) == by:
            return made
        caller.get(at.app, "/end", made.browser)
        return None

    while len(found) < EACH:
        found += [each for each in in_parallel(enter, range(EACH)) if each is not None]
    return found


def end_all(host: Host) -> int:
    """How many sessions ended at once; again as long as too few nodes answer."""
    ended: list[int] = []

    def asked() -> bool:
        answer = send(host.app, "/end_all", [], user=USER)
        assert answer.status in (200, 503), answer
        ended.extend([json.loads(answer.body)["ended"]] if answer.status == 200 else [])
        return bool(ended)

    until(asked, "it could not be ended")
    return ended[0]


def alive(host: Host, sessions: list[User]) -> int:
    """How many of them the host opens. A 503 opens none."""
    cookies = [each.browser.cookies for each in sessions]
    answers = in_parallel(lambda caller, each: caller.look(host.app, "/look", each), cookies, threads=12)
    assert {answer.status for answer in answers} <= {200, 503}
    return sum(answer.status == 200 and answer.items != {} for answer in answers)


def test_both_owners_are_killed_and_come_back_with_their_files(cluster: Cluster) -> None:
    """Nobody that is left when the user's sessions are ended has ever heard of them: the old files open nothing all the same, and
    another user's sessions in them are there."""
    one, two, third, _ = cluster
    theirs, others = (sessions_on([one, two], {"n1", "n2"}, user) for user in (USER, "8"))
    for host in (one, two):
        host.kill()
    assert end_all(third) == 0, "the fault did not happen: somebody held them"
    for host in (one, two):
        assert host.place.exists()
        host.run()
    for host in (one, two):
        until(host.serves, "it does not serve")
        assert alive(host, theirs) == 0
    cluster.await_whole()
    assert [alive(host, theirs) for host in cluster] == [0] * 4
    assert [alive(host, others) for host in cluster] == [len(others)] * 4


def test_an_owner_stands_still(cluster: Cluster) -> None:
    """For longer than the two seconds for which it may not know: the cookies replayed there the moment it goes on open nothing,
    nor anywhere else."""
    paused, other, third, _ = cluster
    theirs = sessions_on([paused, other], {"n1", "n2"}, USER)
    stopped = paused.pause()
    assert end_all(third) == len(theirs)
    assert [alive(host, theirs) for host in (other, third)] == [0, 0]
    time.sleep(PAUSE_S)
    assert {state_of(pid) for pid in stopped} == {"T"}
    paused.resume()
    assert alive(paused, theirs) == 0
    cluster.await_whole()
    assert [alive(host, theirs) for host in cluster] == [0] * 4
