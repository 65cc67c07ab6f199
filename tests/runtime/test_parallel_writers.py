"""Several writers of one session at the same time, on three hosts in one process: nothing acked is lost, counted twice or
overwritten."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import Any

import pytest

from clustersession.config import Timeouts
from clustersession.core.calls import Apply, Promote
from clustersession.errors import (
    ConflictingWrite,
    LateWrite,
    SessionTooLarge,
    SessionUnavailable,
    ValueTypeMismatch,
)
from clustersession.runtime.engine import Engine
from clustersession.testing.in_process import InProcessCluster
from tests.end_to_end.browser import Answer, Browser
from tests.end_to_end.interleaved import FAULTS, Planned, Race, finished, request, setting

ROUNDS = 6


def write(engine: Engine, change: Callable[[Any], object], cookie: str | None = None) -> str:
    """One request; the cookie the browser has then."""
    visit = engine.visit((cookie,) if cookie else (), blocking=True)
    change(visit.session)
    engine.blocking.run(visit.save(), visit.budget)
    cookies = visit.headers().cookies
    return cookies[0].partition(";")[0] if cookies else cookie or ""


def read(engine: Engine, cookie: str) -> dict[str, Any]:
    return dict(engine.visit((cookie,), blocking=True).session)


def all_kinds(writer: int, turn: int) -> Callable[[Any], None]:
    """Every way to write without overwriting each other."""

    def change(session: Any) -> None:
        session.incr("count")
        session.incr("sum", by=writer)
        session.append("log", [writer, turn])
        session.add("writers", writer)
        session.discard("left", f"{writer} {turn}")
        session[f"{writer} {turn}"] = turn

    return change


class Crowd:
    """Writers in threads, each on the hosts it is given in turn, all starting at once."""

    def __init__(self, cluster: InProcessCluster, cookie: str, hosts: str) -> None:
        self.cluster, self.cookie, self.hosts = cluster, cookie, hosts
        self.acked: list[tuple[int, int]] = []
        self.unknown: list[tuple[int, int]] = []

    def run(self, writers: int, meanwhile: Callable[[], None] | None = None) -> None:
        """`meanwhile` happens once, after a third of the requests."""
        start, once, third = Barrier(writers), Lock(), writers * ROUNDS // 3

        def work(writer: int) -> None:
            start.wait(10)
            for turn in range(ROUNDS):
                engine = self.cluster[self.hosts[(writer + turn) % len(self.hosts)]].engine
                try:
                    write(engine, all_kinds(writer, turn), self.cookie)
                    self.acked.append((writer, turn))
                except SessionUnavailable:
                    self.unknown.append((writer, turn))
                if meanwhile is not None and len(self.acked) >= third and once.acquire(blocking=False):
                    meanwhile()

        with ThreadPoolExecutor(writers) as pool:
            running = [pool.submit(work, writer) for writer in range(writers)]
            for each in running:
                each.result(30)


@pytest.mark.parametrize("writers", [2, 8, 32])
def test_parallel_writers_on_three_hosts_count_exactly(writers: int) -> None:
    """`incr` is exact, `append` complete, every element added and removed, no key of another writer lost."""
    cluster = InProcessCluster()
    everybody = [f"{writer} {turn}" for writer in range(writers) for turn in range(ROUNDS)]
    cookie = write(cluster["a"].engine, lambda session: session.update(left={*everybody, "stays"}))
    crowd = Crowd(cluster, cookie, "abc")
    crowd.run(writers)
    assert crowd.unknown == []
    for host in "abc":
        found = read(cluster[host].engine, cookie)
        assert found["count"] == writers * ROUNDS
        assert found["sum"] == sum(range(writers)) * ROUNDS
        assert sorted(found["log"]) == [[writer, turn] for writer in range(writers) for turn in range(ROUNDS)]
        assert found["writers"] == set(range(writers))
        assert found["left"] == {"stays"}
        assert set(everybody) <= found.keys()


@pytest.mark.parametrize("writers", [2, 8, 32])
@pytest.mark.parametrize("role", ["master", "backup"])
def test_with_one_owner_killed_they_still_count_exactly(writers: int, role: str) -> None:
    """Each acked request counts once, and one whose answer is unknown at most once."""
    crowd = killed_meanwhile(InProcessCluster(), writers, role)
    assert len(crowd.acked) >= writers * ROUNDS // 2


@pytest.mark.parametrize("seconds", [0.01, 0.03])
def test_with_hardly_any_time_for_a_request_they_still_count_exactly(seconds: float) -> None:
    """Most requests run out of it somewhere in the middle: that is no reason for a second master (finding of a busy machine)."""
    crowd = killed_meanwhile(InProcessCluster(timeouts=Timeouts(budget_s=seconds)), 32, "master")
    assert crowd.acked


def killed_meanwhile(cluster: InProcessCluster, writers: int, role: str) -> Crowd:
    """An owner is killed after a third of the requests; what is found afterwards is checked."""
    cookie = write(cluster["a"].engine, lambda session: session.incr("count", 0))
    placement = cluster["a"].engine.visit((cookie,), blocking=True).session.placement
    assert placement is not None
    victim = placement.master if role == "master" else placement.backup
    assert victim is not None
    hosts = "abc".replace(victim, "")
    crowd = Crowd(cluster, cookie, hosts)
    crowd.run(writers, lambda: cluster.down(victim))
    for host in hosts:
        visit = cluster[host].engine.visit((cookie,), blocking=True)
        found = dict(visit.session)
        assert visit.session.placement is not None
        assert visit.session.placement.epoch > 1, "nobody noticed that the owner was gone"
        logged = [(writer, turn) for writer, turn in found["log"]]
        assert len(logged) == len(set(logged)) == found["count"]
        assert set(crowd.acked) <= set(logged) <= {*crowd.acked, *crowd.unknown}
        assert found["sum"] == sum(writer for writer, _ in logged)
        assert {f"{writer} {turn}" for writer, turn in crowd.acked} <= found.keys()
    return crowd


def test_a_request_that_ran_out_of_time_leaves_the_session_where_it_is() -> None:
    """It did not hear the master, which is there and takes writes: were its own host to take over, both would count on."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, lambda session: session.incr("count", 0))
    placement = cluster["a"].engine.visit((cookie,), blocking=True).session.placement
    assert placement is not None
    backup = cluster[placement.backup or ""].engine
    late = backup.visit((cookie,), blocking=True)
    late.session.incr("count")
    late.budget.left = 0.0
    with pytest.raises(SessionUnavailable):
        backup.blocking.run(late.save(), late.budget)
    write(cluster[placement.master].engine, lambda session: session.incr("count"), cookie)
    for host in cluster:
        after = host.engine.visit((cookie,), blocking=True).session
        assert (after["count"], after.placement) == (1, placement)


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_interleaved_at_every_call_they_count_exactly(fault: str | None) -> None:
    """Chance decides who goes on at each call between hosts, and when the fault happens: 150 rounds from seeds."""
    promoted = 0
    for seed in range(150):
        rng = random.Random(seed)
        cluster, browser = InProcessCluster(), Browser()
        browser.take(finished(request(cluster[rng.choice("abc")].engine, [], setting(cart="apple"))))
        placement = cluster["a"].engine.visit(browser.cookies, blocking=True).session.placement
        assert placement is not None
        victim = rng.choice([placement.master, placement.backup]) or "a"

        def break_it(cluster: InProcessCluster = cluster, victim: str = victim) -> str:
            getattr(cluster, fault or "")(victim)
            return victim

        race = Race(cluster, browser, [Planned(rng.choice("abc"), all_kinds(n, 0)) for n in range(6)], rng)
        race.run(break_it if fault else None)
        promoted += any(isinstance(sent.call, Promote) for sent in cluster.sent)
        up = [name for name in "abc" if fault is None or name != victim]
        for name in up:
            found = read(cluster[name].engine, browser.cookies[0])
            assert judged(race.answers, found), (seed, name, found)
    assert bool(promoted) is (fault is not None)


def judged(answers: list[Answer | None], found: dict[str, Any]) -> bool:
    """Whether every acked request is in it, once, and no other than those without an answer."""
    acked = {writer for writer, answer in enumerate(answers) if answer is not None and answer.status == 200}
    logged = [writer for writer, _ in found.get("log", [])]
    once = len(logged) == len(set(logged)) == found.get("count", 0)
    return once and acked <= set(logged) and found.get("sum", 0) == sum(logged)


# --- compare-and-set -----------------------------------------------------------------------------------------------------


def test_of_parallel_buyers_of_the_last_item_one_gets_it() -> None:
    """Each expects the value it has read: one save is taken, all others are refused with nothing written."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, lambda session: session.update(stock=1))
    start = Barrier(12)

    def buy(number: int) -> str:
        def change(session: Any) -> None:
            assert session["stock"] == 1
            start.wait(10)
            session.expect("stock", 1)
            session.expect("buyer")
            session["stock"] = 0
            session["buyer"] = number
            session[f"bought {number}"] = True

        try:
            write(cluster["abc"[number % 3]].engine, change, cookie)
        except ConflictingWrite as error:
            return error.key
        return "bought"

    with ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(buy, range(12)))
    assert sorted(outcomes) == ["bought", *["stock"] * 11]
    winner = outcomes.index("bought")
    assert read(cluster["c"].engine, cookie) == {"stock": 0, "buyer": winner, f"bought {winner}": True}
    assert cluster.counted("conflicting_write") == 11


def test_a_conflict_is_a_late_write() -> None:
    """Whoever handles the one handles the other: a 409, to be repeated."""
    cluster = InProcessCluster()
    engine = cluster["a"].engine
    cookie = write(engine, lambda session: session.update(n=1))

    def change(session: Any) -> None:
        session.expect("n", 2)
        session["n"] = 3

    with pytest.raises(LateWrite, match=r"session\['n'\]"):
        write(cluster["b"].engine, change, cookie)
    assert read(engine, cookie) == {"n": 1}


def test_a_new_session_expects_too() -> None:
    """There is nothing under any key yet."""
    engine = InProcessCluster()["a"].engine

    def change(session: Any, *value: object) -> None:
        session.expect("n", *value)
        session["n"] = 3

    with pytest.raises(ConflictingWrite):
        write(engine, lambda session: change(session, 1))
    assert read(engine, write(engine, change)) == {"n": 3}


# --- with everything else a request may do ---------------------------------------------------------------------------------


def test_a_new_session_begins_with_what_its_operations_made() -> None:
    """Nobody else can have written to it."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, all_kinds(3, 0))
    assert read(cluster["b"].engine, cookie) == {
        "count": 1,
        "sum": 3,
        "log": [[3, 0]],
        "writers": {3},
        "left": set(),
        "3 0": 0,
    }


def test_a_login_takes_along_what_parallel_requests_have_counted() -> None:
    """The rotation carries the operations out on what it froze, not on what its request had read."""
    cluster = InProcessCluster()
    engine = cluster["a"].engine
    cookie = write(engine, lambda session: session.update(n=1))

    def login(session: Any) -> None:
        assert session.incr("n") == 2
        write(cluster["b"].engine, lambda other: other.incr("n", 10), cookie)
        session["_user_id"] = "7"

    new = write(engine, login, cookie)
    assert new != cookie
    assert read(cluster["c"].engine, new) == {"n": 12, "_user_id": "7"}


def test_what_another_request_made_of_another_type_is_refused_at_the_save() -> None:
    """The app gets the error with the type that the master holds, also at a login, and nothing of the request is saved."""
    cluster = InProcessCluster()
    engine = cluster["a"].engine
    for more in ({"k": 1}, {"_user_id": "7"}):
        cookie = write(engine, lambda session: session.update(n=1))

        def change(session: Any, cookie: str = cookie, more: Mapping[str, object] = more) -> None:
            session.incr("n")
            session.update(more)
            write(cluster["b"].engine, lambda other: other.update(n="text"), cookie)

        with pytest.raises(ValueTypeMismatch, match=r"incr\('n'\) .* of type str"):
            write(engine, change, cookie)
        assert read(engine, cookie) == {"n": "text"}
        write(engine, lambda session: session.update(after=1), cookie)
        assert read(cluster["c"].engine, cookie) == {"n": "text", "after": 1}


def test_what_others_made_too_large_is_refused_at_the_save() -> None:
    """Each append fits as far as its request knows, together they don't; the stored version is intact."""
    cluster = InProcessCluster()
    engine = cluster["a"].engine
    cookie = write(engine, lambda session: session.update(log=[]))

    def change(session: Any) -> None:
        session.append("log", "x" * 40_000)
        write(cluster["b"].engine, lambda other: other.append("log", "y" * 40_000), cookie)

    with pytest.raises(SessionTooLarge):
        write(engine, change, cookie)
    assert read(engine, cookie) == {"log": ["y" * 40_000]}


def test_only_the_operation_travels_to_the_master() -> None:
    """Not the list that it is about."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, lambda session: session.update(log=["x" * 1000]))
    cluster.sent.clear()
    write(cluster["c"].engine, lambda session: session.append("log", "y"), cookie)
    patches = [sent.call.patch for sent in cluster.sent if isinstance(sent.call, Apply)]
    assert [(patch.changes, len(patch.edits)) for patch in patches] == [({}, 1)] or patches == []
