"""Save: a patch is numbered by the master and held by both owners before the response starts (design.md 7)."""

from __future__ import annotations

from typing import Final

from .. import calls
from ..effects import Ask, Operation, Tell, Wait
from ..placement import choose_backup
from ..record import Key, Lifetime, Owners, Patch, Record, patched
from ..resolving import with_results
from .moving import completed, moved, taught
from .outcome import (
    Cluster,
    Conflicting,
    CreateOutcome,
    Ended,
    Mistyped,
    Placement,
    Refused,
    Rejected,
    Saved,
    SaveOutcome,
    Unavailable,
)

TRIES_MAX: Final = 5
ROTATING_WAIT_S: Final = 0.02
ROTATING_TRIES_MAX: Final = 12
AGAIN_WAIT_S: Final = 0.05
NOT_ASKED: Final = frozenset({"departed", "unknown", "breaker", "busy"})  # what others did that gave no answer nobody knows
AGAIN_MAX: Final = 2  # where neither owner could go on at this moment; the budget of the request ends it sooner


def save(cluster: Cluster, key: Key, placement: Placement, patch: Patch) -> Operation[SaveOutcome]:
    """Write `patch`, wherever the session has moved meanwhile. Repeating it with the same patch id changes nothing.

    Where a master has numbered it, or was asked and fell silent, what it holds may come back in a merge: then nobody else can
    refuse it for certain, and it is `Unavailable`.
    """
    waits = again = 0
    left_behind = False
    why = "the owners kept changing"
    for _ in range(TRIES_MAX + ROTATING_TRIES_MAX):
        master, backup = placement.owners
        reply = yield from _ask(cluster, master, calls.Apply(key, placement.epoch, patch))
        match reply:
            case calls.Applied():
                left_behind = True
                change, why = with_results(patch, reply.results), "no second node took the write"
                step = yield from _delivered(cluster, key, Placement(reply.epoch, reply.owners), change, reply)
            case calls.Conflict():
                if Placement(reply.epoch, reply.owners) == placement:
                    return Unavailable(f"{master} refuses its own placement")
                step = Placement(reply.epoch, reply.owners)
            case calls.Gone() | calls.TooLarge() | calls.Differs() | calls.Unsuitable() | calls.Full():
                return refused(master, reply, certain=not left_behind or not (patch.changes or patch.edits))
            case calls.Found():
                why = f"{master}: the owners are changing"
                step = _followed((yield from completed(cluster, key, reply.record)))
            case calls.Rotating():
                waits += 1
                if waits > ROTATING_TRIES_MAX:
                    return Unavailable(f"{master}: being rotated")
                yield Wait(ROTATING_WAIT_S)
                continue
            case _:
                left_behind = left_behind or (isinstance(reply, calls.Unreachable) and reply.why not in NOT_ASKED)
                why = f"{master}: {_word(reply)}" + (f", and {backup} could not take over" if backup else "")
                step = (yield from _taken_over(cluster, key, placement.epoch, backup, master)) if backup else None
        if step is None:
            again += 1
            if again > AGAIN_MAX:
                break
            yield Wait(AGAIN_WAIT_S)
        elif isinstance(step, Placement):
            placement = step
        else:
            return step
    return Unavailable(why)


def refused(
    master: str, reply: calls.Gone | calls.TooLarge | calls.Differs | calls.Unsuitable | calls.Full, *, certain: bool = True
) -> Ended | Rejected | Refused | Unavailable:
    """What the master's refusal of a patch comes to; nobody else is asked then. `certain`: no master before may have it."""
    if isinstance(reply, calls.Gone):
        return Ended(reply.reason)
    if not certain:
        return Unavailable(f"{master} refuses the write now ({_word(reply)}), and a master before it may have kept it")
    match reply:
        case calls.TooLarge():
            return Rejected(reply.what, reply.size, reply.limit)
        case calls.Full():
            return Unavailable(f"{master}: its store is full")
    return unsuited(reply)


def unsuited(reply: calls.Differs | calls.Unsuitable) -> Refused:
    if isinstance(reply, calls.Differs):
        return Conflicting(reply.key)
    return Mistyped(reply.operation, reply.key, reply.found)


def _ask(cluster: Cluster, node: str, call: calls.Call) -> Operation[calls.Reply]:
    reply: calls.Reply = (yield Ask(node, call)) if cluster.view.worth_asking(node) else calls.Unreachable("departed")
    return reply


def _word(reply: calls.Reply) -> str:
    return reply.why if isinstance(reply, calls.Unreachable) else type(reply).__name__.lower()


def _taken_over(cluster: Cluster, key: Key, epoch: int, survivor: str, lost: str | None) -> Operation[Placement | Ended | None]:
    return _followed((yield from moved(cluster, key, epoch, survivor, lost)))


def _followed(result: tuple[Placement, Record | None] | calls.Gone | None) -> Placement | Ended | None:
    match result:
        case calls.Gone():
            return Ended(result.reason)
        case None:
            return None
    placement, record = result
    return Ended(record.ended.reason) if record is not None and record.ended is not None else placement


def _delivered(
    cluster: Cluster, key: Key, placement: Placement, patch: Patch, applied: calls.Applied
) -> Operation[SaveOutcome | Placement | None]:
    """Bring the numbered patch to the backup. A `Placement` says: the owners changed, begin again there; None: it could not
    be done now."""
    master, backup = placement.owners
    if backup is None:
        if choose_backup(cluster.view, key, without=(master,), near=(master,)) is None:
            if cluster.min_copies > 1:
                return Unavailable("no second node can take a copy")
            return Saved(placement, applied.version, copies=1)
        step = yield from _taken_over(cluster, key, placement.epoch, master, None)
        if isinstance(step, Placement) and step.owners == (master, None):
            return Saved(step, applied.version, copies=1)  # it was tried: nobody else can take a copy
        return step
    answered, reply = yield from _delivery(cluster, key, placement, patch, applied)
    match reply:
        case calls.Held():
            yield Tell(master, calls.Settle(key, placement.epoch, placement.owners, applied.version))
            return Saved(placement, applied.version, copies=2)
        case calls.Gone():
            if answered == backup:
                yield from _spread_end(key, master, backup, reply)
            return Ended(reply.reason)
        case calls.Conflict():
            if answered == backup:
                yield from taught(key, master, backup)
            return Placement(reply.epoch, reply.owners)
    # the patch is numbered, so its id keeps it from being counted twice, whoever of the two goes on
    survivor, lost = (master, backup) if answered == backup else (backup, master)
    return (yield from _taken_over(cluster, key, placement.epoch, survivor, lost))


def _delivery(
    cluster: Cluster, key: Key, placement: Placement, patch: Patch, applied: calls.Applied
) -> Operation[tuple[str, calls.Reply]]:
    """The reply that decides, and whose it is: where the backup needs the whole record, the master may be gone by then."""
    master, backup = placement.owners
    assert backup is not None
    if not applied.repeat:
        numbered = calls.Deliver(key, placement.epoch, applied.version, placement.owners, patch)
        reply: calls.Reply = yield from _ask(cluster, backup, numbered)
        if not isinstance(reply, calls.Gap):
            return backup, reply
    copy: calls.Reply = yield Ask(master, calls.Export(key))
    if not isinstance(copy, calls.Exported) or copy.record is None:
        return master, copy
    record = copy.record
    if record.ended is not None:
        return master, calls.Gone(record.ended.reason, 0.0, record.epoch, record.owners)
    if (record.epoch, record.owners) != placement:
        return master, calls.Conflict(record.epoch, record.owners)
    return backup, (yield from _ask(cluster, backup, calls.Put(key, record)))


def _spread_end(key: Key, master: str, backup: str, gone: calls.Gone) -> Operation[None]:
    """The backup knows a tombstone that the master does not: tell it, or leave it a hint."""
    reply = yield Ask(master, calls.End(key, gone.reason, (master, backup)))
    if not isinstance(reply, calls.EndHeld):
        yield Ask(backup, calls.LeaveHint(key, master))


def new_record(
    cluster: Cluster, key: Key, *, now: float, patch: Patch, principal: str | None, auth_time: float | None, lifetime: Lifetime
) -> Record:
    """The first version of a session."""
    empty = Record(1, 0, new_owners(cluster, key), created=now, last_seen=now, lifetime=lifetime, base=1)
    return patched(empty, patch, 1).but(principal=principal, auth_time=auth_time)


def new_owners(cluster: Cluster, key: Key) -> Owners:
    """This host is the master of what begins here, or another one if this host is on its way out."""
    master = cluster.me
    if cluster.leaving:
        master = choose_backup(cluster.view, key, without=(cluster.me,), near=(cluster.me,)) or cluster.me
    return master, choose_backup(cluster.view, key, without={cluster.me, master}, near=(master,))


def create(cluster: Cluster, key: Key, record: Record) -> Operation[CreateOutcome]:
    """Store a new session here and on its backup, another backup if that one does not take it. Who else stores one under this key
    at the same time meets it at the master, and is refused there."""
    master, backup = record.owners
    reply = yield Ask(master, calls.Put(key, record))
    if not isinstance(reply, calls.Held):
        return Unavailable(f"{master}: {_word(reply)}")
    if backup is not None:
        reply = yield Ask(backup, calls.Put(key, record))
        if isinstance(reply, calls.Held):
            return Saved(Placement(record.epoch, record.owners), record.version, copies=2)
        if isinstance(reply, calls.Conflict):
            yield from _given_way(cluster, key, record, reply)
            return Unavailable(f"{backup}: holds what another has stored")
        step = yield from _taken_over(cluster, key, record.epoch, master, backup)
    else:
        step = Placement(record.epoch, record.owners)
    if isinstance(step, Placement) and (step.owners[1] is not None or cluster.min_copies < 2):
        return Saved(step, record.version, copies=2 if step.owners[1] else 1)
    return Unavailable(
        f"{backup} gave no answer, nor could another node take a copy" if step is None else "no second node can take a copy"
    )


def _given_way(cluster: Cluster, key: Key, record: Record, refused: calls.Conflict) -> Operation[None]:
    """The backup holds another's record, of which the master does not know any more. That one may have been acked."""
    master, backup = record.owners
    assert backup is not None
    if (refused.epoch, refused.owners) == (record.epoch, record.owners):  # as they are now nothing puts one above the other
        yield from moved(cluster, key, record.epoch, backup, master)
    yield from taught(key, master, backup)


def touch(cluster: Cluster, key: Key, placement: Placement) -> Operation[None]:
    """Tell both owners that the session was used. May be dropped; never creates."""
    for owner in placement.owners:
        if owner is not None and not cluster.view.departed(owner):
            yield Tell(owner, calls.Touch(key))
