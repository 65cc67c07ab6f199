"""`session.lock`: one request at a time does what must not be done twice, on whatever host. A lease: nobody keeps it for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from clustersession.errors import LateWrite, LockLost, SessionLocked, SessionUnavailable
from clustersession.runtime.engine import Engine
from clustersession.runtime.pipeline import Visit
from clustersession.testing.in_process import InProcessCluster
from tests.runtime.test_pipeline import Clock, read, save, visit, write
from tests.runtime.test_users import login

LEASE_S = 10.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster(clock: Clock) -> InProcessCluster:
    return InProcessCluster(clock=clock)


def locking(engine: Engine, cookie: str, name: str = "pay") -> Visit:
    """A request that has the lock and goes on."""
    made = visit(engine, cookie)
    made.session.lock(name, lease_s=LEASE_S, wait_s=0)
    return made


def is_free(engine: Engine, cookie: str, name: str = "pay") -> bool:
    """Whether another request can have it; it gives it up at once."""
    try:
        made = locking(engine, cookie, name)
    except SessionLocked:
        return False
    save(engine, made)
    return True


def test_one_request_at_a_time_on_any_host(cluster: InProcessCluster) -> None:
    """Until the one that has it is saved; other locks of the session, and other sessions, are free."""
    a, b, c = cluster.engines()
    cookie, other = write(a, credit=1), write(a, credit=1)
    first = locking(b, cookie)
    assert [is_free(engine, cookie) for engine in (a, b, c)] == [False] * 3
    assert is_free(c, cookie, "another")
    assert is_free(c, other)
    first.session["credit"] = 0
    save(b, first)
    assert [is_free(engine, cookie) for engine in (a, b, c)] == [True] * 3
    assert read(c, cookie) == {"credit": 0}
    assert cluster.counted("session_locked") == 3


def test_the_session_shows_what_the_one_before_has_stored(cluster: InProcessCluster) -> None:
    """What was read before the lock is read anew; what this request has changed stays."""
    a, b, _ = cluster.engines()
    cookie = write(a, credit=1, cart=["apple"], theme="dark", gone=1, log=0)
    late = visit(b, cookie)
    assert (late.session["credit"], late.session["cart"], late.session["theme"]) == (1, ["apple"], "dark")
    late.session["theme"] = "light"
    late.session["cart"].append("pear")
    late.session.incr("log")
    write(a, cookie, credit=0, theme="blue", new=2, log=5)
    other = visit(a, cookie)
    del other.session["gone"]
    save(a, other)
    late.session.lock("pay")
    assert dict(late.session) == {"credit": 0, "cart": ["apple", "pear"], "theme": "light", "new": 2, "log": 1}
    save(b, late)
    assert read(a, cookie) == {"credit": 0, "cart": ["apple", "pear"], "theme": "light", "new": 2, "log": 6}


def test_a_request_that_changes_nothing_gives_it_up_too(cluster: InProcessCluster) -> None:
    """With the end of the request; also when the app has failed and what it changed is dropped."""
    a, b, _ = cluster.engines()
    cookie = write(a, credit=1)
    save(a, locking(a, cookie))
    assert is_free(b, cookie)
    failed = locking(a, cookie)
    failed.session["credit"] = 0
    assert failed.pending(write=False)
    a.blocking.run(failed.carry_out(), failed.budget)
    assert is_free(b, cookie)
    assert read(b, cookie) == {"credit": 1}


def test_a_lease_ends_and_the_late_one_saves_nothing(cluster: InProcessCluster, clock: Clock) -> None:
    """Who comes back after its lease, when another one has the lock or has had it, is refused: no two did it."""
    a, b, _ = cluster.engines()
    cookie = write(a, credit=1)
    for give_up in (False, True):
        late = locking(a, cookie)
        late.session["paid by"] = "a"
        clock.now += LEASE_S
        second = locking(b, cookie)
        if give_up:
            save(b, second)
        with pytest.raises(LockLost, match="'pay' ran out"):
            save(a, late)
        if not give_up:
            save(b, second)
    assert read(b, cookie) == {"credit": 1}


def test_a_lease_that_nobody_else_wanted_still_counts(cluster: InProcessCluster, clock: Clock) -> None:
    """Late, but nobody was in between: it is saved."""
    a = cluster["a"].engine
    cookie = write(a, credit=1)
    late = locking(a, cookie)
    late.session["credit"] = 0
    clock.now += LEASE_S + 1.0
    save(a, late)
    assert read(a, cookie) == {"credit": 0}


def test_it_survives_the_death_of_the_master(cluster: InProcessCluster) -> None:
    """The backup has it too, and so has the new one; the request under it saves by the survivor."""
    a, b, c = cluster.engines()
    cookie = write(a, credit=1)
    first = locking(a, cookie)
    where = first.session.placement
    assert where is not None
    cluster.dead(where.master)
    left = [engine for engine in (a, b, c) if engine.host.me != where.master]
    assert [is_free(engine, cookie) for engine in left] == [False, False]


def test_the_holder_saves_over_a_failover(cluster: InProcessCluster) -> None:
    """On a host that is no owner, with the master gone in between."""
    engines = {engine.host.me: engine for engine in cluster.engines()}
    cookie = write(engines["a"], credit=1)
    where = visit(engines["a"], cookie).session.placement
    assert where is not None
    [third] = engines.keys() - {where.master, where.backup}
    first = locking(engines[third], cookie)
    first.session["credit"] = 0
    cluster.dead(where.master)
    save(engines[third], first)
    assert where.backup is not None
    assert is_free(engines[where.backup], cookie)
    assert read(engines[where.backup], cookie) == {"credit": 0}


def test_a_login_under_a_lock(cluster: InProcessCluster) -> None:
    """The new ID has what was changed, and the lock is given up with it; other locks of the session go along."""
    a, b, _ = cluster.engines()
    cookie = write(a, cart=1)
    first, other = locking(a, cookie), locking(b, cookie, "other")
    first.session["_user_id"] = "7"
    save(a, first)
    new = first.headers().cookies[0].partition(";")[0]
    assert is_free(b, new)
    assert not is_free(b, new, "other")
    other.session["late"] = 1
    with pytest.raises(LateWrite):
        save(b, other)


def test_a_session_that_nobody_has_stored_is_one_s_own(cluster: InProcessCluster) -> None:
    """There is nobody to wait for, and nothing is stored or sent for the lock."""
    made = visit(cluster["a"].engine)
    with cluster.silence():
        made.session.lock("pay")
    assert cluster.entries() == 0


def test_taken_twice_in_one_request_is_taken_once(cluster: InProcessCluster) -> None:
    """As a page and a function that it calls may do; a second one of another name is held beside it."""
    a = cluster["a"].engine
    cookie = write(a, credit=1)
    first = locking(a, cookie)
    first.session.lock("pay", wait_s=0)
    first.session.lock("ship", wait_s=0)
    assert not is_free(a, cookie, "pay")
    assert not is_free(a, cookie, "ship")
    save(a, first)
    assert is_free(a, cookie, "pay")
    assert is_free(a, cookie, "ship")


def test_an_ended_session_cannot_be_locked(cluster: InProcessCluster) -> None:
    """A request that is late learns it at the lock, before it does what may be done once only."""
    a, b, _ = cluster.engines()
    cookie = login(a, "7")
    late = visit(b, cookie)
    assert late.session["_user_id"] == "7"
    a.users.end_all("7")
    with pytest.raises(LateWrite):
        late.session.lock("pay")


def test_without_owners_there_is_no_lock(cluster: InProcessCluster) -> None:
    """Unknown is not free."""
    a = cluster["a"].engine
    cookie = write(a, credit=1)
    late = visit(a, cookie)
    assert late.session["credit"] == 1
    cluster.paused("b", "c")
    with pytest.raises(SessionUnavailable):
        late.session.lock("pay", wait_s=0)


@pytest.mark.parametrize(
    "wrong", [{"name": ""}, {"name": "x" * 65}, {"lease_s": 0}, {"lease_s": 601}, {"lease_s": float("nan")}, {"wait_s": -1}]
)
def test_wrong_arguments(cluster: InProcessCluster, wrong: dict[str, Any]) -> None:
    """They are a mistake of the app, said at the call."""
    a = cluster["a"].engine
    with pytest.raises(ValueError, match="lock"):
        visit(a, write(a, credit=1)).session.lock(**wrong)


# --- waiting, with a real clock --------------------------------------------------------------------------------------------


def buying(engine: Engine, cookie: str, start: Barrier) -> Callable[[], None]:
    def buy() -> None:
        start.wait(10)
        made = visit(engine, cookie)
        made.session.lock("credit", wait_s=20)
        credit = made.session["credit"]
        made.session["credit"] = credit - 1
        save(engine, made)

    return buy


def test_twelve_buy_one_after_the_other() -> None:
    """Threads on three hosts read, then write: without the lock most would overwrite each other."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, credit=12)
    start = Barrier(12)
    with ThreadPoolExecutor(12) as pool:
        running = [pool.submit(buying(engine, cookie, start)) for engine in cluster.engines() * 4]
        for each in running:
            each.result(30)
    assert read(cluster["b"].engine, cookie) == {"credit": 0}


def test_awaited() -> None:
    """In async code a request that waits for a lock leaves the loop to the one that has it."""
    cluster = InProcessCluster()
    cookie = write(cluster["a"].engine, credit=5)

    async def buy(engine: Engine) -> None:
        made = engine.visit((cookie,), blocking=False)
        await engine.asynchronous.run(made.load(), made.budget)
        await made.session.alock("credit", wait_s=20)
        credit = made.session["credit"]
        await asyncio.sleep(0)
        made.session["credit"] = credit - 1
        await engine.asynchronous.run(made.save(), made.budget)

    async def all_buy() -> None:
        await asyncio.gather(*(buy(engine) for engine in (cluster.engines() * 2)[:5]))

    asyncio.run(all_buy())
    assert read(cluster["b"].engine, cookie) == {"credit": 0}
