"""A canary at a node: it is held as a session is, and changes nothing for any other."""

from __future__ import annotations

from clustersession.core import calls
from clustersession.core.canary import new_canary
from clustersession.core.node import Member
from clustersession.core.record import Record
from clustersession.runtime.keeper import Keeper

from ..core.records import KEY, member, record
from .hosts import TIMEOUTS, Fixture

ME, B = member("a"), member("b")
SONG = new_canary(("a", "b"), b"12345678", now=1000.0)


class Node:
    """Host a, which knows b and many others, of which it has to do with a few."""

    def __init__(self) -> None:
        self.fixture = Fixture()
        self.keeper = Keeper(self.fixture.host, ME, TIMEOUTS)
        for number in range(60):
            self.keeper.introduce(Member(f"n{number}", "10.0.0.9", 10060, 1))

    def take(self, held: Record) -> calls.Reply:
        return self.keeper.on_call(calls.Put(KEY, held), "b")

    def watches(self, identity: str) -> bool:
        self.keeper.tick()
        return identity in self.keeper.table.watched


def far(node: Node) -> str:
    """Somebody whom this host has nothing to do with."""
    return next(f"n{number}" for number in range(60) if not node.watches(f"n{number}"))


def test_its_owners_are_not_watched_for_it() -> None:
    """A session of the same owners is a reason to."""
    node = Node()
    other = far(node)
    assert node.take(new_canary((other, "a"), b"12345678", now=1000.0)) == calls.Held(1)
    assert not node.watches(other)
    node.keeper.on_call(calls.Forget(KEY), "b")
    node.take(record(owners=(other, "a")))
    assert node.watches(other)


def test_its_end_leaves_no_hint_and_it_is_gone_when_told() -> None:
    """A heartbeat would bring the end back to where it was dropped. The end of a session does leave one."""
    node = Node()
    store = node.fixture.store
    node.take(SONG)
    end = calls.End(KEY, "canary", SONG.owners, SONG.epoch)
    assert node.keeper.on_call(end, "b") == calls.EndHeld(SONG.epoch, SONG.owners)
    assert (store.stats().entries, store.hint_count("b")) == (1, 0)
    assert node.keeper.on_call(calls.Forget(KEY), "b") == calls.Done()
    assert store.stats().entries == 0
    node.take(record(owners=("a", "b")))
    node.keeper.on_call(end, "b")
    assert store.hint_count("b") == 1


def test_a_session_is_not_dropped_by_any_peer() -> None:
    """Only what is known as a canary is."""
    node = Node()
    node.take(record(owners=("a", "b")))
    assert node.keeper.on_call(calls.Forget(KEY), "b") == calls.NotMine()
    assert node.fixture.store.stats().entries == 1
