"""Whom a host sends heartbeats to: those it has to do with all the time, and of all others a few in turn."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from ..core.membership import Table
from ..core.node import State, View
from ..core.placement import partners
from ..errors import ShardDown, StoreRefused
from ..ports import Store

GOSSIP: Final = 2  # others each time, dead ones included: so a healed cut is noticed
HINTS_LOOKED_AT: Final = 16  # others each time: whether a hint for them is kept here
REMEMBERED_S: Final = 120.0  # after a host has last had to do with a member; two surveys of its sessions


class Contacts:
    """One per host. `chance` decides in which order the others are asked."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self._store, self._chance = store, chance
        self._sharing: dict[str, float] = {}  # since when it is known that sessions are shared with them
        self._callers: dict[str, float] = {}  # when they last said that they watch this host
        self._silent: set[str] = set()  # others that gave no answer when their turn came
        self._hinted: set[str] = set()
        self._near: frozenset[str] = frozenset()
        self._near_at: dict[str, float] = {}
        self._turns: list[str] = []
        self._looked_at = 0

    # --- what is learnt --------------------------------------------------------------------------------------------------

    def share_with(self, others: Iterable[str | None], now: float) -> None:
        """Sessions are shared with these too."""
        self._sharing |= {other: now for other in others if other is not None}

    def surveyed(self, found: Iterable[str], began: float) -> None:
        """A survey of all sessions, begun at `began`, found exactly these; what was learnt meanwhile stays."""
        self._sharing = {o: at for o, at in self._sharing.items() if at >= began} | dict.fromkeys(found, began)

    def called_by(self, peer: str, now: float) -> None:
        self._callers[peer] = now

    def answered(self, peer: str) -> None:
        self._silent.discard(peer)

    def gave_no_answer(self, peer: str) -> None:
        self._silent.add(peer)

    # --- what follows ----------------------------------------------------------------------------------------------------

    def wants(self, peer: str) -> bool:
        """Whether this host has reasons of its own to watch `peer`, so that `peer` shall do the same."""
        return peer in self._near

    def watched(self, table: Table, now: float, patience_s: float) -> list[str]:
        """Whom to judge by own heartbeats. Callers are forgotten after `patience_s`; who is undecided is watched on."""
        view = View(table.me.identity, (table.me, *(entry.member for entry in table.others.values())))
        self._near = partners(view, table.me.identity) | self._sharing.keys() | self._hinted
        self._callers = {peer: at for peer, at in self._callers.items() if now - at <= patience_s}
        close = self._near | self._callers.keys()
        self._near_at |= dict.fromkeys(close, now)
        undecided = {n for n in table.watched if table.others[n].member.state in (State.SUSPECT, State.LEAVING)}
        wanted = close | self._silent | undecided
        found = [name for name, entry in table.others.items() if name in wanted and entry.member.reachable]
        self._silent &= set(found)
        return found

    def states(self, table: Table, now: float) -> frozenset[tuple[str, State]]:
        """Who is gone, or may be, of those that this host had to do with then, and whether anybody can take copies."""
        gone = {
            (name, table.others[name].member.state)
            for name in self._near_at
            if name in table.others and table.others[name].member.state is not State.ALIVE
        }
        old = [name for name, at in self._near_at.items() if now - at > REMEMBERED_S]
        for name in set(old) - {name for name, _ in gone} if old else ():
            del self._near_at[name]
        able = State.ALIVE in [entry.member.state for entry in table.others.values()]
        return frozenset(gone | {("", State.ALIVE)} if able else gone)

    def drawn(self, table: Table) -> set[str]:
        """A few of those that are not watched and have not left: each has its turn before any has another. And each time the
        dead with which sessions are shared, or for which hints are kept: they are awaited."""
        others = {n for n, e in table.others.items() if n not in table.watched and e.member.state is not State.LEFT}
        awaited = others & (self._sharing.keys() | self._hinted)
        others -= awaited
        drawn: set[str] = set()
        while len(drawn) < min(GOSSIP, len(others)):
            if not self._turns:
                self._turns = sorted(others - drawn)
                self._chance.shuffle(self._turns)
            name = self._turns.pop()
            drawn |= {name} & others
        return drawn | awaited

    def look_for_hints(self, table: Table) -> None:
        """Whoever has hints here is to fetch them soon. The others are looked through in turn."""
        others = [n for n, e in table.others.items() if e.member.state is not State.LEFT and n not in self._hinted]
        first = self._looked_at % max(1, len(others))
        self._looked_at = first + HINTS_LOOKED_AT
        self._hinted = {
            n for n in {*self._hinted, *others[first : first + HINTS_LOOKED_AT]} & table.others.keys() if self._has_hints(n)
        }

    def _has_hints(self, name: str) -> bool:
        try:
            return self._store.hint_count(name) > 0
        except (ShardDown, StoreRefused):
            return False  # asked again with the next round
