"""What is remembered, counted and told of a session that a request asked for and did not get."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.operations import Ended, LoadOutcome, Lost, Unavailable
from ..core.reasons import of_ending
from ..core.session_id import SessionId

if TYPE_CHECKING:
    from .engine import Engine


def note_unloaded(engine: Engine, sid: SessionId, outcome: LoadOutcome, now: float) -> None:
    """`now`: the host's clock. What was lost a moment ago is not lost again."""
    match outcome:
        case Unavailable():
            engine.count("session_unavailable")
            engine.outages.silent(sid.key, now)
            _refused(engine, "unavailable", sid, outcome.why)
        case Lost() if not engine.outages.is_lost(sid.key, now):
            engine.count("session_lost")
            engine.outages.lost(sid.key, now)
            _refused(engine, "lost", sid, f"asked {', '.join(outcome.asked) or 'nobody'}")
        case Ended():
            _refused(engine, of_ending(outcome.reason), sid)


def _refused(engine: Engine, code: str, sid: SessionId, detail: str = "") -> None:
    """An app that looks for a session by its handle has come with no ID, and none was refused."""
    if sid.kid >= 0:
        engine.cookies.refusals.session(code, sid, detail)
