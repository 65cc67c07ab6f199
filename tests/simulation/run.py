"""One seed: a cluster, users, faults one after the other with recovery, and the checker's verdict."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from clustersession.config import Timeouts
from clustersession.core.calls import Call, Reply
from clustersession.testing.simulated import World

from .checker import Checker, Violation
from .copies import files_lost, known_singles, unequal, unsettled
from .faults import AWAY, LOSING, ONE_AT_A_TIME, apart, duration, healthy, start_fault
from .operating import Operating
from .workload import IDLE_S, NUMBERS, WRITE_BELOW, Sleeper, Stranded, User

RECOVERY_MAX_S = 25.0
SKIPPED_S = 0.5


class Result(NamedTuple):
    """What one seed has shown."""

    seed: int
    violations: list[Violation]
    counts: Counter[str]


class Listener(NamedTuple):
    """Who is told, as it happens: what in words (with the time), and each call (from, to, what, the answer)."""

    words: Callable[[str], None]
    call: Callable[[World, str, str, Call, Reply], None] | None = None


def run_seed(
    seed: int,
    *,
    seconds: float = 60.0,
    users: int = 6,
    nodes: int | None = None,
    zones: int = 0,
    kinds: Sequence[str] = ONE_AT_A_TIME,
    idle_s: float = IDLE_S,
    faults: Collection[int] | None = None,
    timeouts: Timeouts | None = None,
    write_below: float | None = None,
    people: type[User] = Operating,
    sleepers: int = 0,
    settled: bool = True,
    listener: Listener | None = None,
    on_wire: bool = True,
) -> Result:
    """Run `seed`. The same seed gives the same result, to the last event. `faults`: only these strike, counted from 0.
    `write_below`: of which chance a click is a write, not a read. `sleepers`: so many more log in and do nothing then.
    `settled`: at the end all is looked through; a call that comes half a second late may leave a copy that nobody asks for."""
    with _without_collector():
        world = World(seed, nodes or 3 + seed % 3, timeouts=timeouts, on_wire=on_wire, zones=zones)
        _overheard(world, listener)
        run = _Run(world, users, idle_s, WRITE_BELOW if write_below is None else write_below, people, sleepers)
        number = 0
        while world.now < seconds:
            kind = world.random.choice(list(kinds))
            struck = faults is None or number in faults
            number += 1
            if not (run.strike(kind) if struck else run.passed()):
                break
        run.read_all()
        if settled:
            run.settle()
        return Result(seed, run.checker.violations, world.counts)


@contextmanager
def _without_collector() -> Iterator[None]:
    """A quarter of the time of a run would go into looking for cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _overheard(world: World, listener: Listener | None) -> None:
    if listener is None:
        return
    world.trace, told = listener.words, listener.call
    if told is not None:
        world.overheard = lambda source, target, call, reply: told(world, source, target, call, reply)


class _Run:
    """The users and the checker of one world."""

    def __init__(self, world: World, users: int, idle_s: float, write_below: float, people: type[User], sleepers: int) -> None:
        self.world, self.checker = world, Checker()
        world.run(1.0)
        self.people = [people(world, self.checker, number, idle_s, write_below) for number in range(users)]
        self.sleepers = [Sleeper(world, self.checker, users + number) for number in range(sleepers)]
        self.people += self.sleepers
        self._parted = 0
        world.run(3.0)

    def passed(self) -> bool:
        """The fault that is left out takes no time."""
        self.world.run(self.world.now + SKIPPED_S)
        return True

    def strike(self, kind: str) -> bool:
        """One fault, and the recovery from it. Whether the cluster has recovered."""
        world, began = self.world, self.world.now
        singles = known_singles(world, self.people) if kind == LOSING else {}
        stop = start_fault(world, kind)
        if kind == LOSING:
            lost = next(node.name for node in world.nodes.values() if not node.up)
            self.checker.violations += files_lost(world, self.people, singles, lost)
        stranded = self._part(apart(world))
        world.run(world.now + duration(world, kind))
        for user in stranded:
            user.stopped = True
        self.checker.parting.healed(world.now)
        stop()
        world.log("*** over")
        if not _recovered(world):
            self.checker.violations.append(Violation("no recovery", world.now, "-", f"after {kind}: {healthy(world)}"))
            return False
        if self.sleepers and not _passes(world, lambda: not any(True for _ in unequal(world, self.sleepers))):
            self.checker.violations += unequal(world, self.sleepers)
            return False
        if stranded and not _passes(world, lambda: all(node.duty.debt == 0 for node in world.nodes.values())):
            self.checker.violations.append(Violation("no recovery", world.now, "-", f"after {kind}: sessions lack a second copy"))
            return False
        self._unite()
        if kind in AWAY:
            self._old_cookies(began)
        world.run(world.now + world.random.uniform(0.2, 1.0))
        return True

    def _old_cookies(self, since: float) -> None:
        """Of what was ended while a host was away: everywhere."""
        for user in self.people:
            for cookie, story in user.old:
                if (story.end_started or 0.0) >= since:
                    for node in self.world.nodes.values():
                        user.read(node, cookie, story)

    def _part(self, hosts: frozenset[str]) -> list[Stranded]:
        """Some hosts reach no others: everybody goes on at the others, and there."""
        if not hosts:
            return []
        self._parted += 1
        self.checker.parting.parted(self.world.now)
        for user in self.people:
            user.avoids = hosts
        there, first = [node for node in self.world.nodes.values() if node.name in hosts], NUMBERS * self._parted
        return [user.stranded(there, first + user.number) for user in self.people if user.cookie is not None]

    def _unite(self) -> None:
        self.checker.parting.united(self.world.now)
        for user in self.people:
            user.avoids = frozenset()

    def read_all(self) -> None:
        """At the end, with everything healed: every session from every host, also those that were ended."""
        world = self.world
        for user in self.people:
            user.stopped = True
        world.run(world.now + 6.0)
        for user in self.people:
            for node in world.nodes.values():
                if user.cookie is not None and user.story is not None:
                    user.read(node, user.cookie, user.story)
                for cookie, story in user.old:
                    user.read(node, cookie, story)
        world.run(world.now + 3.0)

    def settle(self) -> None:
        """In the time that a recovery may take every session has two equal copies, and nobody owes anybody anything."""
        world, found = self.world, self.checker.violations
        if not found and not _passes(world, lambda: not any(True for _ in unsettled(world, self.people))):
            found += unsettled(world, self.people)


def _recovered(world: World) -> bool:
    world.run(world.now + 2.5)
    return _passes(world, lambda: healthy(world) is None)


def _passes(world: World, condition: Callable[[], bool]) -> bool:
    """Whether it comes true in the time that a recovery may take."""
    limit = world.now + RECOVERY_MAX_S
    while not condition() and world.now < limit:
        world.run(world.now + 0.25)
    return condition()
