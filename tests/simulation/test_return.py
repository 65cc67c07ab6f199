"""A host comes back on old files to a cluster in which nobody is left that shared its sessions: what ended meanwhile stays so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clustersession.core.operations import Cluster, EndedBy, Loaded, Saved, Target, create, end, load, new_record
from clustersession.core.placement import live_order
from clustersession.core.record import Key, Lifetime, Patch
from clustersession.testing.simulated import World

BACK, LEAVING, NEXT = "n0", "n1", "n2"  # the one that is away, the other owner, and who takes over from the one that is away
SESSIONS = 20
FIRST = 3  # so many of a key's order are asked about it when both of its owners are gone


class Story:
    """Sessions of which `BACK` holds a copy in its files, that were logged out without it."""

    def __init__(self, hosts: int) -> None:
        self.world = World(1, hosts, on_wire=False)
        self.world.run(6.0)
        self.keys = list(self._owned_by_both())
        made = [self._run(BACK, self._created(key)) for key in self.keys]
        assert all(isinstance(each, Saved) and each.placement.owners == (BACK, LEAVING) for each in made)

    def _owned_by_both(self) -> Iterator[Key]:
        """Sessions that have the same owners after each step."""
        view, found = self.world.nodes[BACK].keeper.view(), 0
        while found < SESSIONS:
            key = self.world.random.randbytes(16)
            order = live_order(view, key, without=(BACK,))
            if order[:2] == [LEAVING, NEXT]:
                found += 1
                yield key

    def _run(self, name: str, operation: object) -> object:
        answers: list[object] = []
        self.world.nodes[name].run(operation, answers.append)  # type: ignore[arg-type]
        limit = self.world.now + 5.0
        while not answers and self.world.now < limit:
            self.world.run(self.world.now + 0.01)
        return answers[0]

    def _cluster(self, name: str) -> Cluster:
        return Cluster(self.world.nodes[name].keeper.view())

    def _created(self, key: Key):  # type: ignore[no-untyped-def]
        node = self.world.nodes[BACK]
        patch, cluster = Patch(self.world.random.randbytes(8), {"user": b"1"}), self._cluster(BACK)
        record = new_record(cluster, key, now=node.clock(), patch=patch, principal="u", auth_time=None, lifetime=Lifetime())
        return create(cluster, key, record)

    def log_out(self) -> None:
        for key in self.keys:
            loaded = self._run(LEAVING, load(self._cluster(LEAVING), self._cookie(key)))
            assert isinstance(loaded, Loaded)
            ended = self._run(LEAVING, end(self._cluster(LEAVING), key, loaded.placement, "logout"))
            assert ended == EndedBy(2)

    def _cookie(self, key: Key) -> Target:
        return Target(key, BACK, LEAVING, False, (1, 1), 60.0)

    def leave_for_good(self, name: str) -> None:
        """It hands over everything first, as it says itself."""
        node, world = self.world.nodes[name], self.world
        node.leave()
        limit = world.now + 20.0
        while node.duty.progress.owed != 0:
            assert world.now < limit
            world.run(world.now + 0.1)
        node.keeper.left()
        world.run(world.now + 1.0)
        world.remove(name)
        world.run(world.now + 4.0)

    def strangers(self) -> int:
        """Sessions of which no owner would be asked by a host that knows those two of before only."""
        hosts = [node for node in self.world.nodes.values() if node.name != BACK]
        view, count = hosts[0].keeper.view(), 0
        for key in self.keys:
            held = [record for node in hosts if (record := node.host.record(key)) is not None]
            owners = max(held, key=lambda record: record.epoch).owners
            count += not set(owners) & set(live_order(view, key, without=(BACK, LEAVING))[:FIRST])
        return count

    def alive(self) -> dict[str, int]:
        """At which hosts how many of the cookies open a session."""
        found = {}
        for name in self.world.nodes:
            answers = [self._run(name, load(self._cluster(name), self._cookie(key))) for key in self.keys]
            found[name] = sum(isinstance(answer, Loaded) for answer in answers)
        return {name: count for name, count in found.items() if count}


@pytest.mark.parametrize(("hosts", "leaving", "joining"), [(5, (LEAVING,), 6), (8, (LEAVING, NEXT), 4)], ids=["one", "two"])
def test_what_ended_while_a_host_was_away_stays_ended(hosts: int, leaving: tuple[str, ...], joining: int) -> None:
    """It was killed; users logged out at the other owner; that one, then who took over, handed over and left for good; new
    hosts came; and then it is back on its files."""
    story = Story(hosts)
    files = story.world.nodes[BACK].crash()
    story.world.run(story.world.now + 6.0)
    story.log_out()
    for name in leaving:
        story.leave_for_good(name)
    for number in range(joining):
        story.world.join(f"new{number}")
    story.world.run(story.world.now + 10.0)
    assert story.strangers() > 0
    story.world.nodes[BACK].start(files=files)
    story.world.run(story.world.now + 10.0)
    assert story.world.nodes[BACK].keeper.synced
    assert story.alive() == {}
