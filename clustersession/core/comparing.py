"""Whether two nodes hold the same of a session: asked with digests, so that only what differs has to travel.

What that settles is decided in the same transaction: a hint that has nothing to tell any more, a change of owners that the
new backup is seen to hold, a pointer that follows.
"""

from __future__ import annotations

from .calls import Done
from .record import SOMEBODY, Digest, Record, accepted, contents_of, digest, is_live, rank, same_history
from .replica import Decision, Situation


def compare(
    record: Record | None, theirs: Digest, at: Situation, source: str | None, *, only_ask: bool = False
) -> tuple[Decision, bool]:
    """Whether `source`, that holds `theirs`, and this node hold the same; the decision carries what that settles. `only_ask`:
    a stranger that holds nothing keeps nothing of it."""
    stranger = at.me not in theirs.owners and not theirs.ended
    if record is None and (only_ask or not stranger):
        return Decision(Done()), only_ask and at.me not in theirs.owners
    if record is None or (record.pointer and stranger):
        return _pointed(record, theirs, at, source)
    if source is None or not _alike(record, theirs, versions=source in record.owners):
        return Decision(Done()), False
    if not is_live(record) or (record.accepted and theirs.accepted) or source not in record.owners:
        return Decision(Done(), unhint=(source,)), True
    if at.me != record.master:  # it takes the master's word, and never concludes it by itself
        return Decision(Done(), theirs.accepted, accepted(record) if theirs.accepted else None, unhint=(source,)), True
    if record.accepted:
        return Decision(Done()), False  # the backup does not know yet
    # the backup holds it, so it is accepted; the hint stays until the backup knows that too
    return Decision(Done(), True, accepted(record)), True


def _alike(record: Record, theirs: Digest, *, versions: bool) -> bool:
    """The same history; and the same content, unless it is asked by one that keeps a pointer."""
    if record.epoch != theirs.epoch or record.owners != theirs.owners or (record.ended is not None) is not theirs.ended:
        return False
    if not versions:
        return True
    mine = digest(theirs.key, record)
    return mine.version == theirs.version and mine.contents == theirs.contents


def _pointed(record: Record | None, theirs: Digest, at: Situation, source: str | None) -> tuple[Decision, bool]:
    """A stranger to this session keeps the way to the best history that it has heard of."""
    told = Record(theirs.epoch, 0, theirs.owners, pointer=True, accepted=theirs.accepted, base=theirs.base, last_seen=at.now)
    if record is None:
        return Decision(Done(), True, told.but(principal=SOMEBODY)), True
    follows = theirs.epoch > record.epoch or same_history(told, record)
    if rank(told) < rank(record) or not follows:
        return Decision(Done()), False  # they must meet
    by_master = source == theirs.owners[0]
    if by_master and record.items and theirs.taken != contents_of(record.items):
        return Decision(Done()), False  # what is retained here may hold what that master has not merged yet
    settled = by_master and theirs.accepted and theirs.owners[1] is not None
    known = (record.epoch, record.owners, record.accepted) == (told.epoch, told.owners, told.accepted)
    items = {} if settled else record.items
    moved = record.but(items=items) if known else told.but(items=items, principal=record.principal)
    return Decision(Done(), moved != record, moved, unhint=(source,) if source else ()), True
