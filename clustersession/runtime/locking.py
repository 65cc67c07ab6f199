"""`session.lock`: what only one request of a session at a time may do. A lease at the master, kept by both owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..core.counted import PATCH_ID_BYTES
from ..core.effects import Operation, Wait
from ..core.operations import Conflicting, Ended, Loaded, save
from ..core.record import Lock, Patch
from ..errors import LateWrite, SessionLocked, SessionUnavailable
from .budget import Budget
from .looking_again import found_now
from .stored import Stored, saved_or_refused

if TYPE_CHECKING:
    from .engine import Engine
    from .session import RequestSession

TOKEN_BYTES: Final = 8
NAME_CHARS_MAX: Final = 64
LEASE_S_MAX: Final = 600.0
ASKED_EVERY_S: Final = 0.05


def checked(name: str, lease_s: float, wait_s: float) -> None:
    """Raises `ValueError`."""
    if not 0 < len(name) <= NAME_CHARS_MAX:
        raise ValueError(f"the name of a lock is a text of 1 to {NAME_CHARS_MAX} characters, not {name!r:.80}")
    if not 0 < lease_s <= LEASE_S_MAX:
        raise ValueError(f"a lock is kept for more than 0 and at most {LEASE_S_MAX:.0f} s, not {lease_s!r}")
    if not wait_s >= 0:
        raise ValueError(f"one waits for a lock for 0 or more seconds, not {wait_s!r}")


def budget_for(engine: Engine, wait_s: float) -> Budget:
    return Budget(wait_s + engine.config.timeouts.budget_s)


def locked(engine: Engine, session: RequestSession, name: str, lease_s: float, wait_s: float) -> Operation[None]:
    """Take the lock, waiting for it if need be, then let `session` show what is stored now: the one that had it before has
    changed it. Raises `SessionLocked`, `LateWrite` and `SessionUnavailable`."""
    stored = session.stored
    if stored is None or name in session.locks:
        return  # nobody else has the ID of a session that is not stored yet
    token, waited = engine.entropy.bytes(TOKEN_BYTES), 0.0
    while True:
        lock = Lock(token, engine.now() + lease_s)
        claim = Patch(engine.entropy.bytes(PATCH_ID_BYTES), {}, locks={name: lock}, under=dict(session.locks))
        outcome = yield from save(engine.cluster(), stored.key, stored.placement, claim)
        if not isinstance(outcome, Conflicting):
            break
        if waited >= wait_s:
            engine.count("session_locked")
            raise SessionLocked(name, wait_s)
        yield Wait(ASKED_EVERY_S)
        waited += ASKED_EVERY_S
    stored.wrote(saved_or_refused(engine, stored.key, outcome))
    session.locks = {**session.locks, name: token}
    yield from _shown_anew(engine, session, stored)


def _shown_anew(engine: Engine, session: RequestSession, stored: Stored) -> Operation[None]:
    match (yield from found_now(engine, stored)):
        case Loaded() as found:
            stored.record = found.record
            session.show(engine.items_of(stored.key, found.record))
        case Ended() as over:
            raise LateWrite(over.reason)
        case _:
            raise SessionUnavailable("it was lost a moment after it was locked")
