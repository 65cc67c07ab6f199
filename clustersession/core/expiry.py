"""The end of sessions that nobody uses any more. Either owner may have missed that a session was used: a host that is cut off
sees nobody use it, and a touch can be lost on its way to one of the two. So an owner ends one only together with the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import calls
from .effects import Ask, Operation, Tell
from .record import Key, Record
from .together import CALLS_MAX, together


class Overdue(NamedTuple):
    """A session that has passed a limit, as far as this host knows; `word` says which."""

    key: Key
    record: Record
    word: str


def expire(me: str, overdue: Sequence[Overdue]) -> Operation[int]:
    """Ask the other owner of each. How many have ended."""
    ended = 0
    for first in range(0, len(overdue), CALLS_MAX):
        ended += sum((yield from together([_asked(me, each) for each in overdue[first : first + CALLS_MAX]])))
    return ended


def _asked(me: str, overdue: Overdue) -> Operation[bool]:
    key, record, word = overdue
    other = record.other(me)
    reply = calls.NotMine() if other is None else (yield Ask(other, calls.Expire(key, record.epoch, record.owners)))
    match reply:
        case calls.InUse():
            yield Ask(me, calls.Touch(key, reply.age))
            return False
        case calls.EndHeld() | calls.NotMine() | calls.Gone():
            reason = reply.reason if isinstance(reply, calls.Gone) else word
            # only if nothing was written since: one that holds nothing cannot have refused a write
            mine = yield Ask(me, calls.End(key, reason, record.owners, record.epoch, version=record.version))
        case _:
            return False  # silent, or not of this history any more: asked again later, unless that comes to light before
    if isinstance(reply, calls.EndHeld) and isinstance(mine, calls.EndHeld) and other is not None:
        for owner in (me, other):
            yield Tell(owner, calls.Settle(key, record.epoch, record.owners, 0))
    return isinstance(mine, calls.EndHeld)
