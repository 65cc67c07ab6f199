"""What becomes of a record that is written to: its master numbers patches, its backup takes them in that order."""

from __future__ import annotations

from typing import Final

from ..absorb import owners_but
from ..calls import (
    Applied,
    Apply,
    Conflict,
    Deliver,
    Differs,
    Done,
    Found,
    Freeze,
    Frozen,
    Gap,
    Gone,
    Held,
    Later,
    NotMine,
    Rotating,
    TooLarge,
    Touch,
)
from ..record import Patch, Record, accepted, expired, is_live, patched, size_of
from ..resolving import LOCK, overtaken, resolved, rest_of, results_in
from .decision import Decision, Situation, gone

TOUCH_STEP_S: Final = 1.0


def on_apply(record: Record | None, call: Apply, at: Situation) -> Decision:
    refused = _not_taking_writes(record, at)
    if refused is not None or record is None:
        return refused or Decision(Later())
    if record.pointer or call.epoch != record.epoch or record.master != at.me:
        return Decision(Conflict(record.epoch, record.owners))
    if not record.accepted:
        return Decision(Found(record, serving=False))
    patch = rest_of(record, call.patch)
    if patch is None:
        lost = overtaken(record, call.patch)
        return Decision(Differs(f"{LOCK}{lost}") if lost else Applied(record.epoch, record.version, record.owners, repeat=True))
    if record.frozen_until is not None and at.now < record.frozen_until:
        return Decision(Rotating())
    change = resolved(record, patch, at.now)
    if not isinstance(change, Patch):
        return Decision(change)
    thawed = record if record.frozen_until is None else record.but(frozen_until=None)
    written = patched(thawed, change, record.version + 1, at.now)
    size = size_of(written)
    if size > max(at.record_bytes_max, size_of(record)):  # what is too large already may shrink
        return Decision(TooLarge("the session", size, at.record_bytes_max))
    whole = patch is call.patch  # of the rest alone the backup could make nothing: it gets the record
    results = results_in(change, patch) if whole else None
    reply = Applied(written.epoch, written.version, written.owners, repeat=not whole, results=results)
    # the hint is the mark "unheld" (finding F8): in the same transaction as the number, gone when the backup has it
    return Decision(reply, True, written, hint=owners_but(written.owners, at.me))


def on_deliver(record: Record | None, call: Deliver, at: Situation) -> Decision:
    if record is None:
        return Decision(Gap(0))
    if record.ended is not None:
        return Decision(gone(record, record.ended, at))
    if record.epoch > call.epoch or (record.epoch == call.epoch and record.owners != call.owners):
        return Decision(Conflict(record.epoch, record.owners))
    if record.epoch < call.epoch or record.pointer:
        return Decision(Gap(0))
    if rest_of(record, call.patch) is None:
        return Decision(Held(record.version))
    if call.version != record.version + 1:
        return Decision(Gap(record.version))
    # the master numbers nothing while its change of owners is pending, so this one is settled
    held = accepted(patched(record, call.patch, call.version, at.now))
    return Decision(Held(call.version), True, held)


def on_freeze(record: Record | None, call: Freeze, at: Situation) -> Decision:
    refused = _not_taking_writes(record, at)
    if refused is not None or record is None:
        return refused or Decision(Later())
    if record.pointer or call.epoch != record.epoch or record.master != at.me:
        return Decision(Conflict(record.epoch, record.owners))
    if call.seconds > 0 and record.frozen_until is not None and at.now < record.frozen_until:
        return Decision(Rotating())
    if not record.accepted:
        return Decision(Found(record, serving=False))
    return Decision(Frozen(record), True, record.but(frozen_until=at.now + call.seconds))


def on_touch(record: Record | None, call: Touch, at: Situation) -> Decision:
    if record is None or not is_live(record) or _over(record, at) is not None:
        return Decision(NotMine())
    seen = at.now - call.age
    if seen < record.last_seen + TOUCH_STEP_S:
        return Decision(Done())
    return Decision(Done(), True, record.but(last_seen=seen))


def _not_taking_writes(record: Record | None, at: Situation) -> Decision | None:
    """Why a master's work cannot be done on this copy, if so."""
    if record is not None and record.ended is not None:
        return Decision(gone(record, record.ended, at))
    if not at.synced:
        return Decision(Later())
    if record is None:
        return Decision(NotMine())
    word = None if record.pointer else _over(record, at)
    return Decision(Gone(word, 0.0, record.epoch, record.owners)) if word else None


def _over(record: Record, at: Situation) -> str | None:
    """The limit by which an owner alone may refuse. Whether nobody uses a session any more is asked of both when it is
    loaded: one of them may have missed that somebody does."""
    word, deadline = expired(record, at.now), record.lifetime.deadline
    certain = record.owners[1] is None or (deadline is not None and at.now >= deadline)
    return word if certain else None
