"""The node's own process, without the network: it keeps the member table, grants and renews leases, and writes the
blackboard that the workers read. The node process and the simulation drive it."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Iterable
from typing import Final

import msgspec

from ..config import Timeouts
from ..core import gossip, membership, upkeep
from ..core.calls import Beat, Call, Heartbeat, Many, Promote, Put, Reply
from ..core.canary import is_canary
from ..core.effects import Operation, Pace, Wait
from ..core.expiry import expire
from ..core.membership import Table
from ..core.node import Member, State, View
from ..core.record import Key, Record
from ..core.repair import SINGLE, SURVEYED_AT_ONCE, owes
from ..errors import Corrupt, ShardDown, StoreFull, StoreRefused
from .barred import DROPPED_EVERY_S
from .board import Board, write_board
from .contacts import Contacts
from .host import Host
from .links import Links
from .switching import ModeSwitch

log: Final = logging.getLogger("clustersession")

MAKING_OWNERS: Final = (Put, Promote, Many)  # by these calls, or by what is in them, a host becomes an owner


class Keeper:
    """One per host. `synced`: this host may serve its copies by itself. `chance` decides whom to ask next of the members
    that it has nothing to do with; without it that follows from who this host is. `seeking`: the settings name others."""

    def __init__(
        self,
        host: Host,
        me: Member,
        timeouts: Timeouts,
        chance: random.Random | None = None,
        switch: ModeSwitch | None = None,
        *,
        seeking: bool = False,
    ) -> None:
        self.host, self._timeouts, self.switch = host, timeouts, switch
        self.links = Links()
        self._contacts = Contacts(host.store, chance or random.Random(f"{me.identity} {me.incarnation}"))  # noqa: S311  (no secret)
        self._turn = self._present = 0
        self._drop_hints_at = 0.0
        now = host.clock()
        former = host.board
        self.table: Table = membership.told_of(membership.new_table(me, now, seeking=seeking), former.members, now)
        self.synced = False  # however quick the start was: whoever called meanwhile was refused, and went on without this host
        self._leases: dict[str, float] = {}
        self._last_tick = self._in_touch = now
        self._watch(now)
        self._publish(now)

    # --- what it knows --------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        return self.table.me

    def introduce(self, member: Member) -> None:
        """A seed of the settings, or what a discovery found."""
        now = self.host.clock()
        self.table = membership.told_of(self.table, (member,), now)
        self._watch(now)

    @property
    def seeking(self) -> bool:
        """Whether it looks for others that its settings name, and has met none of them yet."""
        return self.table.seeking

    def found_to_be_alone(self) -> None:
        """Wherever its settings name somebody, it has met itself."""
        self.table = self.table._replace(seeking=False)

    def view(self) -> View:
        return self.table.view(self.host.clock(), self._timeouts)

    @property
    def settled(self) -> bool:
        """Every member that is watched has answered or is known not to: a sync can begin."""
        return all(self.table.others[name].member.state is not State.SUSPECT for name in self.table.watched)

    def peers(self) -> list[Member]:
        """Whom to send heartbeats to this time: those watched, and a few others in turn, the dead too: they may be back."""
        chosen = self.table.watched.keys() | self._contacts.drawn(self.table)
        return [entry.member for identity, entry in self.table.others.items() if identity in chosen]

    @property
    def leaving(self) -> bool:
        return self.table.me.state.departing

    @property
    def may_repair(self) -> bool:
        """A host that has not synced, or may itself be the one that is cut off, changes no owners on its own account."""
        return self.synced and membership.converged(self.table, self.host.clock(), self._timeouts)

    @property
    def has_successor(self) -> bool:
        """Whether another node can take over what this one has, now or perhaps in a moment."""
        return any(e.member.state in (State.ALIVE, State.SUSPECT) for e in self.table.others.values())

    @property
    def heartbeat_s(self) -> float:
        return self._timeouts.heartbeat_s

    def states(self) -> frozenset[tuple[str, State]]:
        """What decides whether sessions of this host have the owners they need: when it changes, some may need others."""
        return self._contacts.states(self.table, self.host.clock())

    def surveyed(self, others: Iterable[str], began: float) -> None:
        """A pass over all sessions that began then has found these nodes to share some of them."""
        self._contacts.surveyed(others, began)

    def count_owed(self) -> Operation[int]:
        """How many sessions would have fewer than two copies without this node; it looks at all of them."""
        owed, after = 0, None
        while batch := self.host.survey(after, SURVEYED_AT_ONCE):
            view = self.view()
            owed += sum(owes(record, view, leaving=True) for _, record in batch)
            after = batch[-1][0]
            yield Wait(0.0)
        return owed

    def leave(self) -> None:
        """From now on this node takes nothing new, and says so."""
        self._in_state(State.LEAVING)

    def left(self) -> None:
        """Its last word: nobody shall wait for it."""
        self._in_state(State.LEFT)

    def _in_state(self, state: State) -> None:
        self.table = self.table._replace(me=msgspec.structs.replace(self.table.me, state=state))
        self._publish(self.host.clock())

    # --- time -----------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Called several times a second. Notices that this process was paused: then it knows nothing for sure."""
        now = self.host.clock()
        if now - self._last_tick > self._timeouts.lease_s:
            self.unsync()
            self.table = membership.after_pause(self.table, now)
        self._last_tick = now
        self.table = membership.tick(self.table, now, self._timeouts)
        self._contacts.look_for_hints(self.table)
        self._watch(now)
        self._publish(now)

    def _watch(self, now: float) -> None:
        """Members or reasons may have changed: watch whom this host has to do with now."""
        watched = self._contacts.watched(self.table, now, self._timeouts.dead_s)
        self.table = membership.watching(self.table, watched, now)
        self._present = gossip.present(self.table)

    def unsync(self) -> None:
        """From now on nothing is served locally until the next sync is complete."""
        self.synced = False
        self._leases = {}

    def sync_done(self) -> None:
        self.synced = True
        self._publish(self.host.clock())

    def _publish(self, now: float) -> None:
        members = (self.table.me, *(entry.member for entry in self.table.others.values()))
        leases = {identity: until for identity, until in self._leases.items() if until > now}
        signing = self._signing_kid(members)
        converged = membership.converged(self.table, now, self._timeouts)
        write_board(self.host.store, Board(members, leases, self.synced, now, converged, self.table.me.incarnation, signing))

    def _signing_kid(self, members: tuple[Member, ...]) -> int | None:
        """The first of this node's keys that every reachable member has announced."""
        others = {m.kids for m in members if m.kids and m.reachable}  # nearly always the same of all
        return next((kid for kid in self.table.me.kids if all(kid in kids for kids in others)), None)

    def announce(self, kids: tuple[int, ...]) -> None:
        """The keys of the ring that this host has, in the order it would sign with them. As news they need a new incarnation."""
        me = self.table.me
        if kids != me.kids:
            self.table = self.table._replace(me=msgspec.structs.replace(me, kids=kids, incarnation=me.incarnation + 1))

    # --- heartbeats -----------------------------------------------------------------------------------------------------

    def beat(self, peer: str) -> Operation[upkeep.Heard | upkeep.Silent]:
        return upkeep.beat(self.host.me, peer, lambda: self.heartbeat(peer), self.host.bars.tally)

    def heartbeat(self, peer: str = "") -> Heartbeat:
        """What to say to `peer`, or to a stranger."""
        now, wanted = self.host.clock(), self._contacts.wants(peer)
        return Heartbeat(self.table.me, self._told(peer, now), now, wanted=wanted, knows=self._present)

    def _told(self, peer: str, now: float) -> tuple[Member, ...]:
        self._turn += 1
        return gossip.told(self.table, peer, self._turn, now)

    def after_beat(self, peer: str, sent: float, outcome: upkeep.Heard | upkeep.Silent) -> None:
        """What a heartbeat that began at `sent` has brought. A lease counts from when it was sent."""
        now = self.host.clock()
        if isinstance(outcome, upkeep.Heard):
            self._contacts.answered(peer)
            self.links.tried(peer, now, None)
            self._heard(outcome.sender, outcome.members, now)
            if self.switch is not None and self.switch.take(outcome.switch):
                log.info("the cluster was switched to mode %s", self.switch.current())
            if outcome.told_all and outcome.sender.identity == peer:
                self._leases[peer] = max(self._leases.get(peer, 0.0), sent + self._timeouts.lease_s)
        else:
            self._contacts.gave_no_answer(peer)
            self.links.tried(peer, now, outcome.why)
            if outcome.why == "refused":
                self.table = membership.refused_by(self.table, peer, now)

    def _heard(self, sender: Member, members: tuple[Member, ...], now: float) -> None:
        me = self.table.me
        if now - self._in_touch > self._timeouts.lease_s and not membership.converged(self.table, now, self._timeouts):
            self.unsync()  # most were gone for this host: it was cut off, whatever the first that it hears knows of it
        self.table = membership.heard_from(self.table, sender, now)
        self.table = membership.told_of(self.table, members, now, sender.identity)
        if self.table.me.incarnation != me.incarnation and any(_takes_for_dead(said, me) for said in members):
            self._taken_for_dead(sender.identity, now)
        others = self.table.others
        if [m for m in (sender, *members) if m.identity in others and others[m.identity].changed == now]:
            self._watch(now)
        self._in_touch = now

    def _taken_for_dead(self, by: str, now: float) -> None:
        """Others may have taken over. Was it this node that was cut off, it knows nothing for sure; else its lease with
        who says so ends, and comes back with the hints that were left there."""
        if now - self._in_touch > self._timeouts.lease_s:
            self.unsync()
        else:
            self._leases.pop(by, None)

    def on_call(self, call: Call, source: str | None) -> Reply:
        """Answer a peer. Everything but heartbeats is a matter of the store alone."""
        if isinstance(call, Heartbeat):
            return self._on_heartbeat(call)
        if isinstance(call, MAKING_OWNERS):
            self._contacts.share_with(_new_fellow_owners(call, self.me.identity), self.host.clock())
        return self.host.handle(call, source)

    def _on_heartbeat(self, call: Heartbeat) -> Beat:
        now, peer = self.host.clock(), call.sender.identity
        self.links.called(peer, now)
        if call.wanted:
            self._contacts.called_by(peer, now)
        self._heard(call.sender, call.members, now)
        hints = tuple(self._hints(peer, call.hints_max))
        pending = max(0, self.host.store.hint_count(peer) - len(hints))
        told = gossip.whole(self.table) if call.knows + gossip.SAMPLE < self._present else self._told(peer, now)
        switch = b"" if self.switch is None else self.switch.statement
        return Beat(self.table.me, told, hints, pending, now, self.host.bars.tally().digest(), switch)

    def _hints(self, peer: str, limit: int) -> list[tuple[Key, Record]]:
        """The records that `peer` must be told of. A hint without a readable record has nothing to tell."""
        found = []
        for key, _ in self.host.store.hints(peer, limit):
            try:
                record = self.host.record(key)
            except Corrupt:
                record = None
            if record is None:
                self.host.unhint(peer, key)
            else:
                found.append((key, record))
        return found

    def sync(self, pace: Pace | None = None) -> Operation[bool]:
        """Without a `pace` as quickly as can be: this host serves nothing by itself until it is over."""
        if not (yield from upkeep.heard_of_bars(self.view(), self.host.bars.tally)):
            return False
        clock = self.host.clock
        at_once = Pace(clock, lambda: 1.0)
        return (yield from upkeep.sync(self.view, lambda owners: self._contacts.share_with(owners, clock()), pace or at_once))

    def sweep(self, limit: int) -> Operation[int]:
        """End what has expired and drop what is old, up to `limit` keys; how many were looked at."""
        self.host.bars.drop_old()
        self._drop_hints(limit)
        count, overdue = self.host.sweep(limit)
        yield from expire(self.host.me, overdue)
        return count

    def _drop_hints(self, limit: int) -> None:
        """Now and then those of former members: who comes back after as long a time has nothing of what they are about."""
        now = self.host.clock()
        if now >= self._drop_hints_at:
            known = {SINGLE, *self.table.others}
            with contextlib.suppress(ShardDown, StoreFull, StoreRefused):
                dropped = self.host.store.drop_hints(known, now - membership.FORGOTTEN_AFTER_S, limit)
                self._drop_hints_at = now if dropped else now + DROPPED_EVERY_S


def _takes_for_dead(said: Member, me: Member) -> bool:
    """Not who only suspects: that ends with the next answer, and nobody has taken over."""
    return said.identity == me.identity and (said.state in (State.DEAD, State.LEFT) or said.incarnation > me.incarnation)


def _new_fellow_owners(call: Call, me: str) -> list[str | None]:
    """Those with which `call` makes this host an owner; the doctor's canaries are no reason to watch anybody."""
    if isinstance(call, Many):
        return [other for each in call.calls if isinstance(each, MAKING_OWNERS) for other in _new_fellow_owners(each, me)]
    if isinstance(call, Put):
        owners = () if is_canary(call.record) else call.record.owners
    else:
        owners = call.owners if isinstance(call, Promote) else ()
    return [other for other in owners if other != me] if me in owners else []
