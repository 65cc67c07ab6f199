"""A host stands still for five seconds with its connections open: what happens meanwhile counts, and it learns of it first."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from itertools import chain
from typing import Final

import pytest

from tests.end_to_end.cluster import Cluster
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import state_of

from .calling import Caller, in_parallel
from .crowd import User, at_once, lost, owned

PAUSE_S: Final = 5.0
EACH: Final = 24  # sessions of a kind
BUSY: Final = 3.0  # times as slow may a loaded test machine be from one second to the next


@pytest.fixture
def cluster(new_cluster: NewCluster) -> Iterator[Cluster]:
    made = new_cluster(3).start()
    yield made
    assert made.complaints() == []


def test_what_was_ended_while_a_host_stood_still_is_dead_there_when_it_goes_on(cluster: Cluster) -> None:
    """Logouts and writes go on without it. The old cookies, replayed there the moment it goes on, are dead, what was written is
    there, and nothing is lost."""
    paused, other, third = cluster
    ended, written, idle = (owned([paused, other], {"n1", "n2"}, EACH, kind) for kind in ("ended", "written", "idle"))
    stolen = [user.browser.copy().cookies for user in ended]
    before = [user.browser.copy().cookies for user in written]
    stopped = paused.pause()
    began = time.monotonic()
    assert [answer.status for answer in at_once(ended, third, "/end")] == [200] * EACH
    assert [answer.status for answer in at_once(written, third, "/set", cart="pear")] == [200] * EACH
    assert lost(idle, [other, third]) == []
    print(f"{3 * EACH} sessions of a host that stands still: {time.monotonic() - began:.1f} s for {EACH} at once of each kind")
    time.sleep(max(0.0, PAUSE_S - (time.monotonic() - began)))
    assert {state_of(pid) for pid in stopped} == {"T"}

    paused.resume()
    replayed = in_parallel(lambda caller, cookies: caller.look(paused.app, "/look", cookies), stolen, threads=12)
    assert [answer.items for answer in replayed] == [{}] * EACH
    fresh = in_parallel(lambda caller, cookies: caller.look(paused.app, "/look", cookies), before, threads=12)
    assert [answer.items["cart"] for answer in fresh] == ["pear"] * EACH
    assert lost(idle, [paused]) == []
    cluster.await_whole()
    for host in cluster:
        again = in_parallel(lambda caller, cookies, at=host.app: caller.look(at, "/look", cookies), stolen)  # type: ignore[misc]
        assert [answer.items for answer in again] == [{}] * EACH


def test_sessions_of_others_don_t_notice(cluster: Cluster) -> None:
    """While one host stands still, requests for sessions that it does not own take as long as before."""
    paused, other, third = cluster
    healthy, struck = (owned([other, third], by, 8, kind) for by, kind in (({"n2", "n3"}, "h"), ({"n1", "n2"}, "s")))

    def clicks(caller: Caller, user: User) -> list[float]:
        answers = [caller.get(other.app, "/set", user.browser, count=str(number)) for number in range(25)]
        assert {answer.status for answer in answers} == {200}
        return [answer.seconds for answer in answers]

    quiet = sorted(chain(*in_parallel(clicks, healthy, threads=2)))
    stopped = paused.pause()
    slow = at_once(struck, third, "/look")
    found = sorted(chain(*in_parallel(clicks, healthy, threads=2)))
    assert {state_of(pid) for pid in stopped} == {"T"}
    paused.resume()
    for name, times in (("before", quiet), ("while it stands still", found)):
        print(f"{name}: median {statistics.median(times) * 1e3:.1f} ms, p99 {times[len(times) * 99 // 100] * 1e3:.1f} ms")
    print(f"its own sessions: at most {max(answer.seconds for answer in slow) * 1e3:.0f} ms")
    assert {answer.status for answer in slow} == {200}
    assert statistics.median(found) < BUSY * statistics.median(quiet)
