"""What becomes of a record whose owners change: it is handed on, its survivor takes over, two histories of it meet."""

from __future__ import annotations

from ..absorb import absorb, owners_but
from ..calls import Absorb, Absorbed, Conflict, Done, Held, Later, NotMine, Promote, Promoted, Put, Settle
from ..record import Record, accepted, digest, made_by_another, same_history
from .decision import Decision, Situation, gone


def on_put(record: Record | None, call: Put, at: Situation) -> Decision:
    new = call.record
    if at.leaving and new.master != at.me and (record is None or record.pointer):
        return Decision(Later())  # whoever asks has not heard yet that this node hands over what it has
    if record is not None and new.ended is None:
        if record.ended is not None:
            return Decision(gone(record, record.ended, at))
        other_owners = record.epoch == new.epoch and record.owners != new.owners
        if record.epoch > new.epoch or other_owners or made_by_another(new, record):
            return Decision(Conflict(record.epoch, record.owners))
        # based on an epoch older than mine, and not by one of its owners: a history that lost (finding F4)
        if record.epoch > new.base and not same_history(record, new):
            if new.master not in record.owners:
                return Decision(Conflict(record.epoch, record.owners))
            new = new.but(base=max(new.base, record.epoch if record.accepted else record.base))  # pending is no base
    result = absorb(record, new, at.me)
    held = result.record
    if held is None:
        return Decision(NotMine())
    if held.pointer:
        return Decision(Conflict(held.epoch, held.owners), held != record, _dated(held, record, at), hint=result.hint)
    return Decision(Held(held.version), held != record, held, hint=(*result.hint, *_passed_on(held, record, at)))


def on_promote(record: Record | None, call: Promote, at: Situation, source: str | None) -> Decision:
    if record is None or (not at.synced and record.ended is None):
        return Decision(Later())
    revived = call.revive and record.pointer and bool(record.items)  # finding F15
    if record.ended is None and not revived and (record.pointer or at.me not in record.owners):
        return Decision(Conflict(record.epoch, record.owners))
    if call.epoch != record.epoch:
        if record.ended is not None:
            return Decision(gone(record, record.ended, at))
        return Decision(Conflict(record.epoch, record.owners))
    # every owner of the old epoch, also one that never answered (F3), and the new one until it confirms
    told = {node for node in (call.dead, *record.owners, *call.owners) if node is not None} - {at.me}
    former = told.union(at.hinted(call.key)) - {at.me, source, *call.owners}  # who asks for this knows of it
    changed = record.but(
        epoch=record.epoch + 1,
        owners=call.owners,
        base=record.epoch if record.accepted else record.base,
        accepted=call.owners[1] is None,
        pointer=False,
        frozen_until=None,
        former=tuple(sorted(former)),
    )
    return Decision(Promoted(changed), True, changed, hint=tuple(sorted(told)))


def on_settle(record: Record | None, call: Settle, at: Situation) -> Decision:
    if record is None:
        return Decision(NotMine())
    if record.pointer or (record.epoch, record.owners) != (call.epoch, call.owners):
        return Decision(Conflict(record.epoch, record.owners))
    # the settlement of a write says nothing about an end that came after it, nor about what a backup has merged
    written = record.master == at.me and record.version <= call.version
    held = call.version == 0 if record.ended is not None else written
    unhint = owners_but(record.owners, at.me) if held else ()
    return Decision(Done(), not record.accepted, accepted(record), unhint=unhint)


def on_absorb(record: Record | None, call: Absorb, at: Situation, source: str | None) -> Decision:
    result = absorb(record, call.record, at.me, call.holder or source)
    held = result.record
    if held is None:
        return Decision(Absorbed(result.better), record is not None)
    reply = Absorbed(result.better, digest(call.key, held))
    hint = (*result.hint, *_passed_on(held, record, at))
    return Decision(reply, held != record, _dated(held, record, at), hint=hint)


def _passed_on(held: Record, before: Record | None, at: Situation) -> tuple[str, ...]:
    """Whom this host, now an owner, has to tell of what happened before."""
    if held.pointer or at.me not in held.owners or (before is not None and before.epoch >= held.epoch):
        return ()
    return tuple(node for node in held.former if node != at.me and node not in held.owners)


def _dated(held: Record, before: Record | None, at: Situation) -> Record:
    """A pointer is kept for 25 h from when the copy was handed over, however long ago the session was used."""
    return held.but(last_seen=at.now) if held.pointer and held != before else held
