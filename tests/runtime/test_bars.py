"""Bars on the board of a host: many of them, too many, and those of a process that died on the way."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from clustersession.core import calls
from clustersession.core.bars import Bar
from clustersession.core.keyring import KeyRing
from clustersession.core.sealing import Sealer
from clustersession.core.upkeep import barred
from clustersession.errors import SessionUnavailable, StoreFull
from clustersession.runtime import barred as rows
from clustersession.runtime.budget import Budget
from clustersession.runtime.engine import SystemEntropy
from clustersession.runtime.of_users import OfUsers
from clustersession.store.lmdb_store import LmdbStore
from clustersession.testing.in_process import SECRET, InProcessCluster
from tests.runtime.test_users import alive, login

MANY = 3000


@pytest.fixture
def cluster() -> InProcessCluster:
    return InProcessCluster()


def bars_of(cluster: InProcessCluster, count: int) -> list[Bar]:
    """Bars of so many users, as `end_all` makes them."""
    node = cluster["a"]
    now, chance = node.host.clock(), random.Random(1)
    return [Bar(chance.randbytes(8), node.host.bars.labels(str(user)), now) for user in range(count)]


def told(cluster: InProcessCluster, name: str, by: str) -> bool:
    node = cluster[name]
    return node.engine.blocking.run(barred(name, by, node.host.bars.tally()), Budget(30.0))


def test_a_host_that_missed_thousands_is_told_in_pages(cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No message holds all of them, and afterwards one more costs the bars of one bucket."""
    a, b = cluster["a"].host, cluster["b"].host
    for bar in bars_of(cluster, MANY):
        assert isinstance(a.handle(calls.Forbid(bar)), calls.Forbidden)
    pages: list[int] = []

    def page(self: rows.KnownBars, sums: bytes, first: int) -> tuple[tuple[Bar, ...], int | None]:
        found = answered(self, sums, first)
        pages.append(len(found[0]))
        return found

    answered = rows.KnownBars.page
    monkeypatch.setattr(rows.KnownBars, "page", page)
    assert told(cluster, "b", "a")
    assert a.bars.tally().digest() == b.bars.tally().digest() != b""
    assert (sum(pages), len(pages) > 4, max(pages) < 2 * rows.PAGE) == (MANY, True, True)

    pages.clear()
    a.handle(calls.Forbid(Bar(b"one more", a.bars.labels("7"), a.clock())))
    assert told(cluster, "b", "a")
    assert 1 <= sum(pages) < MANY / 50
    assert len(b.bars.all()) == MANY + 1


def test_a_process_that_died_while_it_carried_out_a_bar_is_given_it_again(
    cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had kept the bar, and not yet ended what it holds: nobody takes it for told."""
    cookie = login(cluster["a"].engine, "7")
    bar = Bar(b"the bar!", cluster["a"].host.bars.labels("7"), cluster["a"].host.clock())
    assert isinstance(cluster["a"].host.handle(calls.Forbid(bar)), calls.Forbidden)

    class Killed(Exception):
        pass

    def killed(*_: object, **__: object) -> bool:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(OfUsers, "_keys", killed)
        for name in ("b", "c"):
            with pytest.raises(Killed):
                cluster[name].host.handle(calls.Forbid(bar))
            assert [each.id for each in cluster[name].host.bars.all()] == [bar.id]
            assert bar.id not in cluster[name].host.bars.tally()
    assert told(cluster, "b", "a")
    assert told(cluster, "c", "b")
    assert len({node.host.bars.tally().digest() for node in cluster}) == 1
    assert alive(cluster, cookie) == [False]


def test_too_many_are_refused_and_none_is_forgotten(cluster: InProcessCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The board has room for the leases whatever users do: an order too many is unavailable, and says why."""
    a = cluster["a"]
    monkeypatch.setattr(rows, "STORE_BYTES_EACH", a.store.stats().bytes_max // 2)
    spared = login(a.engine, "3")
    for user in "12":
        a.engine.users.end_all(user)
    with pytest.raises(SessionUnavailable, match="no room"):
        a.engine.users.end_all("3")
    assert alive(cluster, spared) == [True]
    assert len(a.host.bars.all()) == 2


def test_the_board_has_room_for_all_that_are_taken(tmp_path: Path) -> None:
    """With the labels of two keys and a session spared, and for the member table of a large cluster beside them."""
    chance, store = random.Random(1), LmdbStore(tmp_path / "s", cluster="c", node="a", now=time.monotonic, bytes_max=16 * 2**20)
    sealer = Sealer(KeyRing.parse(f"{SECRET},2:{SECRET[:1:-1]}"), "c")
    known = rows.KnownBars(store, lambda: sealer, lambda: 100.0, SystemEntropy())

    def end_all(users: Iterable[int]) -> None:
        for user in users:
            bar = Bar(chance.randbytes(8), known.labels(str(user)), 50.0, (chance.randbytes(16),))
            known.keep(bar)
            known.carried_out(bar)

    with pytest.raises(StoreFull, match="25 h"):
        end_all(itertools.count())
    assert len(known.tally()) > 400
    for table in (chance.randbytes(64 * 1024) for _ in range(20)):
        store.set_board("members", table)
    store.close()


def test_what_another_process_of_the_host_adds_is_seen(cluster: InProcessCluster) -> None:
    """A worker takes the order, the node tells of it."""
    node = cluster["a"]
    worker = rows.KnownBars(node.store, node.host._sealer, node.host.clock, node.host._entropy)
    before = node.host.bars.tally().digest()
    bar = bars_of(cluster, 1)[0]
    worker.keep(bar)
    assert node.host.bars.tally().digest() == before
    worker.carried_out(bar)
    assert bar.id in node.host.bars.tally()
    assert node.host.bars.tally().digest() == worker.tally().digest() != before
