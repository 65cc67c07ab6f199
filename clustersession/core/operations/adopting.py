"""Adopt: a session of another system becomes one of ours, once, however many requests bring it at the same time.

Its key is derived from the old system's own name for it, so all hosts come to the same one. A second record, the guard,
remembers until the end of the adoption that this was done: whatever becomes of the session, the old cookie revives nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .. import calls
from ..effects import Operation
from ..placement import choose_backup
from ..record import Key, Lifetime, Owners, Patch, Record, patched
from .loading import load
from .moving import completed
from .outcome import Cluster, Ended, Loaded, LoadOutcome, Lost, Saved, Target, Unavailable
from .saving import create, new_owners, save

ADOPTED_BEFORE: Final = "adopted before"


class Claim(NamedTuple):
    """Where the session of an old ID is kept, by a key of the ring (the signing one first), and its guard, by none."""

    session: Key
    guard: Key


class Adopted(NamedTuple):
    """What came of it, under which of the claims, and whether it was stored just now."""

    outcome: LoadOutcome
    place: int
    new: bool = False


def adopt(cluster: Cluster, claims: Sequence[Claim], session: Record, guard: Record) -> Operation[Adopted]:
    """The session that the first request with this old ID has made, if there was one, else `session`, stored now.
    `Ended`: it was adopted before, and is over."""
    before = yield from adopted_before(cluster, claims)
    if before is not None:
        return before
    outcome = yield from kept(cluster, claims[0].session, session)
    if isinstance(outcome, Loaded):
        guarded = yield from kept(cluster, claims[0].guard, guard)
        if isinstance(guarded, Unavailable):
            return Adopted(guarded, 0)
    return Adopted(outcome, 0, new=isinstance(outcome, Loaded) and outcome.record.patches == session.patches)


def adopted_before(cluster: Cluster, claims: Sequence[Claim]) -> Operation[Adopted | None]:
    """What has become of the session of this old ID, or that it is not known; None: it was not adopted yet."""
    for place, claim in enumerate(claims):
        outcome = yield from found_anywhere(cluster, claim.session)
        if not isinstance(outcome, Lost):
            return Adopted(outcome, place)
    for guard in dict.fromkeys(claim.guard for claim in claims):
        guarded = yield from found_anywhere(cluster, guard)
        if isinstance(guarded, Unavailable):
            return Adopted(guarded, 0)
        if not isinstance(guarded, Lost):
            return Adopted(Ended(ADOPTED_BEFORE), 0)
    return None


def found_anywhere(cluster: Cluster, key: Key) -> Operation[LoadOutcome]:
    """What is stored under a key that no cookie has named: whoever comes first in its order has it, or knows the way."""
    return (yield from load(cluster, Target(key, None, None, single=False, floor=(0, 0), age=0.0)))


def stored_once(cluster: Cluster, key: Key, record: Record) -> Operation[LoadOutcome]:
    """What is stored under `key`; `record` from now on if there was nothing."""
    found = yield from found_anywhere(cluster, key)
    return (yield from kept(cluster, key, record)) if isinstance(found, Lost) else found


def put(cluster: Cluster, key: Key, record: Record, change: Callable[[Record], Patch]) -> Operation[bool]:
    """Write to the record under `key` what `change` makes of it; `record` is what there is from now on if there was none."""
    outcome = yield from found_anywhere(cluster, key)
    if isinstance(outcome, Lost):
        if isinstance((yield from create(cluster, key, record)), Saved):
            return True
        outcome = yield from found_anywhere(cluster, key)  # another may have stored the first one meanwhile
    if not isinstance(outcome, Loaded):
        return False
    return isinstance((yield from save(cluster, key, outcome.placement, change(outcome.record))), Saved)


def first_record(
    cluster: Cluster, key: Key, *, now: float, patch: Patch, created: float, lifetime: Lifetime, shared: bool = True
) -> Record:
    """What is stored under `key`. `shared`: several hosts may do that at the same time; its owners follow from the key, so
    that they meet."""
    owners = _first_owners(cluster, key) if shared else new_owners(cluster, key)
    empty = Record(1, 0, owners, created=created, last_seen=now, lifetime=lifetime, base=1)
    return patched(empty, patch, 1)


def _first_owners(cluster: Cluster, key: Key) -> Owners:
    master = choose_backup(cluster.view, key, without=(), near=()) or cluster.me
    return master, choose_backup(cluster.view, key, without=(master,), near=(master,))


def kept(cluster: Cluster, key: Key, record: Record) -> Operation[LoadOutcome]:
    """Stored, or what another request has stored meanwhile."""
    saved = yield from create(cluster, key, record)
    if isinstance(saved, Saved):
        epoch, owners = saved.placement
        return Loaded(record.but(epoch=epoch, owners=owners))
    meanwhile = yield from found_anywhere(cluster, key)
    if isinstance(meanwhile, Loaded) and not meanwhile.superseded:
        return (yield from _on_both(cluster, key, meanwhile))
    return saved if isinstance(meanwhile, Lost) else meanwhile


def _on_both(cluster: Cluster, key: Key, meanwhile: Loaded) -> Operation[LoadOutcome]:
    """Whoever stored it may not have come to its backup yet, and never come there."""
    match (yield from completed(cluster, key, meanwhile.record)):
        case calls.Gone() as gone:
            return Ended(gone.reason)
        case (_, Record() as record):
            return Loaded(record) if record.ended is None else Ended(record.ended.reason)
        case (_, None):
            return (yield from found_anywhere(cluster, key))
    return meanwhile  # as it can be read, but not moved now
