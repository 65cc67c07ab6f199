"""Repair and drain in virtual time: sessions that nobody uses are as safe as those that are used."""

from __future__ import annotations

import pytest

from clustersession.core.calls import Promote
from clustersession.core.operations import Cluster, Loaded, LoadOutcome, Saved, Target, create, load, new_record
from clustersession.core.record import Key, Lifetime, Patch, Record, live_items
from clustersession.core.repair import SINGLE
from clustersession.runtime.duty import ROUND_EVERY_S
from clustersession.testing.simulated import SimulatedNode, World

from .run import run_seed

COPIES = 2


class Idle:
    """Sessions without traffic: where they were made, and what they hold."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.owners: dict[Key, tuple[str, str | None]] = {}
        for number in range(count):
            self._make(number)
        world.run(world.now + 2.0)
        assert len(self.owners) == count

    def _make(self, number: int) -> None:
        node = list(self.world.nodes.values())[number % len(self.world.nodes)]
        key, cluster = self.world.random.randbytes(16), _cluster(node)
        patch = Patch(self.world.random.randbytes(8), {"number": b"%d" % number})
        who = "u" if number % 2 else None
        record = new_record(cluster, key, now=node.clock(), patch=patch, principal=who, auth_time=None, lifetime=Lifetime())

        def stored(outcome: object) -> None:
            assert isinstance(outcome, Saved)
            assert outcome.copies == COPIES
            self.owners[key] = outcome.placement.owners

        node.run(create(cluster, key, record), stored)

    def copies(self, key: Key) -> list[str]:
        """The nodes that are up and hold the session as its owners."""
        found = []
        for name, node in self.world.nodes.items():
            record = node.host.record(key) if node.up else None
            if record is not None and not record.pointer and name in record.owners:
                found.append(name)
        return found

    def short(self) -> int:
        """Sessions with fewer than two copies."""
        return sum(len(self.copies(key)) < COPIES for key in self.owners)

    def await_safe(self, within: float) -> float:
        """Seconds until every session has two copies."""
        began = self.world.now
        while self.short():
            assert self.world.now - began < within, f"{self.short()} sessions are short of copies after {within} s"
            self.world.run(self.world.now + 0.1)
        return self.world.now - began

    def lost(self) -> int:
        """Sessions that their old IDs do not open any more, at any node."""
        values: dict[tuple[Key, str], dict[str, bytes]] = {}
        for key, (master, backup) in self.owners.items():
            for name, node in self.world.nodes.items():
                if node.up:
                    target = Target(key, master, backup, backup is None, (1, 1), 60.0)
                    node.run(load(_cluster(node), target), _into(values, (key, name)))
        self.world.run(self.world.now + 3.0)
        up = [name for name, node in self.world.nodes.items() if node.up]
        return sum(any("number" not in values.get((key, name), {}) for name in up) for key in self.owners)

    def make_single(self, key: Key) -> None:
        """As a coordinator does it that has not heard yet that others are there again."""
        master, backup = self.owners[key]
        other = self.world.nodes[backup or ""].host
        record = other.record(key)
        assert record is not None
        self.world.nodes[master].host.handle(Promote(key, record.epoch, (master, None), backup))


def _into(values: dict[tuple[Key, str], dict[str, bytes]], place: tuple[Key, str]):  # type: ignore[no-untyped-def]
    def loaded(outcome: LoadOutcome) -> None:
        if isinstance(outcome, Loaded):
            values[place] = live_items(outcome.record)

    return loaded


def _cluster(node: SimulatedNode) -> Cluster:
    return Cluster(node.keeper.view())


def _records(node: SimulatedNode) -> list[Record]:
    return [record for _, record in node.host.survey(None, 100_000) if record is not None]


def test_what_became_single_after_the_last_look_is_found_at_once() -> None:
    """A coordinator with an older view of the members may do so at any time: nobody waits for the round of every minute."""
    world = World(1, 3)
    world.run(70.0)
    sessions = Idle(world, 30)
    world.run(world.now + 5.0)
    single = list(sessions.owners)[:9]
    for key in single:
        sessions.make_single(key)
    world.run(world.now + 2.0)
    for key in single:
        records = [world.nodes[name].host.record(key) for name in sessions.copies(key)]
        assert [each is not None and each.owners[1] is not None and each.epoch for each in records] == [3, 3]
    assert not any(node.store.hint_count(SINGLE) for node in world.nodes.values() if node.store is not None)
    assert sessions.lost() == 0


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_node_is_replaced_without_traffic(seed: int) -> None:
    """Each of its sessions has two copies again soon, so that a second kill loses nothing either."""
    world = World(seed, 4)
    world.run(5.0)
    sessions = Idle(world, 200)
    world.nodes["n1"].crash()
    assert sessions.short() > 50  # the fault has happened
    assert sessions.await_safe(15.0) > 0.5
    world.run(world.now + 5.0)
    world.nodes["n2"].crash()
    assert sessions.short() > 50
    sessions.await_safe(15.0)
    assert sessions.lost() == 0


def test_logged_in_sessions_come_first() -> None:
    """While repair is under way, those with a principal are safe before the others."""
    world = World(7, 3)
    world.run(5.0)
    sessions = Idle(world, 1000)
    world.nodes["n1"].crash()
    principals: dict[Key, bool] = {}
    for node in world.nodes.values():
        if node.up:
            principals |= {k: r.principal is not None for k, r in node.host.survey(None, 100_000) if r is not None}
    while (short := [key for key in sessions.owners if len(sessions.copies(key)) < COPIES]) and len(short) > 300:
        world.run(world.now + 0.002)
    waiting = [principals[key] for key in short]
    assert waiting
    assert sum(waiting) <= len(waiting) * 0.1


@pytest.mark.parametrize("seed", range(4))
def test_a_node_that_leaves_hands_over_everything(seed: int) -> None:
    """It owes nothing then, holds no copy, and may go for good with its files: nothing is lost."""
    world = World(seed, 3)
    world.run(5.0)
    sessions = Idle(world, 300)
    leaver = world.nodes["n0"]
    assert any("n0" in owners for owners in sessions.owners.values())
    leaver.leave()
    began = world.now
    while leaver.duty.progress.owed != 0:
        world.run(world.now + 0.1)
        assert world.now - began < 20.0
    assert all(record.pointer for record in _records(leaver))
    assert all("n0" not in sessions.copies(key) for key in sessions.owners)
    leaver.crash()
    assert sessions.short() == 0
    world.run(world.now + 5.0)
    assert sessions.lost() == 0


def test_half_of_ten_leave_in_the_same_second() -> None:
    """Also where both owners leave, the session goes to two that stay."""
    world = World(3, 10)
    world.run(5.0)
    sessions = Idle(world, 400)
    leavers = [world.nodes[f"n{number}"] for number in range(5)]
    both = [owners for owners in sessions.owners.values() if set(owners) <= {node.name for node in leavers}]
    assert len(both) > 20
    for node in leavers:
        node.leave()
    began = world.now
    while any(node.duty.progress.owed != 0 for node in leavers):
        world.run(world.now + 0.1)
        assert world.now - began < 30.0, [node.duty.progress.owed for node in leavers]
    for node in leavers:
        node.crash()
    assert sessions.short() == 0
    world.run(world.now + 5.0)
    assert sessions.lost() == 0


def test_a_node_that_is_killed_while_it_leaves_loses_nothing() -> None:
    """What it had not handed over yet is repaired by the other owners."""
    world = World(5, 4)
    world.run(5.0)
    sessions = Idle(world, 600)
    leaver = world.nodes["n0"]
    leaver.leave()
    while not leaver.duty.progress.moved:
        world.run(world.now + 0.002)
    assert leaver.duty.progress.owed
    leaver.crash()
    sessions.await_safe(15.0)
    assert sessions.lost() == 0


@pytest.mark.parametrize("seed", range(3))
def test_hosts_are_drained_under_traffic(seed: int) -> None:
    """One after the other leaves, ends and is back, on its files or without: no acked write is lost, no logout undone."""
    result = run_seed(seed, kinds=("drain", "drain and lose files"))
    assert not result.violations, result.violations
    assert result.counts["drained"] > 3


def test_the_two_copies_of_a_session_are_in_two_zones() -> None:
    """At first, and some time after a host was lost: so that a zone that fails takes no session with it. At once they may share
    one, as two owners that take each other for dead must choose the same host (decision 22)."""
    world = World(1, 6, zones=2)
    world.run(5.0)
    sessions = Idle(world, 100)
    assert _zones(sessions) == {2}
    world.nodes["n1"].crash()
    sessions.await_safe(15.0)
    assert _zones(sessions) == {1, 2}, "none has shared a zone, so nothing is shown"
    world.run(world.now + 2 * ROUND_EVERY_S)
    assert _zones(sessions) == {2}


def _zones(sessions: Idle) -> set[int]:
    """In how many zones the copies of one session are."""
    return {len({sessions.world.nodes[name].zone for name in sessions.copies(key)}) for key in sessions.owners}
