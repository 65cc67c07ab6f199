"""The rule for each call about one record."""

from __future__ import annotations

from ..calls import (
    Absorb,
    Apply,
    Call,
    Deliver,
    Done,
    End,
    Expire,
    Export,
    Exported,
    Freeze,
    LeaveHint,
    Promote,
    Put,
    Settle,
    Touch,
)
from ..record import Key, Record
from .decision import Decision, Situation
from .ends import on_end, on_expire
from .owners import on_absorb, on_promote, on_put, on_settle
from .writes import on_apply, on_deliver, on_freeze, on_touch


def decide(record: Record | None, call: Call, at: Situation, source: str | None) -> Decision:
    """What becomes of `record` (as stored here) by `call` from node `source`."""
    match call:
        case Apply():
            return on_apply(record, call, at)
        case Deliver():
            return on_deliver(record, call, at)
        case Put():
            return on_put(record, call, at)
        case Promote():
            return on_promote(record, call, at, source)
        case Export() | LeaveHint():
            return Decision(Exported(record)) if isinstance(call, Export) else Decision(Done(), hint=(call.owner,))
        case Settle():
            return on_settle(record, call, at)
        case Absorb():
            return on_absorb(record, call, at, source)
        case End():
            return on_end(record, call, at)
        case Freeze():
            return on_freeze(record, call, at)
        case Touch():
            return on_touch(record, call, at)
        case Expire():
            return on_expire(record, call, at)
    raise TypeError(f"{type(call).__name__} is not a call about one record")


def key_of(call: Call) -> Key:
    """The session a call is about; b"" for calls about many."""
    return getattr(call, "key", b"")
