"""Which hosts hold the sessions of the users: what only a look into the hosts can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from clustersession.core.record import Record, digest, is_live, rank
from clustersession.core.repair import mark, owes
from clustersession.testing.simulated import SimulatedNode, World

from .checker import Story, Violation
from .workload import Cookie, User

COPIES: Final = "not two equal copies"
VOUCHED: Final = "served by who is no owner"
OWED: Final = "debt at the end"
HINTED: Final = "hints at the end"
EVERYTHING: Final = 1_000_000


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


def unsettled(world: World, people: Sequence[User]) -> Iterator[Violation]:
    """What ought not to be so when everything is healed and nobody asks for anything any more."""
    up = [node for node in world.nodes.values() if node.up]
    for node in up:
        if node.duty.debt != 0:
            yield Violation(OWED, world.now, "-", f"{node.name} owes {node.duty.debt}")
        hints = {other.name: node.host.store.hint_count(other.name) for other in up}
        if any(hints.values()):
            yield Violation(HINTED, world.now, "-", f"{node.name} has hints: {hints}")
    best = _best_of(up)
    yield from _unequal(world, people, best)
    for cookie in _given_out(people):
        record = best.get(cookie.key)
        owners = () if record is None or record.ended is not None else record.owners
        for node in up:
            if node.name not in owners and node.host.vouched(cookie.key, cookie.floor) is not None:
                yield Violation(VOUCHED, world.now, "-", f"{cookie.key!r} by {node.name}, its owners are {owners}", cookie.key)


def _given_out(people: Sequence[User]) -> Iterator[Cookie]:
    """Those that browsers have or had. A first copy that came too late for its own create is below what any of them has seen."""
    for user in people:
        if user.cookie is not None:
            yield user.cookie
        yield from (cookie for cookie, _ in user.old)


def unequal(world: World, people: Sequence[User]) -> Iterator[Violation]:
    """Sessions in use that have not two equal copies."""
    return _unequal(world, people, _best_of([node for node in world.nodes.values() if node.up]))


def _unequal(world: World, people: Sequence[User], best: dict[bytes, Record]) -> Iterator[Violation]:
    for cookie, story in in_use(people):
        record = best.get(cookie.key)
        if record is not None and is_live(record) and not story.excused:
            detail = _unlike(world, cookie.key, record)
            if detail:
                yield Violation(COPIES, world.now, story.name, detail, cookie.key)


def _best_of(up: Sequence[SimulatedNode]) -> dict[bytes, Record]:
    """Of each session a tombstone, or the copy that wins."""
    best: dict[bytes, Record] = {}
    for node in up:
        for key, record in node.host.survey(None, EVERYTHING):
            if record is not None and not record.pointer:
                known = best.get(key)
                if known is None or (record.ended is not None, rank(record)) > (known.ended is not None, rank(known)):
                    best[key] = record
    return best


def _unlike(world: World, key: bytes, best: Record) -> str:
    """How the owners' copies differ."""
    up = {node.name: node for node in world.nodes.values() if node.up}
    held = {owner: up[owner].host.record(key) if owner in up else None for owner in best.owners if owner is not None}
    digests = {record and digest(key, record) for record in held.values()}
    if len(held) == min(2, len(up)) and len(digests) == 1 and None not in digests:
        return ""
    return f"{best.owners} hold {list(digests)}"
