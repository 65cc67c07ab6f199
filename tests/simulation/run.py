"""One seed: a cluster, users, faults one after the other with recovery, and the checker's verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clustersession.core.record import floor_of
from clustersession.testing.simulated import World

from .checker import Checker, Violation
from .faults import ONE_AT_A_TIME, duration, healthy, start_fault
from .workload import IDLE_S, User

RECOVERY_MAX_S = 25.0


class Result(NamedTuple):
    """What one seed has shown."""

    seed: int
    violations: list[Violation]
    counts: Counter[str]


def run_seed(
    seed: int,
    *,
    seconds: float = 60.0,
    users: int = 6,
    nodes: int | None = None,
    kinds: Sequence[str] = ONE_AT_A_TIME,
    idle_s: float = IDLE_S,
    trace: Callable[[str], None] | None = None,
) -> Result:
    """Run `seed`. The same seed gives the same result, to the last event."""
    world = World(seed, nodes or 3 + seed % 3)
    world.trace = trace
    checker = Checker()
    world.run(1.0)
    people = [User(world, checker, number, idle_s) for number in range(users)]
    world.run(3.0)
    while world.now < seconds:
        kind = world.random.choice(list(kinds))
        stop = start_fault(world, kind)
        if kind == "crash and lose files":
            _excuse(world, people)
        world.run(world.now + duration(world, kind))
        stop()
        world.log("*** over")
        if not _recovered(world):
            checker.violations.append(Violation("no recovery", world.now, "-", f"after {kind}: {healthy(world)}"))
            break
        world.run(world.now + world.random.uniform(0.2, 1.0))
    _read_all(world, people)
    return Result(seed, checker.violations, world.counts)


def _recovered(world: World) -> bool:
    limit = world.now + RECOVERY_MAX_S
    world.run(world.now + 2.5)
    while healthy(world) is not None and world.now < limit:
        world.run(world.now + 0.25)
    return healthy(world) is None


def _excuse(world: World, people: list[User]) -> None:
    """Sessions whose last acked state was only on the host that lost its files: there is no repair without traffic yet."""
    for user in people:
        if user.cookie is not None and user.story is not None and not _still_held(world, user):
            user.story.excused = True
            world.counts["excused"] += 1


def _still_held(world: World, user: User) -> bool:
    assert user.cookie is not None
    assert user.story is not None
    last = {key: writes[-1] for key, writes in user.story.acked.items()}
    for node in world.nodes.values():
        if not node.up:
            continue
        record = node.host.record(user.cookie.key)
        if record is None or record.pointer or floor_of(record) < user.cookie.floor:
            continue
        if all(record.items.get(key, (None, None))[1] is not None for key in last):
            return True
    return False


def _read_all(world: World, people: list[User]) -> None:
    """At the end, with everything healed: every session from every host, also those that were ended."""
    for user in people:
        user.stopped = True
    world.run(world.now + 6.0)
    for user in people:
        for node in world.nodes.values():
            if user.cookie is not None and user.story is not None:
                user.read(node, user.cookie, user.story)
            for cookie, story in user.old:
                user.read(node, cookie, story)
    world.run(world.now + 3.0)
