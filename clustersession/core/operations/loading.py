"""Load: from a verified ID to the session, or to the certainty that there is none (design.md 7)."""

from __future__ import annotations

from typing import Final

from .. import calls
from ..effects import Ask, AskAll, Hedge, Operation, Wait
from ..placement import live_order
from ..record import Record, accepted, floor_of
from .moving import completed, moved
from .outcome import Cluster, Ended, Loaded, LoadOutcome, Lost, Placement, Target, Unavailable
from .search import Search

HOPS_MAX: Final = 4  # the ID's owners, and three times where a pointer leads
SEARCHES_MAX: Final = 3  # again where the session was moved by others during a walk, so that its answers don't fit together
OUTRUN_WAIT_S: Final = 0.01  # what another coordinator has begun is finished in a few calls
SEARCHED_FIRST: Final = 3  # of the key's order: hosts that come back leave pointers there


def load(cluster: Cluster, target: Target) -> Operation[LoadOutcome]:
    """The session `target` names. No network if this host owns a copy it can vouch for."""
    me, own = cluster.view.me, None
    if me in (target.master, target.backup):
        own = yield Ask(me, calls.Fetch(target.key, target.age))
        record = vouched(own, target.floor)
        if record is not None:
            return Loaded(record)
    search = Search(target, cluster.view)
    if own is not None:
        search.note(me, own)
    for _ in range(SEARCHES_MAX):
        outcome = yield from _walked(cluster, search)
        if not isinstance(outcome, Unavailable) or not search.outrun():
            return outcome
        yield Wait(OUTRUN_WAIT_S)
        search = search.anew()
    return outcome


def _walked(cluster: Cluster, search: Search) -> Operation[LoadOutcome]:
    """One walk along the owners that are named, then further."""
    outcome = search.verdict()
    if outcome is not None:
        return outcome
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
    over = search.expired(record)
    if over is not None or search.settled(record):
        return over or Loaded(record)
    if search.holder(record) != record.master:  # the backup is ahead of what was read of the master a moment ago
        return None
    result = yield from completed(cluster, search.target.key, record, delivered=search.both_have(record.version))
    return _read(search, result)


def _read(search: Search, result: tuple[Placement, Record | None] | calls.Gone | None) -> Loaded | Ended | None:
    """What can be read after the session was moved, or a write delivered."""
    match result:
        case calls.Gone():
            return Ended(result.reason)
        case (_, Record() as record):
            return Ended(record.ended.reason) if record.ended else Loaded(accepted(record))
        case (Placement() as after, None):
            search.note_moved(after)
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
    outcome = search.unfound()
    return (yield from _revived(cluster, search, outcome)) if isinstance(outcome, Lost) else outcome


def _revived(cluster: Cluster, search: Search, lost: Lost) -> Operation[LoadOutcome]:
    """An ex-owner keeps its last copy until two nodes hold what came after it: if those are gone, it is what is left."""
    retainer = search.retainer()
    if retainer is None:
        return lost
    node, epoch = retainer
    result = yield from moved(cluster, search.target.key, epoch, node, None, revive=True)
    return _read(search, result) or Unavailable(f"{node}: its last copy could not be revived")


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
    if search.overdue(record) is not None:
        return search.expired(record)
    survivor = search.holder(record)
    other = record.other(survivor)
    if other is None:
        return Loaded(record)
    if not search.needs_delivery(record) and not cluster.view.departed(other):
        return Loaded(record)
    if survivor == record.master and search.answered(other):
        result = yield from completed(cluster, search.target.key, record)
    else:
        result = yield from moved(cluster, search.target.key, record.epoch, survivor, other)
    if result is None and not search.needs_delivery(record):
        return Loaded(record)
    return _read(search, result)
