"""Which hosts hold the sessions of the users: what only a look into the hosts can tell."""

from __future__ import annotations

from collections.abc import Sequence

from clustersession.core.repair import mark, owes
from clustersession.testing.simulated import World

from .checker import Story, Violation
from .workload import Cookie, User


def known_singles(world: World, people: Sequence[User]) -> dict[bytes, str]:
    """Sessions that nobody but one host holds, as that host itself knows: no second owner, or one that is gone for good. They
    are what `debt` counts, and who loses that host loses them. By key, with the host."""
    known = {}
    for cookie, _ in in_use(people):
        for node in world.nodes.values():
            record = node.host.record(cookie.key) if node.up else None
            if record is not None and (mark(record, node.name) or owes(record, node.keeper.view(), leaving=False)):
                known[cookie.key] = node.name
    return known


def in_use(people: Sequence[User]) -> list[tuple[Cookie, Story]]:
    return [(user.cookie, user.story) for user in people if user.cookie is not None and user.story is not None]


def _is_held(world: World, key: bytes) -> bool:
    """Whether a host that is up holds it, live or ended."""
    found = [node.host.record(key) for node in world.nodes.values() if node.up]
    return any(record is not None and not record.pointer for record in found)


def files_lost(world: World, people: Sequence[User], singles: dict[bytes, str], lost: str) -> list[Violation]:
    """`lost` has just died with its files. What it alone held, as it knew (`singles`, by key), is excused; all else that is gone
    was acked by nobody else."""
    violations = []
    for cookie, story in in_use(people):
        if _is_held(world, cookie.key):
            continue
        if singles.get(cookie.key) == lost:
            story.excused = True
            world.counts["excused"] += 1
        else:
            detail = f"it was acked, and only {lost} held it, which did not know"
            violations.append(Violation("lost write", world.now, story.name, detail, cookie.key))
    return violations
