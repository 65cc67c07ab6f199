"""What a node does between requests: heartbeats that carry hints, and the sync of a node that was away (design.md 7, 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec

from . import calls
from .bars import Tally
from .effects import Ask, Operation, Pace, Wait
from .node import Member, View
from .placement import live_order
from .record import Digest, Key, Record, contents_of
from .record import digest as digest_of
from .together import PIECE_MAX

HINT_ROUNDS_MAX: Final = 64  # of `Heartbeat.hints_max` hints each: more wait for the next heartbeat
SYNC_BATCH: Final = 32  # looked through at one go
WITNESSES: Final = 3


class Heard(NamedTuple):
    """The answer of a heartbeat. `told_all`: every hint that the peer had for this host is applied here, and every bar."""

    sender: Member
    members: tuple[Member, ...]
    told_all: bool
    switch: bytes = b""


class Silent(NamedTuple):
    """No answer to a heartbeat."""

    why: str


def beat(me: str, peer: str, mine: Callable[[], calls.Heartbeat], bars: Callable[[], Tally]) -> Operation[Heard | Silent]:
    """One heartbeat to `peer`. A lease with it runs from the moment before this began, if `told_all`. `bars`: those known
    here."""
    for _ in range(HINT_ROUNDS_MAX):
        reply = yield Ask(peer, mine())
        if not isinstance(reply, calls.Beat):
            return Silent(reply.why if isinstance(reply, calls.Unreachable) else type(reply).__name__.lower())
        applied = not reply.hints or (yield from _all_met(me, peer, reply.hints))
        if applied and not reply.pending and reply.bars and reply.bars != bars().digest():
            applied = yield from barred(me, peer, bars())
        if not applied or not reply.pending:
            return Heard(reply.sender, reply.members, applied and not reply.pending, reply.switch)
    return Heard(reply.sender, reply.members, told_all=False, switch=reply.switch)


def barred(me: str, peer: str, mine: Tally) -> Operation[bool]:
    """Take the bars that `peer` knows and this host doesn't, page by page."""
    sums, first = mine.sums(), 0
    while True:
        theirs = yield Ask(peer, calls.Bars(sums, first))
        if not isinstance(theirs, calls.Known):
            return False
        for bar in theirs.bars:
            if bar.id not in mine and not isinstance((yield Ask(me, calls.Forbid(bar))), calls.Forbidden):
                return False
        if theirs.following is None or theirs.following <= first:
            return True
        first = theirs.following


def _all_met(me: str, peer: str, theirs: Iterable[tuple[Key, Record]]) -> Operation[bool]:
    """Take what `peer` has of these sessions, and confirm it, so that its hints go."""
    met: list[Digest | None] = []
    for key, record in theirs:
        if met and len(met) % PIECE_MAX == 0:
            yield Wait(0.0)
        met.append((yield from _met(me, peer, key, record)))
    digests = tuple(digest for digest in met if digest is not None)
    reply = (yield Ask(peer, calls.Confirm(digests))) if digests else None
    return len(digests) == len(met) and (reply is None or isinstance(reply, calls.Confirmed))


def _met(me: str, peer: str, key: Key, record: Record) -> Operation[Digest | None]:
    """This host's copy meets the peer's: both end with the better one. The digest held here; None: could not be stored."""
    reply = yield Ask(me, calls.Absorb(key, record, peer))
    if not isinstance(reply, calls.Absorbed):
        return None
    if reply.better is not None:
        back = yield Ask(peer, calls.Absorb(key, reply.better))
        if isinstance(back, calls.Absorbed) and back.better is not None:
            reply = yield Ask(me, calls.Absorb(key, back.better, peer))
    if not isinstance(reply, calls.Absorbed):
        return None
    # nothing is kept of a session that is not ours: the peer's record itself is what is agreed on
    held = reply.digest or digest_of(key, record)
    taken = contents_of(record.items) if record.pointer and held.owners[0] == me else b""
    return msgspec.structs.replace(held, taken=taken) if taken else held


def sync(view: Callable[[], View], shared_with: Callable[[Iterable[str | None]], None], pace: Pace) -> Operation[bool]:
    """Confirm every record with its other owner, or with the first of the key's order if that one is not alive.
    True when all are; False: an owner that may be alive did not answer yet, try again. `shared_with` is told the owners."""
    after: Key | None = None
    complete = True
    while True:
        began = pace.clock()
        listed = yield Ask(view().me, calls.Inventory(after, SYNC_BATCH))
        if not isinstance(listed, calls.Listed):
            return False
        if listed.last is None:
            return complete
        shared_with(owner for digest in listed.digests for owner in digest.owners)
        complete = (yield from _batch_synced(view(), listed.digests)) and complete
        after = listed.last
        yield pace.rest(began)


def heard_of_bars(view: View, mine: Callable[[], Tally]) -> Operation[bool]:
    """Before a sync: what was ended for whole users, as no owner of a session may be left to say so. Whether somebody who is
    alive has told, or there is nobody who could."""
    peers = live_order(view, b"", without=(view.me,))[:WITNESSES]
    told = 0
    for peer in peers:
        told += yield from barred(view.me, peer, mine())
    return told > 0 or not peers


def _batch_synced(view: View, digests: Iterable[Digest]) -> Operation[bool]:
    """Ask everybody that can confirm a part of this batch."""
    questions: dict[tuple[str, bool], list[Digest]] = {}
    complete = True
    for digest in digests:
        for place, witness in enumerate(_witnesses(view, digest)):
            questions.setdefault((witness, place >= WITNESSES), []).append(digest)
    for (witness, only_ask), asked in questions.items():
        answered = yield from _confirmed(view, witness, asked, only_ask=only_ask)
        complete = complete and answered
    return complete


def _witnesses(view: View, digest: Digest) -> list[str]:
    """The other owner while it may be alive; else everybody, in the key's order: who took the session over may have handed it
    on since, and left (decision 21). The first of them keep the way to this history."""
    others = [owner for owner in digest.owners if owner is not None and owner != view.me]
    alive = [owner for owner in others if view.reachable(owner)]
    return alive or live_order(view, digest.key, without=(view.me, *others))


def _confirmed(view: View, peer: str, digests: list[Digest], *, only_ask: bool) -> Operation[bool]:
    reply = yield Ask(peer, calls.Confirm(tuple(digests), only_ask))
    if not isinstance(reply, calls.Confirmed):
        return view.departed(peer)
    owners = {digest.key: digest.owners for digest in digests}
    yield from _all_met(view.me, peer, ((key, record) for key, record in reply.differing if record is not None))
    for key, record in reply.differing:
        if record is None and peer in owners[key]:
            yield from given(view.me, peer, key)
    return True


def given(me: str, peer: str, key: Key) -> Operation[bool]:
    """The other owner holds nothing: it gets this host's copy, unless that is none any more. Whether it has taken it."""
    mine = yield Ask(me, calls.Export(key))
    record = mine.record if isinstance(mine, calls.Exported) else None
    if record is None or record.pointer or peer not in record.owners:
        return False
    reply = yield Ask(peer, calls.Put(key, record))
    if not isinstance(reply, calls.Held):
        return False
    yield from _settled(key, record, reply.version)
    return True


def _settled(key: Key, record: Record, version: int) -> Operation[None]:
    """Both owners hold it. Only the master may accept its change of owners, and then the backup must know that too."""
    epoch, owners = record.epoch, record.owners
    master, backup = owners
    if not record.accepted and backup is not None:
        answer = yield Ask(master, calls.Settle(key, epoch, owners, calls.NOTHING_HELD))
        if isinstance(answer, calls.Done):
            answer = yield Ask(backup, calls.Settle(key, epoch, owners, version))
        if not isinstance(answer, calls.Done):
            return
    yield Ask(master, calls.Settle(key, epoch, owners, version))
