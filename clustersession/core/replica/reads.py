"""What a node answers to who wants to read a session, and until when it vouches for its copy (design.md 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from ..calls import Fetch, Found, Gone, Later, Moved, NotMine, Reply
from ..record import Record, expired, expires_at
from .decision import Situation, gone

NEVER: Final = float("-inf")


def fetch(record: Record | None, call: Fetch, at: Situation, hinted: Callable[[str], bool]) -> Reply:
    """Read-only: what this node can say about the session, and whether it vouches for it."""
    if record is None:
        return NotMine() if at.synced or at.now - at.born() < call.age else Later()
    if record.ended is not None:
        return gone(record, record.ended, at)
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
