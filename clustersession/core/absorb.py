"""How two copies of one session become one, when they meet. Everybody who meets them comes to the same result.

Tombstones win over everything; otherwise the higher `rank` wins, within one history the higher version; values merge per
key by stamp. A pointer is never taken for data. Found by a model of the protocol: F4, F5, F9, F14, F15.
"""

from __future__ import annotations

from typing import NamedTuple

from .record import (
    Ending,
    Owners,
    Record,
    accepted,
    ended,
    is_over,
    is_user,
    merged,
    newer_items,
    pointer_to,
    rank,
    same_history,
    without_grace,
)


class Absorption(NamedTuple):
    """`record` is what to hold now (None: nothing, as before), `better` what the other side should know, `hint` whom to tell."""

    record: Record | None
    better: Record | None = None
    hint: tuple[str, ...] = ()


def absorb(mine: Record | None, theirs: Record, me: str, source: str | None = None) -> Absorption:
    """What `me` holds after it has learnt of `theirs` (from `source`, if that is a holder)."""
    if mine is None:
        return Absorption(_first(theirs, me))
    if mine.ended or theirs.ended:
        return _with_tombstone(mine, theirs, me)
    if theirs.pointer and me in theirs.owners:
        return _pointed_at(mine, theirs, me)
    if same_history(mine, theirs):
        return _same_history(mine, theirs, me, source)
    if rank(theirs) < rank(mine):
        result = _merged_as_master(mine, theirs, me)
        return result._replace(better=result.record)
    return _outranked(mine, theirs, me)


def _first(theirs: Record, me: str) -> Record | None:
    if theirs.ended:
        # what a grace shows of a user stays where it was given: there it is ended with the session
        return without_grace(theirs) if is_user(theirs.principal) else theirs
    return None if theirs.pointer or me not in theirs.owners else theirs


def _with_tombstone(mine: Record, theirs: Record, me: str) -> Absorption:
    higher = rank(theirs) > rank(mine)
    if mine.ended and not theirs.ended:
        return Absorption(mine, better=mine)
    if mine.ended:
        if is_over(theirs) and is_user(mine.principal):
            mine = without_grace(mine)
        adopted = mine.but(epoch=theirs.epoch, owners=theirs.owners, version=theirs.version, base=theirs.epoch)
        return Absorption(adopted if higher else mine, better=None if higher or rank(mine) == rank(theirs) else mine)
    assert theirs.ended is not None
    # the values of a grace do not travel, so neither does the grace
    tombstone = ended(theirs if higher else mine, Ending(theirs.ended.reason, theirs.ended.at))
    return Absorption(tombstone, hint=owners_but(mine.owners, me))


def _pointed_at(mine: Record, theirs: Record, me: str) -> Absorption:
    """An ex-owner says that I am an owner of `theirs`: if I don't have that epoch, what I have is not to be served."""
    if rank(theirs) > rank(mine):
        if mine.pointer:
            return Absorption(mine)
        # it ranks below what it was, so that whatever comes next of its own epoch wins over it; who may have that is told
        marked = mine.but(accepted=False, base=min(mine.base, mine.epoch - 1))
        return Absorption(marked, hint=owners_but(theirs.owners, me))
    result = _merged_as_master(mine, theirs, me)
    return result._replace(better=mine if rank(mine) > rank(theirs) else None)


def _same_history(mine: Record, theirs: Record, me: str, source: str | None) -> Absorption:
    if mine.pointer and mine.items and _holds_all(theirs, mine):
        mine = mine.but(items={}, patches=(), counted={})
    # only the master may conclude it: the backup cannot know whether the master has moved on since it sent this
    settled = mine.accepted or theirs.accepted or (me == mine.master and source == mine.owners[1])
    if theirs.version > mine.version and not mine.pointer:
        kept = merged(theirs, mine).but(last_seen=max(mine.last_seen, theirs.last_seen))
        return Absorption(accepted(kept) if settled else kept)
    better = mine if mine.version > theirs.version else None
    result = _merged_as_master(accepted(mine) if settled else mine, theirs, me)
    return result._replace(better=result.record if result.hint else better)


def _holds_all(theirs: Record, mine: Record) -> bool:
    """Whether what is retained here is in a copy that two nodes hold (finding F15): it would only be shown again when both
    are gone, after whatever came later."""
    held_by_two = not theirs.pointer and theirs.accepted and theirs.owners[1] is not None
    return held_by_two and not newer_items(mine.items, theirs.items)


def _merged_as_master(mine: Record, theirs: Record, me: str) -> Absorption:
    """Only the master numbers: it alone makes a version of what another history adds."""
    if mine.pointer or mine.master != me or not newer_items(theirs.items, mine.items):
        return Absorption(mine)
    return Absorption(merged(mine, theirs).but(version=mine.version + 1), hint=owners_but(mine.owners, me))


def _outranked(mine: Record, theirs: Record, me: str) -> Absorption:
    """Their history wins here. The owners of mine that are none of theirs must learn that, as in a change of owners."""
    extra = newer_items(mine.items, theirs.items)
    former = () if mine.pointer else tuple(o for o in owners_but(mine.owners, me) if o not in theirs.owners)
    new_master = owners_but((theirs.owners[0], None), me) if extra else ()
    told = (*former, *new_master)
    if me not in theirs.owners:
        settled = theirs.accepted and theirs.owners[1] is not None
        retained = extra if settled else mine.items
        return Absorption(pointer_to(theirs, retained, mine), hint=told)
    if not extra:
        return Absorption(theirs, hint=former)
    if theirs.owners[0] == me:
        result = _merged_as_master(theirs.but(version=max(theirs.version, mine.version)), mine, me)
        return result._replace(hint=(*former, *result.hint))
    return Absorption(merged(theirs, mine), hint=told)


def owners_but(owners: Owners, me: str) -> tuple[str, ...]:
    """The owners that are not `me`."""
    return tuple(owner for owner in owners if owner is not None and owner != me)
