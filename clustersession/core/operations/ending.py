"""End: a tombstone on both owners, wherever the session has moved, before the response starts (findings F2, F12)."""

from __future__ import annotations

from typing import Final

import msgspec

from .. import calls
from ..effects import Ask, AskAll, Operation, Tell
from ..placement import choose_backup
from ..record import Key, Record
from .moving import moved
from .outcome import Cluster, Ended, EndedBy, EndOutcome, Placement, Unavailable

TRIES_MAX: Final = 4


def end(
    cluster: Cluster, key: Key, placement: Placement, reason: str, grace: float | None = None, *, anonymous: bool = False
) -> Operation[EndOutcome]:
    """Acked when every owner of the highest epoch seen holds the tombstone: two nodes, or one if there is no other.
    `anonymous`: it is known to be no user's. Of a logout `Ended` says that the session has got another ID meanwhile."""
    walk, call = _Walk(placement), calls.End(key, reason, placement.owners, placement.epoch, grace, anonymous=anonymous)
    for _ in range(TRIES_MAX):
        yield from _tell_owners(cluster, walk, call)
        if walk.rotated is not None:
            return walk.rotated
        failed = [owner for owner in walk.owners() if owner not in walk.holders]
        if not failed and len(walk.owners()) == 1 and not walk.alone:
            yield from _second_holder(cluster, key, walk)
            continue
        if not failed:
            yield from _settled(key, walk)
            return EndedBy(len(walk.owners()))
        survivors = [owner for owner in walk.owners() if owner in walk.holders]
        if not survivors:
            yield from _left_everywhere(cluster, walk, call)
            return Unavailable(f"no owner of the session could be told to end it ({', '.join(failed)})")
        yield Ask(survivors[0], calls.LeaveHint(key, failed[0]))
        result = yield from moved(cluster, key, walk.placement.epoch, survivors[0], failed[0])
        if result is None:
            return Unavailable(f"{failed[0]} gave no answer and nobody else could hold the end")
        walk.moved(result, survivors[0])
    return Unavailable("the owners kept changing")


def end_unwritten(
    cluster: Cluster, key: Key, placement: Placement, version: int, reason: str, *, anonymous: bool = False
) -> Operation[EndOutcome | Ended | None]:
    """End it only if nothing was written since `version`, else None: the backup is closed first, as in a rotation, so that
    no write is acked that this would undo."""
    epoch, (master, backup) = placement
    reply = yield Ask(backup or master, calls.End(key, reason, placement.owners, epoch, None, version))
    match reply:
        case calls.EndHeld():
            return (yield from end(cluster, key, placement, reason, anonymous=anonymous))
        case calls.Gone():
            return Ended(reply.reason)
    return None


class _Walk:
    """Where the session is as far as known, and who holds the tombstone."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.holders: set[str] = set()
        self.rotated: Ended | None = None
        self.alone = False  # it was tried: nobody but the single owner can hold it

    def owners(self) -> list[str]:
        return [owner for owner in self.placement.owners if owner is not None]

    def follow(self, placement: Placement) -> None:
        if placement.epoch > self.placement.epoch:
            self.placement = placement

    def moved(self, result: tuple[Placement, Record | None] | calls.Gone, survivor: str) -> None:
        """The owners are others now; they hold the tombstone if it was `survivor`'s record that was moved."""
        match result:
            case calls.Gone():
                self.follow(Placement(result.epoch, result.owners))
                self.holders &= {survivor}
            case (Placement() as after, record):
                self.follow(after)
                self.alone = after.owners[1] is None
                if record is not None and record.ended is not None:
                    self.holders |= {owner for owner in after.owners if owner is not None}


def _tell_owners(cluster: Cluster, walk: _Walk, call: calls.End) -> Operation[None]:
    """Until nobody names owners of a higher epoch that were not told."""
    asked: set[str] = set()
    for _ in range(TRIES_MAX):
        todo = [o for o in walk.owners() if o not in walk.holders and o not in asked and cluster.view.worth_asking(o)]
        if not todo:
            return
        asked |= set(todo)
        call = msgspec.structs.replace(call, owners=walk.placement.owners, epoch=walk.placement.epoch)
        replies = yield AskAll(tuple(Ask(owner, call) for owner in todo))
        for owner, reply in zip(todo, replies, strict=True):
            if isinstance(reply, calls.Gone):
                walk.rotated = Ended(reply.reason, reply.ago)
            if isinstance(reply, calls.EndHeld):
                walk.holders.add(owner)
                walk.follow(Placement(reply.epoch, reply.owners))


def _second_holder(cluster: Cluster, key: Key, walk: _Walk) -> Operation[None]:
    """The end of a session with a single owner is brought to a second node, as a write to it would be: if that owner is lost
    with its files, an old copy of the session must not be all that is left."""
    walk.alone = True
    master = walk.placement.owners[0]
    if choose_backup(cluster.view, key, without=(master,), near=(master,)) is not None:
        result = yield from moved(cluster, key, walk.placement.epoch, master, None)
        if result is not None:
            walk.moved(result, master)


def _settled(key: Key, walk: _Walk) -> Operation[None]:
    """Both hold it: their hints for each other can go."""
    epoch, owners = walk.placement
    for owner in walk.owners():
        yield Tell(owner, calls.Settle(key, epoch, owners, 0))


def _left_everywhere(cluster: Cluster, walk: _Walk, call: calls.End) -> Operation[None]:
    """No owner reachable: the tombstone waits, as a hint for the owners, at every node that is."""
    epoch, owners = walk.placement
    nodes = [m.identity for m in cluster.view.members.values() if m.reachable and m.identity not in walk.owners()]
    if nodes:
        left = msgspec.structs.replace(call, owners=owners, epoch=epoch, grace=None)
        yield AskAll(tuple(Ask(node, left) for node in nodes))
