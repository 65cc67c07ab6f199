"""The stored session that one request works on: the operations on it, with refusals as exceptions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from ..core.counted import COUNTING_ID_BYTES, PATCH_ID_BYTES
from ..core.effects import Operation
from ..core.graces import graces_of
from ..core.operations import (
    Conflicting,
    Ended,
    EndedBy,
    EndOutcome,
    Mistyped,
    Placement,
    Rejected,
    Rotated,
    Saved,
    SaveOutcome,
    Unavailable,
    create,
    end,
    end_unwritten,
    new_record,
    rotate,
    save,
    touch,
)
from ..core.record import (
    LOGOUT,
    ROTATED,
    Key,
    Lifetime,
    Lock,
    Owners,
    Patch,
    Record,
    floor_of,
    touch_interval,
)
from ..core.resolving import LOCK
from ..core.session_id import TOKEN_BYTES, store_key
from ..errors import (
    ConflictingWrite,
    LateWrite,
    LockLost,
    SessionRefused,
    SessionTooLarge,
    SessionUnavailable,
    ValueTypeMismatch,
)

if TYPE_CHECKING:
    from ..core.session import LifetimeChange, Session
    from .cookies import Ticket
    from .engine import Engine

EMPTIED: Final = "emptied"
log: Final = logging.getLogger("clustersession")


class Principal:
    """Who is logged in, and since when by the host's clock."""

    __slots__ = ("auth_time", "name")

    def __init__(self, name: str | None, auth_time: float | None) -> None:
        self.name, self.auth_time = name, auth_time


class Stored:
    """Where the session is, the token that names it, and what this request has written to it."""

    __slots__ = ("copies", "key", "record", "saved", "token")

    def __init__(self, token: bytes, key: Key, record: Record, saved: Saved | None = None) -> None:
        self.token, self.key, self.record = token, key, record
        self.saved = saved  # the last write
        self.copies = None if saved is None else saved.copies  # the fewest that acked a write; None: nothing was written

    @property
    def owners(self) -> Owners:
        return self.record.owners if self.saved is None else self.saved.placement.owners

    @property
    def placement(self) -> Placement:
        return Placement(self.record.epoch, self.record.owners) if self.saved is None else self.saved.placement

    @property
    def floor(self) -> tuple[int, int]:
        """Epoch and version that a reader must see at least."""
        return floor_of(self.record) if self.saved is None else (self.saved.placement.epoch, self.saved.version)

    def wrote(self, saved: Saved) -> None:
        self.saved = saved
        self.copies = saved.copies if self.copies is None else min(self.copies, saved.copies)

    def untouched_for(self, now: float) -> bool:
        """Whether the last use that the owners know of is so long ago that they should hear of this one."""
        return now - self.record.last_seen >= touch_interval(self.record.lifetime.idle)


def new_token(engine: Engine) -> bytes:
    return engine.entropy.bytes(TOKEN_BYTES)


def patch(
    engine: Engine, changes: Mapping[str, bytes | None], lifetime: Lifetime | None, session: Session | None = None
) -> Patch:
    """With a `session`, what it asks for beyond whole values goes as that; without, `changes` are a session's first."""
    whole = dict(changes)
    edits, expected = ((), {}) if session is None else session.intent(changes)
    locks = {} if session is None else session.locks
    if not edits and not expected and not locks:
        return Patch(engine.entropy.bytes(PATCH_ID_BYTES), whole, lifetime)
    for edit in edits:
        whole.pop(edit.key, None)
    number = engine.entropy.bytes(COUNTING_ID_BYTES if edits else PATCH_ID_BYTES)
    given_up = {name: Lock(token, engine.now()) for name, token in locks.items()}
    return Patch(number, whole, lifetime, edits=edits, expected=dict(expected), locks=given_up, under=dict(locks))


def lifetime_within(engine: Engine, asked: LifetimeChange, began: float) -> Lifetime:
    """What the app asks for, now; limits that the operator has set, for a session that began at `began`, cannot be passed."""
    idle, deadline = asked.idle_s, None if asked.absolute_in_s is None else engine.now() + asked.absolute_in_s
    if engine.config.lifetimes_set:
        limit = engine.lifetime(began)
        idle, deadline = _lower(idle, limit.idle), _lower(deadline, limit.deadline)
    return Lifetime(idle, deadline)


def _lower(asked: float | None, limit: float | None) -> float | None:
    if asked is None or limit is None:
        return limit if asked is None else asked
    return min(asked, limit)


def create_session(engine: Engine, token: bytes, first: Patch, principal: Principal, lifetime: Lifetime) -> Operation[Stored]:
    """Store a new session. Raises `SessionUnavailable`."""
    cluster = engine.cluster()
    key = store_key(token)
    record = new_record(
        cluster,
        key,
        now=engine.now(),
        patch=first,
        principal=principal.name,
        auth_time=principal.auth_time,
        lifetime=lifetime,
    )
    return Stored(token, key, record, saved_or_refused(engine, key, (yield from create(cluster, key, record))))


def save_session(engine: Engine, stored: Stored, change: Patch) -> Operation[None]:
    """Raises `LateWrite`, `SessionUnavailable`, `SessionTooLarge` and `ValueTypeMismatch`; the stored version is then intact."""
    stored.wrote(saved_or_refused(engine, stored.key, (yield from save(engine.cluster(), stored.key, stored.placement, change))))


def rotate_session(
    engine: Engine, stored: Stored, token: bytes, change: Patch, principal: Principal, grace_s: float | None
) -> Operation[Stored]:
    """The same session under a new ID. Raises `LateWrite`, `SessionUnavailable` and `ValueTypeMismatch`."""
    key = store_key(token)
    outcome = yield from rotate(
        engine.cluster(),
        stored.key,
        stored.placement,
        key,
        change,
        now=engine.now(),
        principal=principal.name,
        auth_time=principal.auth_time,
        grace=grace_s,
    )
    if not isinstance(outcome, Rotated):
        raise _refused(engine, stored.key, outcome)
    engine.count("session_rotated")
    return Stored(token, key, outcome.record, outcome.saved)


def end_session(
    engine: Engine, key: Key, placement: Placement, reason: str = LOGOUT, *, anonymous: bool = False
) -> Operation[None]:
    """Raises `SessionUnavailable` if no two nodes took the tombstone; it then waits wherever it could be left."""
    outcome = yield from end(engine.cluster(), key, placement, reason, anonymous=anonymous)
    if isinstance(outcome, EndedBy):
        engine.count("session_ended")
        return
    raise _refused(engine, key, outcome)


def end_unseen(engine: Engine, ticket: Ticket | None, old_cookie: str | None) -> Operation[None]:
    """End a session that could not be loaded, and what is named by the cookie of before that came with it or alone. Raises
    `SessionUnavailable` if one of them may live on."""
    if ticket is not None:
        yield from _end_named(engine, ticket)
    if engine.adoption is not None and old_cookie is not None:
        yield from engine.adoption.ended_unseen(engine, old_cookie, alone=ticket is None)


def _end_named(engine: Engine, ticket: Ticket) -> Operation[None]:
    """At the owners that its ID names."""
    master, backup = ticket.owners(engine.cluster().view, engine.host, engine.ring())
    known = [owner for owner in (master, backup) if owner is not None]
    owners = (known[0], known[1] if len(known) > 1 else None) if known else (engine.host.me, None)
    yield from end_session(engine, ticket.sid.key, Placement(ticket.sid.epoch, owners))
    if not known:
        raise SessionUnavailable("no owner of the session is a member now")


def end_emptied(engine: Engine, stored: Stored) -> Operation[bool]:
    """End a session of which a request leaves nothing; False if another request has written to it meanwhile, or if an owner
    gave no answer. Raises `LateWrite` and `SessionUnavailable`."""
    _, version = stored.floor
    nobodys = stored.record.principal is None
    outcome = yield from end_unwritten(engine.cluster(), stored.key, stored.placement, version, EMPTIED, anonymous=nobodys)
    match outcome:
        case None:
            return False
        case EndedBy():
            engine.count("session_ended")
            return True
    raise _refused(engine, stored.key, outcome)


def end_graces(engine: Engine, record: Record) -> Operation[None]:
    """What is ended under its ID is not shown under former ones either. Raises `SessionUnavailable` if one of them may be."""
    failed: list[tuple[Key, EndOutcome]] = []
    for grace in graces_of(record, engine.now()):
        outcome = yield from end(engine.cluster(), grace.key, Placement(grace.epoch, grace.owners), ROTATED)
        if not isinstance(outcome, EndedBy):
            failed.append((grace.key, outcome))
    for key, outcome in failed:
        raise _refused(engine, key, outcome)


def touch_session(engine: Engine, stored: Stored) -> Operation[None]:
    yield from touch(engine.cluster(), stored.key, stored.placement)


def refused_late(engine: Engine, key: Key) -> None:
    """A write to a session that was ended or rotated meanwhile."""
    engine.count("late_write")
    engine.cookies.refusals.named("late_write", key.hex())


def saved_or_refused(engine: Engine, key: Key, outcome: SaveOutcome) -> Saved:
    """Raises what a refusal comes to."""
    if not isinstance(outcome, Saved):
        raise _refused(engine, key, outcome)
    if outcome.copies < 2:
        engine.count("saved_degraded")
    return outcome


def _refused(engine: Engine, key: Key, outcome: SaveOutcome | EndOutcome) -> SessionRefused | SessionUnavailable:
    match outcome:
        case Ended():
            refused_late(engine, key)
            return LateWrite(outcome.reason)
        case Rejected():
            return SessionTooLarge(outcome.what, outcome.size, outcome.limit)
        case Conflicting():
            engine.count("conflicting_write")
            lost = outcome.key.startswith(LOCK)
            return LockLost(outcome.key.removeprefix(LOCK)) if lost else ConflictingWrite(outcome.key)
        case Mistyped():
            return ValueTypeMismatch(outcome.operation, outcome.key, outcome.found)
        case Unavailable():
            engine.count("write_unavailable")
            if engine.outages.worth_saying(engine.now()):
                log.warning("session %s cannot be written: %s", key.hex(), outcome.why)
            return SessionUnavailable(outcome.why)
    raise AssertionError(outcome)
