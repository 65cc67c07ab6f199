"""Who is alive, as one host sees it: a table, and pure steps on it. No step reads a clock.

A host watches some members by its own heartbeats, and judges those that have answered by nothing else:

    alive --no answer for suspect_s, or refused--> suspect --dead_s--> dead
    suspect, dead --an answer--> alive
    any --the node itself says so--> leaving --> left

What others say brings addresses, new members, newer incarnations and leavers, and decides about the rest:
within one incarnation dead comes before suspect before alive, and it takes two that say so, since one may have lost no more
than its own link. What a host hears about itself it refutes with a higher incarnation. Nobody lives on hearsay for ever:
every host asks each member itself in turn, and watches who gives no answer until it does or is dead. Views may differ
between hosts without harm: epochs decide about data, not the view.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from ..config import Timeouts
from .node import Member, State, View

FORGOTTEN_AFTER_S = 25 * 3600.0  # as long as tombstones and pointers are kept
SETTLED_AFTER_S: Final = 60.0  # far longer than those behind one cut need to be declared dead one after the other
NOBODY: Final[Mapping[str, State]] = {}
WORSE: Final = (State.ALIVE, State.SUSPECT, State.DEAD)


class Entry(NamedTuple):
    """A member and when this host heard from it last (None: never), since when it has its state, when anything about it
    changed here, and who says of this start of it that it is suspect or dead. `settled`: its death was seen while most of
    the others were there, so it says nothing about this host any more."""

    member: Member
    heard: float | None
    since: float
    changed: float = float("-inf")
    doubts: Mapping[str, State] = NOBODY
    settled: bool = False

    @property
    def confirmed(self) -> bool:
        """Whether it has its state by an answer to this host."""
        return self.heard is not None and self.heard >= self.since


class Table(NamedTuple):
    """This host's own member, and the others by identity. `started`: when this host began to listen. `watched`: the members
    that it judges by its own heartbeats, since when. `seeking`: its settings name others, and it has met none of them yet."""

    me: Member
    others: Mapping[str, Entry]
    started: float
    watched: Mapping[str, float] = {}
    seeking: bool = False

    def answered(self, identity: str) -> bool:
        """Whether a watched member has answered since it is watched."""
        heard = self.others[identity].heard
        return heard is not None and heard >= self.watched[identity]

    def view(self, now: float, timeouts: Timeouts) -> View:
        members = (self.me, *(entry.member for entry in self.others.values()))
        return View(self.me.identity, members, converged=converged(self, now, timeouts))


def new_table(me: Member, now: float, *, seeking: bool = False) -> Table:
    return Table(me, {}, now, seeking=seeking)


def heard_from(table: Table, member: Member, now: float) -> Table:
    """`member` itself answered: alive, or leaving if it says so."""
    known = table.others.get(member.identity)
    if member.identity == table.me.identity:
        return table  # one of the seeds is this host
    if known is not None and member.incarnation < known.member.incarnation:
        return table  # a former start of that node; what it says is out of date
    state = member.state if member.state.departing else State.ALIVE
    return _with(table, _in_state(member, state), now, heard=now, doubts=NOBODY)


def told_of(table: Table, members: Iterable[Member], now: float, by: str = "") -> Table:
    """What the table of `by` says."""
    for member in members:
        if member.identity == table.me.identity:
            table = _about_me(table, member)
        elif member.state is not State.ALIVE or _is_news(table.others.get(member.identity), member):
            table = _about_other(table, member, by, now)
    return table


def _is_news(known: Entry | None, alive: Member) -> bool:
    """Whether it tells anything that this member lives. Hardly ever, and nearly all that is told is of this kind."""
    return known is None or alive.incarnation > known.member.incarnation


def _about_me(table: Table, said: Member) -> Table:
    """Refutation: whoever doubts that I am alive, or knows a later start than mine, learns of a newer incarnation."""
    mine = table.me
    wrong = said.state in (State.SUSPECT, State.DEAD, State.LEFT) and not mine.state.departing
    if said.incarnation > mine.incarnation or (wrong and said.incarnation == mine.incarnation):
        return table._replace(me=msgspec.structs.replace(mine, incarnation=said.incarnation + 1))
    return table


def _about_other(table: Table, said: Member, by: str, now: float) -> Table:
    known = table.others.get(said.identity)
    doubts = {by: said.state} if said.state in (State.SUSPECT, State.DEAD) else NOBODY
    if known is None:
        if said.state in (State.DEAD, State.LEFT):
            return table  # nothing to learn from the dead
        return _with(table, said, now, doubts=doubts)
    if said.incarnation > known.member.incarnation:
        return _with(table, _in_state(said, _of_a_later_start(table, known, said)), now, doubts=doubts)
    if said.incarnation < known.member.incarnation:
        return table
    leaving = said.state.departing and not known.member.state.departing
    if leaving or said.state is State.LEFT:
        return _with(table, _in_state(known.member, said.state), now)
    judged_here = said.identity in table.watched and table.answered(said.identity)
    if not doubts or judged_here or known.member.state not in WORSE:
        return table
    doubts = {**known.doubts, by: _worse(said.state, known.doubts.get(by, State.ALIVE))}
    return _with(table, _in_state(known.member, _worse(known.member.state, _second(doubts))), now, doubts=doubts)


def _of_a_later_start(table: Table, known: Entry, said: Member) -> State:
    """Whom this host watches, and has not heard from, is suspect until it answers; of others it takes the word."""
    before = known.member.state
    if said.state.departing:
        return said.state
    if said.identity in table.watched:
        return State.ALIVE if before is State.ALIVE else State.SUSPECT
    return State.ALIVE if said.state is State.ALIVE else before if before in WORSE else State.SUSPECT


def _worse(one: State, other: State) -> State:
    return max(one, other, key=WORSE.index)


def _second(doubts: Mapping[str, State]) -> State:
    """What at least two say."""
    said = sorted(doubts.values(), key=WORSE.index)
    return said[-2] if len(said) > 1 else State.ALIVE


def watching(table: Table, identities: Collection[str], now: float) -> Table:
    """From now on judge exactly these by own heartbeats. Whose state is hearsay is suspect until it answers."""
    before = table.watched
    watched = {name: before.get(name, now) for name in identities if name in table.others}
    if watched == before:
        return table
    table = table._replace(watched=watched)
    for name in table.watched:
        entry = table.others[name]
        if name not in before and entry.member.state is State.ALIVE and not entry.confirmed:
            table = _with(table, _in_state(entry.member, State.SUSPECT), now, doubts=NOBODY)
    return table


def refused_by(table: Table, identity: str, now: float) -> Table:
    """Its port refused the connection: a process that is gone or restarting. Suspected at once."""
    known = table.others.get(identity)
    if known is None or known.member.state is not State.ALIVE:
        return table
    return _with(table, _in_state(known.member, State.SUSPECT), now)


def tick(table: Table, now: float, timeouts: Timeouts) -> Table:
    """Let time pass: the silence of who is watched becomes suspicion, suspicion death; who is dead or left is forgotten when
    its tombstones are."""
    others = {
        identity: entry
        for identity, entry in table.others.items()
        if now - entry.since <= FORGOTTEN_AFTER_S or entry.member.reachable
    }
    if len(others) < len(table.others):
        table = table._replace(others=others, watched={name: since for name, since in table.watched.items() if name in others})
    for identity, since in table.watched.items():
        entry = others[identity]
        silent_s = now - (since if entry.heard is None else max(since, entry.heard))
        state = _aged(entry.member.state, silent_s, timeouts)
        if state is not entry.member.state:
            table = _with(table, _in_state(entry.member, state), now)
    return _settled(table, now, timeouts)


def _settled(table: Table, now: float, timeouts: Timeouts) -> Table:
    """A rollout kills every node in turn, perhaps twice a day, and never more than half at once: whose death was seen with
    most of the others present is not counted again when the next one dies."""
    dead = [(name, entry) for name, entry in table.others.items() if entry.member.state is State.DEAD and not entry.settled]
    old = {name: entry._replace(settled=True) for name, entry in dead if now - entry.since > SETTLED_AFTER_S}
    return table._replace(others={**table.others, **old}) if old and converged(table, now, timeouts) else table


def _aged(state: State, silent_s: float, timeouts: Timeouts) -> State:
    if state in (State.ALIVE, State.SUSPECT, State.LEAVING) and silent_s > timeouts.dead_s:
        return State.DEAD if state is not State.LEAVING else State.LEFT
    if state is State.ALIVE and silent_s > timeouts.suspect_s:
        return State.SUSPECT
    return state


def after_pause(table: Table, now: float) -> Table:
    """This host was paused: that nobody was heard says nothing about them. Their clocks start anew."""
    others = {
        identity: entry._replace(heard=now if entry.heard is not None and entry.member.reachable else entry.heard)
        for identity, entry in table.others.items()
    }
    return table._replace(others=others)


def converged(table: Table, now: float, timeouts: Timeouts) -> bool:
    """Nobody that this host watches is undecided, it has listened long enough, and it is not the one that is cut off: who
    hears of less than half of those it knew cannot tell whether they are gone or it is, and who finds none of those that it
    seeks not whether there are any."""
    if now - table.started <= (SETTLED_AFTER_S if table.seeking else timeouts.suspect_s):
        return False
    others, alive, suspect = table.others, State.ALIVE, State.SUSPECT
    for name, since in table.watched.items():
        entry = others[name]
        state = entry.member.state
        if state is suspect or (state is alive and (entry.heard is None or entry.heard < since)):
            return False
    lost, present = 0, 1
    for entry in others.values():
        state = entry.member.state
        if state is alive:
            present += 1
        elif now - entry.since < FORGOTTEN_AFTER_S:
            lost += state is State.DEAD and not entry.settled
            present += state is State.LEAVING
    return present >= lost


def _in_state(member: Member, state: State) -> Member:
    return member if member.state is state else msgspec.structs.replace(member, state=state)


def _with(
    table: Table, member: Member, now: float, *, heard: float | None = None, doubts: Mapping[str, State] | None = None
) -> Table:
    """`heard`, `doubts`: None leaves them as they are."""
    known = table.others.get(member.identity)
    if known is None:
        entry = Entry(member, heard, now, now, NOBODY if doubts is None else doubts)
    else:
        entry = Entry(
            member,
            known.heard if heard is None else heard,
            known.since if known.member.state is member.state else now,
            known.changed if known.member == member else now,
            known.doubts if doubts is None else doubts,
            known.settled and member.state is State.DEAD,
        )
    return Table(table.me, {**table.others, member.identity: entry}, table.started, table.watched, seeking=False)
