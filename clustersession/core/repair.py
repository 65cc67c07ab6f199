"""Repair and drain: a session that has lost an owner, or is about to, gets another pair of owners (design.md 9).

Both are changes of owners as requests make them too (`operations.moving`), only that nobody waits for them: at once, without
traffic, many sessions in one message, logged-in and recently used ones first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from . import calls
from .effects import Ask, Operation, Pace, Wait
from .node import View
from .operations.moving import moved, taught
from .operations.outcome import Cluster, Placement
from .placement import choose_backup, is_crowded
from .record import Key, Owners, Record, accepted, is_live, other_of
from .together import Crew, together
from .upkeep import given

SINGLE: Final = ""  # nobody's identity: what is hinted for it has only one owner, and waits for a second one
STEPS_MAX: Final = 4
STARTED_AT_ONCE: Final = 32
VAIN_MAX: Final = 64
SURVEYED_AT_ONCE: Final = 16
RECENT_S: Final = 900.0

Owed: TypeAlias = tuple[Key, Placement]
"""A session that needs other owners, and those that it had when that was seen."""

Survey = Callable[[Key | None, int], list[tuple[Key, Record | None]]]
"""The next so many keys of this host after one, with what it holds under them (None: nothing that can be read)."""


class Surroundings(NamedTuple):
    """What repair needs to know, as it is at the moment of asking."""

    cluster: Callable[[], Cluster]
    survey: Survey
    leaving: Callable[[], bool]  # this node hands over all it has
    pace: Pace  # its clock is this host's; a pass takes too long for one `now`


class Progress:
    """`owed`: sessions that still need this node for their second copy, as far as surveyed; None before the first survey.
    `shared`: the nodes with which this one shares sessions, as the last survey found them. `crowded`: sessions of which it is
    the master and both copies are in one zone."""

    def __init__(self) -> None:
        self.owed: int | None = None
        self.moved = 0
        self.crowded: list[Owed] = []
        self.shared: frozenset[str] = frozenset()


def owes(record: Record | None, view: View, *, leaving: bool) -> bool:
    """Whether this node has to see to it that two others, or it and another, hold the session."""
    return record is not None and not record.pointer and owes_of(record.owners, view, leaving=leaving)


def owes_of(owners: Owners, view: View, *, leaving: bool) -> bool:
    """The same of one that these nodes own."""
    if view.me not in owners:
        return False
    other = other_of(owners, view.me)
    if leaving:
        return True
    if other is None:
        return any(member.recruitable and member.identity != view.me for member in view.members.values())
    return view.departed(other)


def mark(record: Record, me: str) -> tuple[str, ...]:
    """The hint by which a node finds a session again that nobody but it holds, without looking at all it has. Whoever made it
    single, in whatever process, may have had an older view of the members than the last pass of repair."""
    return (SINGLE,) if record.owners == (me, None) and not record.pointer else ()


def doubled(at: Surroundings, keys: Sequence[Key]) -> Operation[None]:
    """Bring sessions with one owner to a second one, as far as it can be done now."""
    cluster, crew, first = at.cluster(), Crew[bool](), 0
    while crew or first < len(keys):
        crew.start(placed_anew(cluster, key, None, leaving=False) for key in keys[first : first + STARTED_AT_ONCE])
        first += STARTED_AT_ONCE
        yield from crew.round()


def repair(at: Surroundings, progress: Progress) -> Operation[bool]:
    """One pass over all that this host holds. Whether nothing is owed any more; it is given up when this node begins to leave."""
    leaving = at.leaving()
    owed = yield from _surveyed(at, progress, leaving=leaving)
    left_over = yield from _mended(at, progress, owed, leaving=leaving)
    if at.leaving() != leaving:
        return False
    if leaving and owed:
        return False  # others may have handed over to this node meanwhile: done is what finds nothing to do
    progress.owed = left_over
    return left_over == 0


def spread(at: Surroundings, progress: Progress) -> Operation[None]:
    """Bring one copy of each crowded session to another zone. Nothing is owed: this ends with the first that cannot be moved,
    until the next survey finds them again."""
    crowded, progress.crowded = progress.crowded, []
    for first in range(0, len(crowded), STARTED_AT_ONCE):
        began, cluster = at.pace.clock(), at.cluster()
        done = yield from together([_parted(cluster, *each) for each in crowded[first : first + STARTED_AT_ONCE]])
        progress.moved += sum(done)
        if at.leaving() or not all(done):
            return
        yield at.pace.rest(began)


def _parted(cluster: Cluster, key: Key, seen: Placement) -> Operation[bool]:
    """Whether the session has its copies in two zones now, or others have seen to it."""
    if cluster.me != seen.owners[0] or not is_crowded(cluster.view, seen.owners):
        return True
    return (yield from moved(cluster, key, seen.epoch, *seen.owners)) is not None


def _mended(at: Surroundings, progress: Progress, owed: Sequence[Owed], *, leaving: bool) -> Operation[int]:
    """Place them anew, some at each step at any time, so that this host and the others always have something to do. How many
    could not be placed."""
    crew, started, left_over, in_vain = Crew[bool](), 0, 0, 0
    while crew or (started < len(owed) and at.leaving() == leaving):
        began, cluster = at.pace.clock(), at.cluster()
        if at.leaving() == leaving:
            some = owed[started : started + STARTED_AT_ONCE]
            crew.start(placed_anew(cluster, key, seen, leaving=leaving) for key, seen in some)
            started += len(some)
        for _, done in (yield from crew.round()):
            progress.moved += done
            left_over += not done
            in_vain = 0 if done else in_vain + 1
        progress.owed = len(owed) - started + len(crew) + left_over
        if in_vain >= VAIN_MAX or (in_vain and not crew and started == len(owed)):
            in_vain = 0
            yield Wait(1.0)  # nobody can take anything at this moment
        yield at.pace.rest(began)
    return left_over


def _surveyed(at: Surroundings, progress: Progress, *, leaving: bool) -> Operation[list[Owed]]:
    """What is owed, in the order of its worth: logged in and in use, logged in, in use, the rest."""
    found: tuple[list[Owed], ...] = ([], [], [], [])
    progress.crowded = []
    shared: set[str | None] = set()
    after: Key | None = None
    while True:
        now = at.pace.clock()
        batch, view = at.survey(after, SURVEYED_AT_ONCE), at.cluster().view
        if not batch:
            break
        for key, record in batch:
            if record is not None and not record.pointer and view.me in record.owners:
                shared.add(record.other(view.me))
                if record.master == view.me and is_live(record) and is_crowded(view, record.owners):
                    progress.crowded.append((key, Placement(record.epoch, record.owners)))
            if record is not None and owes(record, view, leaving=leaving):
                found[_turn(record, now)].append((key, Placement(record.epoch, record.owners)))
        after = batch[-1][0]
        yield at.pace.rest(now)
    progress.shared = frozenset(other for other in shared if other is not None)
    return [owed for each in found for owed in each]


def _turn(record: Record, now: float) -> int:
    if not is_live(record):
        return 0  # few and small, and a logout must stay one
    recent = now - record.last_seen < RECENT_S
    return (0 if recent else 1) if record.principal is not None else (2 if recent else 3)


def placed_anew(cluster: Cluster, key: Key, seen: Placement | None, *, leaving: bool) -> Operation[bool]:
    """Bring one session to two owners without those that are gone, and without this node if it leaves. Whether it is. `seen`: its
    owners when it was looked at last; if it has others now, the change of owners is refused and it is looked at again."""
    me, view, missed = cluster.me, cluster.view, False
    if seen is not None and not owes_of(seen.owners, view, leaving=leaving):
        seen = None
    for _ in range(STEPS_MAX):
        if seen is None:
            reply = yield Ask(me, calls.Export(key))
            record = reply.record if isinstance(reply, calls.Exported) else None
            if record is None or not owes(record, view, leaving=leaving):
                return isinstance(reply, calls.Exported)
            seen = Placement(record.epoch, record.owners)
        other = other_of(seen.owners, me)
        survivor, lost = (other, me) if leaving and other is not None and _stays(view, other) else (me, other)
        near = {me, lost or me}
        if survivor == me and choose_backup(view, key, without=near, near=near) is None:
            return False
        result = yield from moved(cluster, key, seen.epoch, survivor, lost)
        match result:
            case None:
                # the other owner may have nothing: a session whose first write reached this node only
                if survivor == me or missed or not (yield from given(me, survivor, key)):
                    return False
                missed = True
            case (Placement(owners=owners), Record() as made) if me not in owners:
                if (yield from _left_to(me, survivor, key, made)):
                    return True
            case (Placement(owners=(_, str())), Record()) if survivor == me and not leaving:
                return True
            case _ if survivor != me:
                yield from taught(key, me, survivor)
        seen = None
    return False


def _stays(view: View, node: str) -> bool:
    member = view.get(node)
    return member is not None and member.reachable and not member.state.departing


def _left_to(me: str, survivor: str, key: Key, made: Record) -> Operation[bool]:
    """This node keeps a pointer, which is told to the survivor, so that its hint goes. Whether that is all this node has."""
    reply = yield Ask(me, calls.Absorb(key, accepted(made), survivor))
    held = reply.digest if isinstance(reply, calls.Absorbed) else None
    if held is None:
        return False
    yield Ask(survivor, calls.Confirm((held,)))
    return me not in held.owners
