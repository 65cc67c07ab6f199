"""What a node does with a call: pure rules over the one record that the call is about (design.md 7).

`decide` runs inside a transaction of the store: what a rule wants written and whom it wants hinted happens at once or not
at all. A node answers from what it holds and calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Final, NamedTuple

import msgspec

from .absorb import absorb, owners_but
from .calls import (
    Absorb,
    Absorbed,
    Applied,
    Apply,
    Call,
    Conflict,
    Deliver,
    Done,
    End,
    EndHeld,
    Expire,
    Export,
    Exported,
    Fetch,
    Found,
    Freeze,
    Frozen,
    Gap,
    Gone,
    Held,
    InUse,
    Later,
    LeaveHint,
    Moved,
    NotMine,
    Promote,
    Promoted,
    Put,
    Reply,
    Rotating,
    Settle,
    TooLarge,
    Touch,
)
from .record import (
    Ending,
    Key,
    Patch,
    Record,
    accepted,
    digest,
    ended,
    expired,
    expires_at,
    is_live,
    patched,
    same_history,
    size_of,
)
from .resolving import resolved, results_in

TOMBSTONE_KEPT_S: Final = 25 * 3600.0  # longer than any node may be away with its files (24 h)
BACKUP_EXPIRY_SLACK_S: Final = 300.0  # the master sees to it that a session expires; the backup if the master does not
ASKED_AGAIN_S: Final = 60.0  # after an other owner that gave no answer about a session that seems to have expired
ALONE_AFTER_S: Final = 24 * 3600.0  # a node that was away for so long discards its files: nobody can know better then
TOUCH_STEP_S: Final = 1.0
NEVER: Final = float("-inf")


class Situation(msgspec.Struct, frozen=True):
    """The host at this moment."""

    me: str
    now: float
    synced_until: float  # a host that was away, or whose node does not tick, has not been told of everything
    leases: Mapping[str, float]  # until when each node would have told us of any change
    born: Callable[[], float]  # when the files were created
    record_bytes_max: int
    leaving: bool = False

    @property
    def synced(self) -> bool:
        return self.now < self.synced_until

    def leased(self, owner: str) -> bool:
        return self.leases.get(owner, 0.0) > self.now


class Decision(NamedTuple):
    """The answer, and what becomes of the record: `record` is written if `write` (None: dropped)."""

    reply: Reply
    write: bool = False
    record: Record | None = None
    hint: tuple[str, ...] = ()
    unhint: tuple[str, ...] = ()


def fetch(record: Record | None, call: Fetch, at: Situation, hinted: Callable[[str], bool]) -> Reply:
    """Read-only: what this node can say about the session, and whether it vouches for it."""
    if record is None:
        return NotMine() if at.synced or at.now - at.born() < call.age else Later()
    if record.ended is not None:
        return _gone(record, record.ended, at)
    if not at.synced:
        return Later()
    if record.pointer or at.me not in record.owners:
        return Moved(record.epoch, record.owners, bool(record.items))
    word, other = expired(record, at.now), record.other(at.me)
    if word is not None and other is None:
        return Gone(word, 0.0, record.epoch, record.owners)
    unheld = other is not None and hinted(other)
    serving = not unheld and at.now < vouched_until(record, at.me, at.synced_until, at.leases)
    return Found(record, serving, unheld, word)


def vouched_until(record: Record, me: str, synced_until: float, leases: Mapping[str, float]) -> float:
    """Until when `me` may serve its copy without asking anybody, if nothing is written or hinted meanwhile."""
    master, backup = record.owners
    if not record.accepted or record.pointer or record.ended is not None or me not in (master, backup):
        return NEVER
    other = backup if master == me else master
    leased_until = synced_until if other is None else leases.get(other, NEVER)
    return min(synced_until, leased_until, expires_at(record))


def _gone(record: Record, ending: Ending, at: Situation) -> Gone:
    in_grace = ending.grace_until is not None and at.now < ending.grace_until
    return Gone(ending.reason, at.now - ending.at, record.epoch, record.owners, record if in_grace else None)


def decide(record: Record | None, call: Call, at: Situation, source: str | None) -> Decision:
    """What becomes of `record` (as stored here) by `call` from node `source`."""
    match call:
        case Apply():
            return _apply(record, call, at)
        case Deliver():
            return _deliver(record, call, at)
        case Put():
            return _put(record, call, at)
        case Promote():
            return _promote(record, call, at)
        case Export() | LeaveHint():
            return Decision(Exported(record)) if isinstance(call, Export) else Decision(Done(), hint=(call.owner,))
        case Settle():
            return _settle(record, call, at)
        case Absorb():
            return _absorb(record, call, at, source)
        case End():
            return _end(record, call, at)
        case Freeze():
            return _freeze(record, call, at)
        case Touch():
            return _touch(record, call, at)
        case Expire():
            return _expire(record, call, at)
    raise TypeError(f"{type(call).__name__} is not a call about one record")


def _not_taking_writes(record: Record | None, at: Situation) -> Decision | None:
    """Why a master's work cannot be done on this copy, if so."""
    if record is not None and record.ended is not None:
        return Decision(_gone(record, record.ended, at))
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


def _apply(record: Record | None, call: Apply, at: Situation) -> Decision:
    refused = _not_taking_writes(record, at)
    if refused is not None or record is None:
        return refused or Decision(Later())
    if record.pointer or call.epoch != record.epoch or record.master != at.me:
        return Decision(Conflict(record.epoch, record.owners))
    if not record.accepted:
        return Decision(Found(record, serving=False))
    if call.patch.id in record.patches:
        return Decision(Applied(record.epoch, record.version, record.owners, repeat=True))
    if record.frozen_until is not None and at.now < record.frozen_until:
        return Decision(Rotating())
    change = resolved(record, call.patch, at.now)
    if not isinstance(change, Patch):
        return Decision(change)
    thawed = record if record.frozen_until is None else record.but(frozen_until=None)
    written = patched(thawed, change, record.version + 1, at.now)
    size = size_of(written)
    if size > max(at.record_bytes_max, size_of(record)):  # what is too large already may shrink
        return Decision(TooLarge("the session", size, at.record_bytes_max))
    reply = Applied(written.epoch, written.version, written.owners, results=results_in(change, call.patch))
    # the hint is the mark "unheld" (finding F8): in the same transaction as the number, gone when the backup has it
    return Decision(reply, True, written, hint=owners_but(written.owners, at.me))


def _deliver(record: Record | None, call: Deliver, at: Situation) -> Decision:
    if record is None:
        return Decision(Gap(0))
    if record.ended is not None:
        return Decision(_gone(record, record.ended, at))
    if record.epoch > call.epoch or (record.epoch == call.epoch and record.owners != call.owners):
        return Decision(Conflict(record.epoch, record.owners))
    if record.epoch < call.epoch or record.pointer:
        return Decision(Gap(0))
    if call.patch.id in record.patches:
        return Decision(Held(record.version))
    if call.version != record.version + 1:
        return Decision(Gap(record.version))
    # the master numbers nothing while its change of owners is pending, so this one is settled
    held = accepted(patched(record, call.patch, call.version, at.now))
    return Decision(Held(call.version), True, held)


def _put(record: Record | None, call: Put, at: Situation) -> Decision:
    new = call.record
    if at.leaving and new.master != at.me and (record is None or record.pointer):
        return Decision(Later())  # whoever asks has not heard yet that this node hands over what it has
    if record is not None and new.ended is None:
        if record.ended is not None:
            return Decision(_gone(record, record.ended, at))
        if record.epoch > new.epoch or (record.epoch == new.epoch and record.owners != new.owners):
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
    return Decision(Held(held.version), held != record, held, hint=result.hint)


def _dated(held: Record, before: Record | None, at: Situation) -> Record:
    """A pointer is kept for 25 h from when the copy was handed over, however long ago the session was used."""
    return held.but(last_seen=at.now) if held.pointer and held != before else held


def _promote(record: Record | None, call: Promote, at: Situation) -> Decision:
    if record is None or (not at.synced and record.ended is None):
        return Decision(Later())
    revived = call.revive and record.pointer and bool(record.items)  # finding F15
    if record.ended is None and not revived and (record.pointer or at.me not in record.owners):
        return Decision(Conflict(record.epoch, record.owners))
    if call.epoch != record.epoch:
        if record.ended is not None:
            return Decision(_gone(record, record.ended, at))
        return Decision(Conflict(record.epoch, record.owners))
    changed = record.but(
        epoch=record.epoch + 1,
        owners=call.owners,
        base=record.epoch if record.accepted else record.base,
        accepted=call.owners[1] is None,
        pointer=False,
        frozen_until=None,
    )
    # every owner of the old epoch, also one that never answered (F3), and the new one until it confirms
    told = {call.dead, *record.owners, *call.owners} - {None, at.me}
    return Decision(Promoted(changed), True, changed, hint=tuple(sorted(o for o in told if o is not None)))


def _settle(record: Record | None, call: Settle, at: Situation) -> Decision:
    if record is None:
        return Decision(NotMine())
    if record.pointer or (record.epoch, record.owners) != (call.epoch, call.owners):
        return Decision(Conflict(record.epoch, record.owners))
    # the settlement of a write says nothing about an end that came after it, nor about what a backup has merged
    written = record.master == at.me and record.version <= call.version
    held = call.version == 0 if record.ended is not None else written
    unhint = owners_but(record.owners, at.me) if held else ()
    return Decision(Done(), not record.accepted, accepted(record), unhint=unhint)


def _absorb(record: Record | None, call: Absorb, at: Situation, source: str | None) -> Decision:
    result = absorb(record, call.record, at.me, call.holder or source)
    held = result.record
    if held is None:
        return Decision(Absorbed(result.better), record is not None)
    reply = Absorbed(result.better, digest(call.key, held))
    return Decision(reply, held != record, _dated(held, record, at), hint=result.hint)


def _end(record: Record | None, call: End, at: Situation) -> Decision:
    if call.version is not None and record is None:
        return Decision(NotMine())
    # an older version is fine: what is on its way here is in the record that was frozen
    newer = record is not None and (record.epoch != call.epoch or record.version > (call.version or 0))
    if call.version is not None and record is not None and newer:
        return Decision(Conflict(record.epoch, record.owners))
    if record is not None and record.ended is not None:
        return Decision(EndHeld(record.epoch, record.owners) if call.version is None else _gone(record, record.ended, at))
    graced = call.grace is not None and record is not None and is_live(record)
    ending = Ending(call.reason, at.now, at.now + call.grace if graced and call.grace is not None else None)
    known = record or Record(call.epoch, 0, call.owners, created=at.now, last_seen=at.now)
    return Decision(EndHeld(known.epoch, known.owners), True, ended(known, ending), hint=owners_but(known.owners, at.me))


def _freeze(record: Record | None, call: Freeze, at: Situation) -> Decision:
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


def _touch(record: Record | None, call: Touch, at: Situation) -> Decision:
    if record is None or not is_live(record) or _over(record, at) is not None:
        return Decision(NotMine())
    seen = at.now - call.age
    if seen < record.last_seen + TOUCH_STEP_S:
        return Decision(Done())
    return Decision(Done(), True, record.but(last_seen=seen))


def _expire(record: Record | None, call: Expire, at: Situation) -> Decision:
    """The other owner has seen nobody use it: nor has this one, or it says when."""
    if record is not None and record.ended is not None:
        return Decision(_gone(record, record.ended, at))
    if not at.synced:
        return Decision(Later())
    if record is None:
        return Decision(NotMine())
    if record.pointer or (record.epoch, record.owners) != (call.epoch, call.owners):
        return Decision(Conflict(record.epoch, record.owners))
    word = expired(record, at.now)
    if word is None:
        return Decision(InUse(at.now - record.last_seen))
    tombstone = ended(record, Ending(word, at.now))
    return Decision(EndHeld(record.epoch, record.owners), True, tombstone, hint=owners_but(record.owners, at.me))


def sweep(record: Record | None, at: Situation) -> Decision:
    """What is due: an expired session is to be ended with its other owner (`Found` says so), an old tombstone or pointer goes."""
    if record is None or not at.synced:
        return Decision(Done())  # a host that was away must not end what went on elsewhere
    if record.ended is not None:
        if record.ended.grace_until is not None and at.now >= record.ended.grace_until:
            return Decision(Done(), True, ended(record, Ending(record.ended.reason, record.ended.at)))
        return Decision(Done(), at.now >= record.ended.at + TOMBSTONE_KEPT_S)
    if record.pointer:
        return Decision(Done(), at.now >= record.last_seen + TOMBSTONE_KEPT_S)
    word = expired(record, at.now, _slack(record, at))
    alone = record.owners[1] is None or expired(record, at.now, slack=ALONE_AFTER_S) is not None
    if word is None or not alone:
        asked = Done() if word is None else Found(record, serving=False, expired=word)
        return Decision(asked, True, record)  # written again under the time when it is due next
    return Decision(Done(), True, ended(record, Ending(word, at.now)), hint=owners_but(record.owners, at.me))


def _slack(record: Record, at: Situation) -> float:
    return 0.0 if record.master == at.me else BACKUP_EXPIRY_SLACK_S


def due_at(record: Record, at: Situation) -> float:
    """When `sweep` should look at the record next; never before."""
    if record.ended is not None:
        grace = record.ended.grace_until
        return record.ended.at + TOMBSTONE_KEPT_S if grace is None else grace
    if record.pointer:
        return record.last_seen + TOMBSTONE_KEPT_S
    due = expires_at(record) + _slack(record, at)
    if due == inf:
        return at.now + TOMBSTONE_KEPT_S  # to be looked at now and then
    return due if due > at.now else at.now + ASKED_AGAIN_S


def eviction(record: Record) -> tuple[int, float] | None:
    """Who goes first when the store is full: anonymous ones that never came back, then other anonymous ones."""
    if not is_live(record) or record.principal is not None:
        return None
    came_back = record.last_seen > record.created + TOUCH_STEP_S
    return (1, record.last_seen) if came_back else (0, record.created)


def key_of(call: Call) -> Key:
    """The session a call is about; b"" for calls about many."""
    return getattr(call, "key", b"")
