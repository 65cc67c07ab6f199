"""Who is alive, as one host sees it: a table, and pure steps on it. No step reads a clock.

A host judges others by its own heartbeats; what others say brings addresses, new members, newer incarnations and leavers,
and what a host hears about itself it refutes with a higher incarnation. Views may differ between hosts without harm:
epochs decide about data, not the view.

    alive --no answer for suspect_s, or refused--> suspect --dead_s--> dead
    suspect, dead --an answer, or a higher incarnation--> alive
    any --the node itself says so--> leaving --> left
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from ..config import Timeouts
from .node import Member, State, View

FORGOTTEN_AFTER_S = 25 * 3600.0  # as long as tombstones and pointers are kept


class Entry(NamedTuple):
    """A member and when this host heard from it last (None: never), and since when it has its state."""

    member: Member
    heard: float | None
    since: float


class Table(NamedTuple):
    """This host's own member, and the others by identity. `started`: when this host began to listen."""

    me: Member
    others: Mapping[str, Entry]
    started: float

    def view(self, now: float, timeouts: Timeouts) -> View:
        members = (self.me, *(entry.member for entry in self.others.values()))
        return View(self.me.identity, members, converged=converged(self, now, timeouts))


def new_table(me: Member, now: float) -> Table:
    return Table(me, {}, now)


def heard_from(table: Table, member: Member, now: float) -> Table:
    """`member` itself answered: alive, or leaving if it says so."""
    known = table.others.get(member.identity)
    if member.identity == table.me.identity:
        return table  # one of the seeds is this host
    if known is not None and member.incarnation < known.member.incarnation:
        return table  # a former start of that node; what it says is out of date
    state = member.state if member.state.departing else State.ALIVE
    return _with(table, Entry(_in_state(member, state), now, _since(known, state, now)))


def told_of(table: Table, members: Iterable[Member], now: float) -> Table:
    """What another member's table says."""
    for member in members:
        if member.identity == table.me.identity:
            table = _about_me(table, member)
        else:
            table = _about_other(table, member, now)
    return table


def _about_me(table: Table, said: Member) -> Table:
    """Refutation: whoever calls me dead, or knows a later start than mine, learns of a newer incarnation."""
    mine = table.me
    wrong = said.state in (State.DEAD, State.LEFT) and not mine.state.departing
    if said.incarnation > mine.incarnation or (wrong and said.incarnation == mine.incarnation):
        return table._replace(me=msgspec.structs.replace(mine, incarnation=said.incarnation + 1))
    return table


def _about_other(table: Table, said: Member, now: float) -> Table:
    known = table.others.get(said.identity)
    if known is None:
        if said.state in (State.DEAD, State.LEFT):
            return table  # nothing to learn from the dead
        state: State = said.state if said.state.departing else State.SUSPECT  # to be confirmed by an own heartbeat
        return _with(table, Entry(_in_state(said, state), None, now))
    if said.incarnation > known.member.incarnation:
        state = said.state if said.state.departing else _confirmed_later(known)
        return _with(table, Entry(_in_state(said, state), known.heard, _since(known, state, now)))
    leaving = said.state.departing and not known.member.state.departing
    if said.incarnation == known.member.incarnation and (leaving or said.state is State.LEFT):
        return _with(table, Entry(_in_state(known.member, said.state), known.heard, _since(known, said.state, now)))
    return table


def _confirmed_later(known: Entry) -> State:
    """A new start of a node that was dead here is suspect until it answers; an alive one stays so."""
    return State.ALIVE if known.member.state is State.ALIVE else State.SUSPECT


def refused_by(table: Table, identity: str, now: float) -> Table:
    """Its port refused the connection: a process that is gone or restarting. Suspected at once."""
    known = table.others.get(identity)
    if known is None or known.member.state is not State.ALIVE:
        return table
    return _with(table, Entry(_in_state(known.member, State.SUSPECT), known.heard, now))


def tick(table: Table, now: float, timeouts: Timeouts) -> Table:
    """Let time pass: silence becomes suspicion, suspicion death; who left is forgotten when its tombstones are."""
    others = {}
    for identity, entry in table.others.items():
        if entry.member.state in (State.DEAD, State.LEFT) and now - entry.since > FORGOTTEN_AFTER_S:
            continue
        state = _aged(entry, table, now, timeouts)
        others[identity] = Entry(_in_state(entry.member, state), entry.heard, _since(entry, state, now))
    return table._replace(others=others)


def _aged(entry: Entry, table: Table, now: float, timeouts: Timeouts) -> State:
    state = entry.member.state
    silent_s = now - (entry.since if entry.heard is None else entry.heard)
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
    """Nobody is undecided, this host has listened long enough, and it is not the one that is cut off: who hears of less
    than half of those it knew cannot tell whether they are gone or it is."""
    states = [entry.member.state for entry in table.others.values()]
    decided = State.SUSPECT not in states and now - table.started > timeouts.suspect_s
    lately = [e for e in table.others.values() if e.member.state is State.ALIVE or now - e.since < FORGOTTEN_AFTER_S]
    lost = sum(e.member.state is State.DEAD for e in lately)
    present = 1 + sum(e.member.state in (State.ALIVE, State.LEAVING) for e in lately)
    return decided and present >= lost


def _in_state(member: Member, state: State) -> Member:
    return member if member.state is state else msgspec.structs.replace(member, state=state)


def _since(known: Entry | None, state: State, now: float) -> float:
    return known.since if known is not None and known.member.state is state else now


def _with(table: Table, entry: Entry) -> Table:
    return table._replace(others={**table.others, entry.member.identity: entry})
