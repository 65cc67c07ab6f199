"""Change of owners: a surviving owner takes a new backup (design.md 7, findings F3, F4, F12)."""

from __future__ import annotations

from typing import Final

from .. import calls
from ..calls import Reply
from ..effects import Ask, Operation, Tell
from ..placement import choose_backup
from ..record import Key, Record
from .outcome import Cluster, Placement

TRIES_MAX: Final = 2


def moved(
    cluster: Cluster, key: Key, epoch: int, survivor: str, lost: str | None, *, revive: bool = False
) -> Operation[tuple[Placement, Record | None] | calls.Gone | None]:
    """Make `survivor` the master with a new backup. The placement there is then (with the record if this call made
    it), the tombstone if there is one, or None if it could not be done now. `revive`: it only retains its last copy.

    Both owners of a pair that cannot reach each other choose the same candidate, the first of the key's order, and it
    takes the record of one of them only: it arbitrates. So a candidate that gives no answer is not passed over, unless
    nobody else could own a copy.
    """
    owners = {survivor} if lost is None else {survivor, lost}
    tried = set(owners)
    for failed in range(TRIES_MAX if lost is not None else TRIES_MAX + 1):
        backup = choose_backup(cluster.view, key, without=tried, near=owners)
        if backup is None and (cluster.min_copies > 1 or (failed and lost is not None)):
            return None  # one copy only if nobody else could take a second one, and the policy has it
        reply = yield from _promote(cluster, survivor, calls.Promote(key, epoch, (survivor, backup), lost, revive))
        if not isinstance(reply, calls.Promoted):
            return _refused(reply)
        epoch, revive = reply.record.epoch, False
        if backup is None:
            return (Placement(epoch, (survivor, None)), reply.record)
        answer = yield Ask(backup, calls.Put(key, reply.record))
        if isinstance(answer, calls.Held):
            return (yield from _settled(key, reply.record, answer.version))
        if isinstance(answer, calls.Gone | calls.Conflict):
            return (yield from _lost_to(key, survivor, backup, answer))
        if lost is None:
            tried.add(backup)
    return None


def _promote(cluster: Cluster, survivor: str, call: calls.Promote) -> Operation[Reply]:
    reply: Reply = (yield Ask(survivor, call)) if cluster.view.worth_asking(survivor) else calls.Unreachable("departed")
    return reply


def _settled(key: Key, record: Record, version: int) -> Operation[tuple[Placement, Record | None] | calls.Gone | None]:
    """Both hold it. Accepted it is if the survivor has not moved on meanwhile; only then the backup is told."""
    survivor, backup = record.owners
    assert backup is not None
    answer = yield Ask(survivor, calls.Settle(key, record.epoch, record.owners, calls.NOTHING_HELD))
    match answer:
        case calls.Done():
            told = yield Ask(backup, calls.Settle(key, record.epoch, record.owners, version))
            if isinstance(told, calls.Done):
                yield Tell(survivor, calls.Settle(key, record.epoch, record.owners, version))
            return (Placement(record.epoch, record.owners), record)
        case calls.Conflict():
            return (Placement(answer.epoch, answer.owners), None)
    return None


def completed(
    cluster: Cluster, key: Key, record: Record, *, delivered: bool = False
) -> Operation[tuple[Placement, Record | None] | calls.Gone | None]:
    """Finish what another coordinator began: a change of owners, or a write, that is not known to be held by both."""
    survivor, backup = record.owners
    if backup is None:
        return (Placement(record.epoch, record.owners), record)
    version = record.version
    if not delivered:
        answer = yield Ask(backup, calls.Put(key, record))
        match answer:
            case calls.Held():
                version = answer.version
            case calls.Gone() | calls.Conflict():
                return (yield from _lost_to(key, survivor, backup, answer))
            case _:
                return (yield from moved(cluster, key, record.epoch, survivor, backup))
    return (yield from _settled(key, record, version))


def _refused(reply: Reply) -> tuple[Placement, Record | None] | calls.Gone | None:
    match reply:
        case calls.Conflict():
            return (Placement(reply.epoch, reply.owners), None)
        case calls.Gone():
            return reply
    return None


def _lost_to(
    key: Key, survivor: str, backup: str, answer: calls.Gone | calls.Conflict
) -> Operation[tuple[Placement, Record | None] | calls.Gone | None]:
    """The new backup knows better. The refused survivor takes the winner's record; a pending change is not rolled back."""
    yield from taught(key, survivor, backup)
    if isinstance(answer, calls.Gone):
        return answer
    return (Placement(answer.epoch, answer.owners), None)


def taught(key: Key, outranked: str, winner: str) -> Operation[None]:
    """Show what `winner` holds to the one it outranks."""
    reply = yield Ask(winner, calls.Export(key))
    if isinstance(reply, calls.Exported) and reply.record is not None:
        yield Ask(outranked, calls.Absorb(key, reply.record, winner))
