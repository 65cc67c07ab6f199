"""Rotate: the old record is frozen, the new one created from exactly that, then the old one ended (design.md 7)."""

from __future__ import annotations

from typing import Final

from .. import calls
from ..bars import with_root
from ..effects import Ask, Operation, Tell, Wait
from ..graces import granted, with_graces
from ..record import ROTATED, Item, Key, Patch, Record, Stamp, patched
from ..resolving import resolved
from .ending import end
from .moving import completed, moved
from .outcome import (
    Cluster,
    Ended,
    EndedBy,
    EndOutcome,
    Placement,
    Rotated,
    RotateOutcome,
    Saved,
    Unavailable,
)
from .saving import ROTATING_TRIES_MAX, ROTATING_WAIT_S, create, new_owners, unsuited

FREEZE_S: Final = 1.0  # longer than the budget of a request: a rotation is over, or given up, before patches are taken again
THAW_S: Final = 0.0
CLOSED_TRIES_MAX: Final = 4


def rotate(
    cluster: Cluster,
    key: Key,
    placement: Placement,
    new_key: Key,
    patch: Patch,
    *,
    now: float,
    principal: str | None,
    auth_time: float | None,
    grace: float | None,
) -> Operation[RotateOutcome]:
    """A new session under `new_key` with what the old one holds and `patch`; the old ID is dead before this returns.
    `grace`: for so many seconds the old ID still shows what the old session held, and can change nothing. Where the user
    stays, the new session knows of it."""
    frozen = yield from _frozen(cluster, key, placement)
    if isinstance(frozen, Ended | Unavailable):
        return frozen
    change = resolved(frozen, patch, now)
    if not isinstance(change, Patch):
        yield Tell(frozen.master, calls.Freeze(key, frozen.epoch, THAW_S))
        return unsuited(change)
    grace, extra = granted(frozen, now, grace), with_root(key, frozen, principal)
    if principal == frozen.principal:
        extra = with_graces(extra, key, frozen, now, grace)
    record = _successor(cluster, new_key, frozen.but(extra=extra), change, now)
    record = record.but(principal=principal, auth_time=auth_time)
    saved = yield from create(cluster, new_key, record)
    if isinstance(saved, Unavailable):
        yield Tell(frozen.master, calls.Freeze(key, frozen.epoch, THAW_S))
        return saved
    closed = yield from _closed(cluster, key, frozen, grace)
    ended: EndOutcome | Ended
    if isinstance(closed, Record):
        owners, nobodys = Placement(closed.epoch, closed.owners), frozen.principal is None
        ended = yield from end(cluster, key, owners, ROTATED, grace, anonymous=nobodys)
        if isinstance(ended, EndedBy):
            return Rotated(saved, record)
    else:
        ended = closed
    yield from _withdrawn(new_key, saved)
    return ended


def _closed(cluster: Cluster, key: Key, frozen: Record, grace: float | None) -> Operation[Record | Ended | Unavailable]:
    """End the backup's copy first, and only if it is still what was frozen: this host may have been paused meanwhile, and
    who could not see the freeze may have acked a write. With the backup closed nothing more can be acked. A backup
    that gives no answer is replaced first; the record with the owners then."""
    for _ in range(CLOSED_TRIES_MAX):
        master, backup = frozen.owners
        call = calls.End(key, ROTATED, frozen.owners, frozen.epoch, grace, frozen.version)
        reply = yield Ask(backup or master, call)
        match reply:
            case calls.EndHeld():
                return frozen
            case calls.Gone():
                return Ended(reply.reason)
            case calls.Conflict():
                again = yield from _frozen(cluster, key, Placement(reply.epoch, reply.owners))
                if isinstance(again, Record) and (again.version, again.items) == (frozen.version, frozen.items):
                    frozen = again  # only moved meanwhile, as by a drain
                    continue
                break
        result = (yield from moved(cluster, key, frozen.epoch, master, backup)) if backup else None
        match result:
            case (_, Record() as after) if after.version == frozen.version and after.ended is None:
                frozen = after
            case _:
                break
    return Unavailable("the session was written to, or moved, during its rotation")


def _frozen(cluster: Cluster, key: Key, placement: Placement) -> Operation[Record | Ended | Unavailable]:
    """The record of the master that takes no more patches."""
    why = "the owners kept changing"
    for _ in range(ROTATING_TRIES_MAX):
        master, backup = placement.owners
        there = cluster.view.worth_asking(master)
        call = calls.Freeze(key, placement.epoch, FREEZE_S)
        reply: calls.Reply = (yield Ask(master, call)) if there else calls.Unreachable("departed")
        match reply:
            case calls.Frozen():
                return reply.record
            case calls.Gone():
                return Ended(reply.reason)
            case calls.Conflict():
                placement = Placement(reply.epoch, reply.owners)
            case calls.Rotating():
                yield Wait(ROTATING_WAIT_S)
            case calls.Found():
                yield from completed(cluster, key, reply.record)
            case _:
                why = f"{master} gave no answer"
                result = (yield from moved(cluster, key, placement.epoch, backup, master)) if backup else None
                if result is None:
                    return Unavailable(why)
                if isinstance(result, calls.Gone):
                    return Ended(result.reason)
                placement = result[0]
    return Unavailable(why)


def _successor(cluster: Cluster, key: Key, old: Record, patch: Patch, now: float) -> Record:
    """Ages and limits are carried over, never extended; the history begins anew, as that of a new session."""
    owners = new_owners(cluster, key)
    stamp = Stamp(1, 1, owners[0])
    items: dict[str, Item] = {name: (stamp, value) for name, (_, value) in old.items.items() if value is not None}
    fresh = Record(
        1, 0, owners, items, base=1, created=old.created, last_seen=now, lifetime=old.lifetime, extra=old.extra, locks=old.locks
    )
    return patched(fresh, patch, 1)


def _withdrawn(new_key: Key, saved: Saved) -> Operation[None]:
    """The old session could not be ended, so the new one must not be found either: nobody has its ID."""
    for owner in saved.placement.owners:
        if owner is not None:
            yield Tell(owner, calls.End(new_key, "withdrawn", saved.placement.owners))
