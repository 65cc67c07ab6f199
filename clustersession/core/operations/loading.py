"""Load: from a verified ID to the session, or to the certainty that there is none (design.md 7)."""

from __future__ import annotations

from typing import Final

from .. import calls
from ..effects import Ask, AskAll, Hedge, Operation
from ..placement import live_order
from ..record import Record, accepted, floor_of
from .moving import completed, moved
from .outcome import Cluster, Ended, Loaded, LoadOutcome, Placement, Target, Unavailable
from .search import Search

HOPS_MAX: Final = 4  # the ID's owners, and three times where a pointer leads
SEARCHED_FIRST: Final = 3  # anti-entropy keeps pointers at the first of the key's order


def load(cluster: Cluster, target: Target) -> Operation[LoadOutcome]:
    """The session `target` names. No network if this host owns a copy it can vouch for."""
    search = Search(target, cluster.view)
    if cluster.me in (target.master, target.backup):
        reply = yield Ask(cluster.me, calls.Fetch(target.key, target.age))
        record = vouched(reply, target.floor)
        if record is not None:
            return Loaded(record)
        search.note(cluster.me, reply)
        if search.good(reply):
            return search.verdict() or Unavailable("no verdict")
    for _ in range(HOPS_MAX):
        yield from _ask_hedged(search)
        outcome = search.verdict() or (yield from _finished(cluster, search))
        if outcome is not None:
            return outcome
        if not search.unasked():
            break
    return (yield from _searched(cluster, search))


def vouched(reply: calls.Reply, floor: tuple[int, int]) -> Record | None:
    """The copy of an owner that may answer alone: it has what the ID has seen, and would have been told of more."""
    if isinstance(reply, calls.Found) and reply.serving and floor_of(reply.record) >= floor:
        return reply.record
    return None


def _ask_hedged(search: Search) -> Operation[None]:
    nodes = search.unasked()
    fetch = calls.Fetch(search.target.key, search.target.age)
    if len(nodes) == 1:
        search.note(nodes[0], (yield Ask(nodes[0], fetch)))
    elif nodes:
        search.note_all(nodes, (yield Hedge(tuple(Ask(node, fetch) for node in nodes), search.good)))


def _ask_all(search: Search, nodes: list[str]) -> Operation[None]:
    if nodes:
        fetch = calls.Fetch(search.target.key, search.target.age)
        search.note_all(nodes, (yield AskAll(tuple(Ask(node, fetch) for node in nodes))))


def _finished(cluster: Cluster, search: Search) -> Operation[LoadOutcome | None]:
    """Both owners hold the same history: deliver what one of them lacks, then it can be read (finding F8)."""
    record = search.agreed()
    if record is None:
        return None
    if search.settled(record):
        return Loaded(record)
    if search.holder(record) != record.master:  # the backup is ahead of what was read of the master a moment ago
        return None
    result = yield from completed(cluster, search.target.key, record, delivered=search.both_have(record.version))
    match result:
        case calls.Gone():
            return Ended(result.reason)
        case (Placement() as after, Record()) if after == (record.epoch, record.owners):
            return Loaded(accepted(record))
    return None


def _searched(cluster: Cluster, search: Search) -> Operation[LoadOutcome]:
    """The owners could not settle it: ask the first of the key's order, then everybody if an owner is gone for good."""
    order = live_order(cluster.view, search.target.key, without=search.answers)
    yield from _ask_all(search, order[:SEARCHED_FIRST])
    found = yield from _followed(cluster, search)
    if found is not None:
        return found
    if search.owner_departed() and order[SEARCHED_FIRST:]:
        yield from _ask_all(search, [node for node in order[SEARCHED_FIRST:] if node not in search.answers])
        found = yield from _followed(cluster, search)
        if found is not None:
            return found
    return (yield from _before_giving_up(cluster, search))


def _before_giving_up(cluster: Cluster, search: Search) -> Operation[LoadOutcome]:
    """An owner that has just come back, or this host has, is still dead in the table: it is asked before giving up."""
    dead = search.believed_dead()
    if dead:
        yield from _ask_all(search, dead)
        found = yield from _followed(cluster, search)
        if found is not None:
            return found
    return search.unfound()


def _followed(cluster: Cluster, search: Search) -> Operation[LoadOutcome | None]:
    """What the answers amount to now; where they name further owners, those are asked too."""
    yield from _ask_all(search, search.unasked())
    outcome = search.verdict() or (yield from _finished(cluster, search))
    if outcome is not None:
        return outcome
    if search.stale() is not None and not cluster.view.converged:
        # this host may have been cut off, and be back: who it takes for dead may know better
        yield from _ask_all(search, search.believed_dead())
        outcome = search.verdict() or (yield from _finished(cluster, search))
        if outcome is not None:
            return outcome
    record = search.stale()
    if record is None or search.others_silent(record):
        return None
    return (yield from _served_alone(cluster, search, record))


def _served_alone(cluster: Cluster, search: Search, record: Record) -> Operation[LoadOutcome | None]:
    """One owner has it and the other gives no answer: its synced copy is served. What may not be held by both, or has
    an owner that is gone for good, is moved first, so that a later failover cannot take back what was read."""
    survivor = search.holder(record)
    other = record.other(survivor)
    if other is None:
        return Loaded(record)
    if not search.needs_delivery(record) and not cluster.view.departed(other):
        return Loaded(record)
    result = yield from moved(cluster, search.target.key, record.epoch, survivor, other)
    match result:
        case calls.Gone():
            return Ended(result.reason)
        case (_, Record() as promoted):
            ending = promoted.ended
            return Ended(ending.reason) if ending else Loaded(accepted(promoted))
        case None if not search.needs_delivery(record):
            return Loaded(record)
    return None
