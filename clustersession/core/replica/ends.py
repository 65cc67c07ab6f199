"""How a record comes to its end: by a logout, as nobody uses it any more, or to make room; and how long a tombstone is kept."""

from __future__ import annotations

from math import inf
from typing import Final

from ..absorb import owners_but
from ..calls import Conflict, Done, End, EndHeld, Expire, Found, InUse, Later, NotMine
from ..record import (
    EXPIRED,
    LOGOUT,
    ROTATED,
    SOMEBODY,
    Ending,
    Record,
    ended,
    expired,
    expires_at,
    is_live,
    is_over,
    without_grace,
)
from .decision import Decision, Situation, gone
from .writes import TOUCH_STEP_S

TOMBSTONE_KEPT_S: Final = 25 * 3600.0  # longer than any node may be away with its files (24 h)
BACKUP_EXPIRY_SLACK_S: Final = 300.0  # the master sees to it that a session expires; the backup if the master does not
ASKED_AGAIN_S: Final = 60.0  # after an other owner that gave no answer about a session that seems to have expired
ALONE_AFTER_S: Final = 24 * 3600.0  # a node that was away for so long discards its files: nobody can know better then


def on_end(record: Record | None, call: End, at: Situation) -> Decision:
    if call.version is not None and record is None:
        return Decision(NotMine())
    # an older version is fine: what is on its way here is in the record that was frozen
    newer = record is not None and (record.epoch != call.epoch or record.version > (call.version or 0))
    if call.version is not None and record is not None and newer:
        return Decision(Conflict(record.epoch, record.owners))
    if record is not None and record.ended is not None:
        if call.version is not None:
            return Decision(gone(record, record.ended, at))
        if call.reason == LOGOUT and record.ended.reason == ROTATED:
            return Decision(gone(record, record.ended, at))  # the session lives on under another ID, which this must not hide
        held = EndHeld(record.epoch, record.owners)
        if is_over(record) or call.grace is not None:
            return Decision(held)
        return Decision(held, True, without_grace(record), hint=owners_but(record.owners, at.me))
    graced = call.grace is not None and record is not None and is_live(record)
    ending = Ending(call.reason, at.now, at.now + call.grace if graced and call.grace is not None else None)
    whose = None if call.anonymous else SOMEBODY
    known = record or Record(call.epoch, 0, call.owners, created=at.now, last_seen=at.now, principal=whose)
    return Decision(EndHeld(known.epoch, known.owners), True, ended(known, ending), hint=owners_but(known.owners, at.me))


def on_expire(record: Record | None, call: Expire, at: Situation) -> Decision:
    """The other owner has seen nobody use it: nor has this one, or it says when."""
    if record is not None and record.ended is not None:
        return Decision(gone(record, record.ended, at))
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
            return Decision(Done(), True, without_grace(record))
        return Decision(Done(), at.now >= record.ended.at + TOMBSTONE_KEPT_S)
    if record.pointer:
        return Decision(Done(), at.now >= record.last_seen + TOMBSTONE_KEPT_S)
    word = expired(record, at.now, _slack(record, at))
    alone = record.owners[1] is None or expired(record, at.now, slack=ALONE_AFTER_S) is not None
    if word is None or not alone:
        asked = Done() if word is None else Found(record, serving=False, expired=word)
        return Decision(asked, True, record)  # written again under the time when it is due next
    return Decision(Done(), True, ended(record, Ending(word, at.now)), hint=owners_but(record.owners, at.me))


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
    """Who goes first when the store is full, of what is certainly no user's: the ways to sessions that are elsewhere, and ends
    that time would bring again; sessions that never came back, and other ends, which so push nobody else out; then the other
    sessions. At last the ways to sessions of which nobody here knows whose they are. A last copy is never only a way."""
    if record.pointer and record.items:
        return None
    if record.pointer and record.principal in (None, SOMEBODY):
        return (0 if record.principal is None else 3, record.last_seen)
    if record.principal is not None:
        return None
    if record.ended is not None:
        return (0 if record.ended.reason.startswith(EXPIRED) else 1, record.ended.at)
    came_back = record.last_seen > record.created + TOUCH_STEP_S
    return (2, record.last_seen) if came_back else (1, record.created)


def _slack(record: Record, at: Situation) -> float:
    return 0.0 if record.master == at.me else BACKUP_EXPIRY_SLACK_S
