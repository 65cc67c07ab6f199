"""Repair and drain: a session that has lost an owner, or is about to, gets another pair of owners (design.md 9).

Both are changes of owners as requests make them too (`operations.moving`), only that nobody waits for them: at once, without
traffic, many sessions in one message, logged-in and recently used ones first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from . import calls
from .effects import Ask, Operation, Wait
from .node import View
from .operations.moving import moved, taught
from .operations.outcome import Cluster, Placement
from .placement import choose_backup
from .record import Key, Record, accepted, digest, is_live
from .together import CALLS_MAX, together

SINGLE: Final = ""  # nobody's identity: what is hinted for it has only one owner, and waits for a second one
STEPS_MAX: Final = 4
AT_ONCE: Final = 2 * CALLS_MAX  # so that a node has the next message while it carries out the one before
SURVEYED_AT_ONCE: Final = 256
RECENT_S: Final = 900.0

Survey = Callable[[Key | None, int], list[tuple[Key, Record | None]]]
"""The next so many keys of this host after one, with what it holds under them (None: nothing that can be read)."""


class Surroundings(NamedTuple):
    """What repair needs to know, as it is at the moment of asking."""

    cluster: Callable[[], Cluster]
    survey: Survey
    clock: Callable[[], float]  # of this host; a pass takes too long for one `now`
    leaving: Callable[[], bool]  # this node hands over all it has
    share: Callable[[], float]  # of the time that may go into repair, the rest is left to requests: above 0, at most 1


class Progress:
    """`owed`: sessions that still need this node for their second copy, as far as surveyed; None before the first survey.
    `shared`: the nodes with which this one shares sessions, as the last survey found them."""

    def __init__(self) -> None:
        self.owed: int | None = None
        self.moved = 0
        self.shared: frozenset[str] = frozenset()


def owes(record: Record | None, view: View, *, leaving: bool) -> bool:
    """Whether this node has to see to it that two others, or it and another, hold the session."""
    if record is None or record.pointer or view.me not in record.owners:
        return False
    other = record.other(view.me)
    if leaving:
        return True
    if other is None:
        return any(member.recruitable and member.identity != view.me for member in view.members.values())
    return view.departed(other)


def mark(record: Record, me: str) -> tuple[str, ...]:
    """The hint by which a node finds a session again that nobody but it holds, without looking at all it has. Whoever made it
    single, in whatever process, may have had an older view of the members than the last pass of repair."""
    return (SINGLE,) if record.owners == (me, None) and not record.pointer else ()


def doubled(at: Surroundings, keys: list[Key]) -> Operation[None]:
    """Bring sessions with one owner to a second one, as far as it can be done now."""
    cluster = at.cluster()
    yield from together([placed_anew(cluster, key, leaving=False) for key in keys])


def repair(at: Surroundings, progress: Progress) -> Operation[bool]:
    """One pass over all that this host holds. Whether nothing is owed any more; it is given up when this node begins to leave."""
    leaving = at.leaving()
    keys = yield from _surveyed(at, progress, leaving=leaving)
    left_over = 0
    for first in range(0, len(keys), AT_ONCE):
        if at.leaving() != leaving:
            return False
        batch = keys[first : first + AT_ONCE]
        progress.owed = len(keys) - first + left_over
        began, cluster = at.clock(), at.cluster()
        mended = yield from together([placed_anew(cluster, key, leaving=leaving) for key in batch])
        left_over += mended.count(False)
        progress.moved += mended.count(True)
        if not any(mended):
            yield Wait(1.0)  # nobody can take anything at this moment
        yield Wait((at.clock() - began) * (1.0 / at.share() - 1.0))
    if at.leaving() != leaving:
        return False
    if leaving and keys:
        return False  # others may have handed over to this node meanwhile: done is what finds nothing to do
    progress.owed = left_over
    return left_over == 0


def _surveyed(at: Surroundings, progress: Progress, *, leaving: bool) -> Operation[list[Key]]:
    """What is owed, in the order of its worth: logged in and in use, logged in, in use, the rest."""
    found: tuple[list[Key], ...] = ([], [], [], [])
    shared: set[str | None] = set()
    after: Key | None = None
    while batch := at.survey(after, SURVEYED_AT_ONCE):
        view, now = at.cluster().view, at.clock()
        for key, record in batch:
            if record is not None and not record.pointer and view.me in record.owners:
                shared.add(record.other(view.me))
            if record is not None and owes(record, view, leaving=leaving):
                found[_turn(record, now)].append(key)
        after = batch[-1][0]
        yield Wait(0.0)
    progress.shared = frozenset(other for other in shared if other is not None)
    return [key for each in found for key in each]


def _turn(record: Record, now: float) -> int:
    if not is_live(record):
        return 0  # few and small, and a logout must stay one
    recent = now - record.last_seen < RECENT_S
    return (0 if recent else 1) if record.principal is not None else (2 if recent else 3)


def placed_anew(cluster: Cluster, key: Key, *, leaving: bool) -> Operation[bool]:
    """Bring one session to two owners without those that are gone, and without this node if it leaves. Whether it is."""
    me = cluster.me
    for _ in range(STEPS_MAX):
        reply = yield Ask(me, calls.Export(key))
        record = reply.record if isinstance(reply, calls.Exported) else None
        if record is None or not owes(record, cluster.view, leaving=leaving):
            return isinstance(reply, calls.Exported)
        other = record.other(me)
        survivor, lost = (other, me) if leaving and other is not None and _stays(cluster.view, other) else (me, other)
        near = {me, lost or me}
        if survivor == me and choose_backup(cluster.view, key, zone=cluster.zone, without=near, near=near) is None:
            return False
        result = yield from moved(cluster, key, record.epoch, survivor, lost)
        match result:
            case None:
                return False
            case (Placement(owners=owners), Record() as made) if me not in owners:
                yield from _left_to(me, survivor, key, made)
            case _ if survivor != me:
                yield from taught(key, me, survivor)
    return False


def _stays(view: View, node: str) -> bool:
    member = view.get(node)
    return member is not None and member.reachable and not member.state.departing


def _left_to(me: str, survivor: str, key: Key, made: Record) -> Operation[None]:
    """This node keeps a pointer; what was left for it there as a hint is told."""
    yield Ask(me, calls.Absorb(key, accepted(made), survivor))
    reply = yield Ask(me, calls.Export(key))
    if isinstance(reply, calls.Exported) and reply.record is not None:
        yield Ask(survivor, calls.Confirm((digest(key, reply.record),)))
