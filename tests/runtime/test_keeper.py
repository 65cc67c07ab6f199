"""The node process without its network: leases, pauses, take-overs and the blackboard that the workers read."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

import pytest

from clustersession.core import calls
from clustersession.core.effects import Ask, Operation, Wait
from clustersession.core.membership import FORGOTTEN_AFTER_S
from clustersession.core.node import Member, State
from clustersession.core.record import Record, live_items
from clustersession.core.repair import SINGLE
from clustersession.core.upkeep import Heard, Silent
from clustersession.errors import ShardDown, StoreFull, StoreRefused
from clustersession.ports import Store
from clustersession.runtime.barred import DROPPED_EVERY_S
from clustersession.runtime.board import NAME
from clustersession.runtime.host import Host
from clustersession.runtime.keeper import Keeper
from clustersession.store.memory import MemoryStore
from clustersession.testing.simulated import World

from ..core.records import KEY, member, patch, record, tombstone
from .hosts import START, TIMEOUTS, Clock, Fixture

T = TypeVar("T")
ME, B, C = member("a", kids=(2, 1)), member("b", kids=(2, 1)), member("c", kids=(1,))
LEASE_S = TIMEOUTS.lease_s
KEY2 = b"2" * 16


class Node:
    """One host with its keeper; a start of another process takes the same store."""

    def __init__(self, me: Member = ME, *, clock: Clock | None = None, store: Store | None = None) -> None:
        self.fixture = Fixture(store=store)
        self.clock = self.fixture.clock = clock or self.fixture.clock
        self.fixture.host.clock = self.clock
        self.fixture.host.me = me.identity
        self.keeper = Keeper(self.fixture.host, me, TIMEOUTS)

    @property
    def host(self) -> Host:
        return self.fixture.host

    def restarted(self, after: float) -> Node:
        self.clock.now += after
        return Node(self.keeper.me, clock=self.clock, store=self.fixture.store)


def met(*nodes: Node) -> None:
    """Everybody has heard of everybody."""
    for one in nodes:
        for other in nodes:
            if one is not other:
                one.keeper.after_beat(other.keeper.me.identity, one.clock(), Heard(other.keeper.me, (), told_all=False))


def run(node: Node, operation: Operation[T], *others: Node) -> T:
    """As a driver does: own calls to the own store, the others' to their keepers; who is not given is silent."""
    by_name = {other.keeper.me.identity: other for other in others}
    answer: Any = None
    try:
        while True:
            effect = operation.send(answer)
            if isinstance(effect, Wait):
                answer = None
                continue
            assert isinstance(effect, Ask)
            if effect.node == node.host.me:
                answer = node.host.handle(effect.call)
            elif effect.node in by_name:
                answer = by_name[effect.node].keeper.on_call(effect.call, node.host.me)
            else:
                answer = calls.Unreachable("timeout")
    except StopIteration as stop:
        result: T = stop.value
        return result


def beat(node: Node, peer: Node | str, *others: Node) -> Heard | Silent:
    """One heartbeat, from sending to what it brings."""
    name = peer if isinstance(peer, str) else peer.keeper.me.identity
    sent = node.clock()
    outcome = run(node, node.keeper.beat(name), *others, *(() if isinstance(peer, str) else (peer,)))
    node.keeper.after_beat(name, sent, outcome)
    return outcome


@pytest.fixture
def pair() -> tuple[Node, Node]:
    clock = Clock()
    one, two = Node(ME, clock=clock), Node(B, clock=clock)
    met(one, two)
    for node in (one, two):
        node.keeper.tick()
        node.keeper.sync_done()
    return one, two


def leased(node: Node, peer: str = "b") -> bool:
    """As the workers see it."""
    node.keeper.tick()
    return node.host.situation().leased(peer)


# --- leases ------------------------------------------------------------------------------------------------------------------


def test_an_answered_heartbeat_gives_a_lease_from_its_sending(pair: tuple[Node, Node]) -> None:
    """What the peer could have told since then it has told; a slow answer makes the lease shorter."""
    a, b = pair
    assert not leased(a)
    sent = a.clock()
    outcome = run(a, a.keeper.beat("b"), b)
    a.clock.now += 1.0
    a.keeper.after_beat("b", sent, outcome)
    assert leased(a)
    a.clock.now = sent + LEASE_S - 0.01
    assert leased(a)
    a.clock.now = sent + LEASE_S
    assert not leased(a)


def test_an_older_heartbeat_does_not_shorten_a_lease(pair: tuple[Node, Node]) -> None:
    """Answers may arrive in any order."""
    a, b = pair
    heard = run(a, a.keeper.beat("b"), b)
    a.clock.now += 1.0
    a.keeper.tick()
    a.keeper.after_beat("b", a.clock(), heard)
    a.keeper.after_beat("b", a.clock() - 1.0, heard)
    a.clock.now += LEASE_S - 0.5
    assert leased(a)


@pytest.mark.parametrize(
    "outcome",
    [Heard(B, (), told_all=False), Heard(C, (), told_all=True), Silent("timeout"), Silent("refused")],
    ids=["not told all", "answer of another", "silent", "refused"],
)
def test_no_lease_without_everything_told_by_that_very_peer(pair: tuple[Node, Node], outcome: Heard | Silent) -> None:
    """Not for half of the hints, and not for an answer of whoever has its address now."""
    a, _ = pair
    a.keeper.after_beat("b", a.clock(), outcome)
    assert not leased(a)
    assert not leased(a, "c")


def test_a_lease_waits_for_the_hints(pair: tuple[Node, Node]) -> None:
    """What the peer kept for this host is applied before its own copy is vouched for again."""
    a, b = pair
    a.fixture.hold(KEY, record(1, 3))
    b.fixture.hold(KEY, record(2, 4, ("b", "c")), "a")
    assert beat(a, b) == Heard(b.keeper.me, (a.keeper.me,), told_all=True)
    moved = a.host.record(KEY)
    assert moved is not None
    assert (moved.pointer, moved.owners) == (True, ("b", "c"))
    assert b.fixture.store.hint_count("a") == 0
    assert leased(a)


def test_the_hints_of_an_end_reach_who_was_away(pair: tuple[Node, Node]) -> None:
    """A logout that could not be told is told with the next heartbeat."""
    a, b = pair
    a.fixture.hold(KEY, record(1, 3))
    b.host.handle(calls.Put(KEY, record(1, 3)))
    b.host.handle(calls.End(KEY, "logout", ("a", "b"), 1))
    beat(a, b)
    assert isinstance(a.host.handle(calls.Fetch(KEY, 1.0)), calls.Gone)
    assert b.fixture.store.hint_count("a") == 0


def test_a_hint_without_a_readable_record_is_dropped(pair: tuple[Node, Node]) -> None:
    """It has nothing to tell, and must not hold back the lease for ever."""
    a, b = pair
    b.host.handle(calls.LeaveHint(KEY, "a"))
    b.fixture.spoil(KEY2, "a")
    assert b.fixture.store.hint_count("a") == 2
    assert beat(a, b) == Heard(b.keeper.me, (a.keeper.me,), told_all=True)
    assert b.fixture.store.hint_count("a") == 0


def test_more_hints_than_asked_for_are_announced(pair: tuple[Node, Node]) -> None:
    """So that the lease waits for them."""
    _, b = pair
    for number in range(5):
        b.fixture.hold(bytes([number]) * 16, record(1, 3), "a")
    answer = b.keeper.on_call(calls.Heartbeat(ME, (), 0.0, hints_max=3), "a")
    assert isinstance(answer, calls.Beat)
    assert (len(answer.hints), answer.pending) == (3, 2)
    assert answer.clock == b.clock()


def test_hints_in_rounds_are_all_applied(pair: tuple[Node, Node]) -> None:
    """One heartbeat brings everything, in as many answers as it takes."""
    a, b = pair
    for number in range(600):
        key = number.to_bytes(16)
        a.fixture.hold(key, record(1, 3))
        b.fixture.hold(key, record(1, 4), "a")
    outcome = beat(a, b)
    assert isinstance(outcome, Heard)
    assert outcome.told_all
    assert b.fixture.store.hint_count("a") == 0
    newest = a.host.record((599).to_bytes(16))
    assert newest is not None
    assert newest.version == 4


# --- pauses and restarts -----------------------------------------------------------------------------------------------------


def test_a_paused_node_serves_nothing_by_itself(pair: tuple[Node, Node]) -> None:
    """It has missed what it would have been told: leases and sync are gone until the next sync."""
    a, b = pair
    beat(a, b)
    a.clock.now += LEASE_S + 0.1
    a.keeper.tick()
    assert not a.keeper.synced
    assert not a.host.situation().synced
    assert not a.host.board.leases
    a.keeper.sync_done()
    assert a.host.situation().synced


def test_who_is_not_synced_has_no_lease(pair: tuple[Node, Node]) -> None:
    """Also none that would still run: it was given for what is not known to hold any more."""
    a, b = pair
    beat(a, b)
    assert leased(a)
    a.keeper.unsync()
    assert not leased(a)


def test_a_short_pause_is_covered_by_the_leases(pair: tuple[Node, Node]) -> None:
    """They are shorter than it would have to be."""
    a, _ = pair
    a.clock.now += LEASE_S
    a.keeper.tick()
    assert a.keeper.synced


def test_a_pause_does_not_make_the_others_dead(pair: tuple[Node, Node]) -> None:
    """That nobody was heard meanwhile says nothing about them."""
    a, _ = pair
    a.clock.now += 60
    a.keeper.tick()
    assert [m.state for m in a.keeper.peers()] == [State.ALIVE]


@pytest.mark.parametrize("after", [0.1, LEASE_S])
def test_a_new_process_starts_unsynced_however_quick_it_is(pair: tuple[Node, Node], after: float) -> None:
    """Whoever called meanwhile was refused, and may have ended sessions without this host; who was known is known."""
    a, b = pair
    beat(a, b)
    a.keeper.tick()
    later = a.restarted(after)
    assert not later.keeper.synced
    assert not later.host.situation().leased("b")
    assert set(later.host.view.members) == {"a", "b"}
    assert not later.keeper.settled  # each member is to be heard by the new process first


def test_a_node_that_was_taken_for_dead_by_one_that_was_cut_off_goes_on(pair: tuple[Node, Node]) -> None:
    """It was in touch with others all the time; only its lease with who says so ends, until it has taken the hints there."""
    a, b = pair
    beat(a, b)
    accusation = member("a", State.DEAD, incarnation=a.keeper.me.incarnation)
    a.keeper.on_call(calls.Heartbeat(b.keeper.me, (accusation,), 0.0), "b")
    assert a.keeper.me.incarnation == ME.incarnation + 1
    a.keeper.tick()
    assert a.keeper.synced
    assert not leased(a)


def test_a_node_that_was_cut_off_and_taken_for_dead_must_sync(pair: tuple[Node, Node]) -> None:
    """It refutes it with a new incarnation, but others may have taken over its sessions."""
    a, b = pair
    beat(a, b)
    for _ in range(5):
        a.clock.now += 0.5
        a.keeper.tick()
    accusation = member("a", State.DEAD, incarnation=a.keeper.me.incarnation)
    a.keeper.on_call(calls.Heartbeat(b.keeper.me, (accusation,), 0.0), "b")
    assert a.keeper.me.incarnation == ME.incarnation + 1
    assert not a.keeper.synced
    assert not leased(a)
    a.keeper.sync_done()
    a.keeper.on_call(calls.Heartbeat(b.keeper.me, (accusation,), 0.0), "b")
    assert a.keeper.synced  # refuted already


def test_a_host_that_most_were_gone_for_syncs_before_it_serves_again() -> None:
    """The first that it hears need not know that it was given up. Of two hosts each goes on: neither is the smaller part."""
    for others in ((B,), (B, C)):
        a = Node()
        met(a, *(Node(each, clock=a.clock) for each in others))
        a.keeper.sync_done()
        for _ in range(10):
            a.clock.now += 0.5
            a.keeper.tick()
        assert all(a.keeper.view().departed(each.identity) for each in others)
        a.keeper.on_call(calls.Heartbeat(B, (), 0.0), "b")
        assert a.keeper.synced is (len(others) == 1)
        a.keeper.sync_done()
        a.keeper.on_call(calls.Heartbeat(B, (), 0.0), "b")
        assert a.keeper.synced  # it has been in touch since


def test_a_host_that_restarts_does_not_make_the_others_sync() -> None:
    """They missed nothing. With many sessions nobody would serve for the time of a whole sync."""
    world = World(1, 4)
    world.run(5.0)
    first, *others = world.nodes.values()
    assert all(node.keeper.synced for node in others)
    files = first.crash()
    world.run(world.now + 0.3)
    first.start(files=files)
    for _ in range(40):
        world.run(world.now + 0.025)
        assert all(node.keeper.synced for node in others)
    assert {member.state for node in others for member in node.keeper.peers()} == {State.ALIVE}


# --- members -----------------------------------------------------------------------------------------------------------------


def test_a_refused_connection_makes_a_member_suspect_at_once(pair: tuple[Node, Node]) -> None:
    """Silence has to last."""
    a, _ = pair
    a.keeper.after_beat("b", a.clock(), Silent("timeout"))
    assert a.keeper.settled
    a.keeper.after_beat("b", a.clock(), Silent("refused"))
    assert not a.keeper.settled
    assert a.keeper.peers() == [member("b", State.SUSPECT, kids=(2, 1))]


def test_silence_makes_a_member_suspect_then_dead(pair: tuple[Node, Node]) -> None:
    """As the table says, with every tick; the dead are still sent heartbeats, who left is not."""
    a, _ = pair
    states = []
    for _ in range(8):
        a.clock.now += 0.5
        a.keeper.tick()
        states.append(a.keeper.peers()[0].state.value)
    assert states == ["alive", "alive", "suspect", "suspect", "suspect", "suspect", "dead", "dead"]
    a.keeper.after_beat("b", a.clock(), Heard(member("b", State.LEFT), (), told_all=True))
    assert a.keeper.peers() == []


def test_a_seed_is_a_suspect_until_it_answers() -> None:
    """And what it tells brings the others."""
    a, b, c = Node(ME), Node(B), Node(C)
    a.keeper.introduce(member("b", incarnation=0))
    assert not a.keeper.settled
    assert a.keeper.view().members["b"].state is State.SUSPECT
    met(b, c)
    outcome = beat(a, b)
    assert outcome == Heard(B, (C, ME), told_all=True)
    assert {m.identity: m.state for m in a.keeper.peers()} == {"b": State.ALIVE, "c": State.SUSPECT}
    assert [m.identity for m in b.keeper.peers()] == ["c", "a"]


def test_a_heartbeat_tells_the_whole_table(pair: tuple[Node, Node]) -> None:
    """This host first, and its clock."""
    a, _ = pair
    assert a.keeper.heartbeat("b") == calls.Heartbeat(ME, (B,), a.clock(), wanted=True, knows=1)
    assert a.keeper.heartbeat() == calls.Heartbeat(ME, (B,), a.clock(), wanted=False, knows=1)


def test_the_board_has_what_the_workers_need(pair: tuple[Node, Node]) -> None:
    """Members, leases that still run, sync, the tick, and the key that all can verify."""
    a, b = pair
    beat(a, b)
    a.clock.now += 1.3
    a.keeper.after_beat("b", a.clock(), Heard(B, (), told_all=False))
    a.keeper.tick()
    board = a.host.board
    assert [m.identity for m in board.members] == ["a", "b"]
    assert board.leases == {"b": START + LEASE_S}
    assert (board.synced, board.tick, board.converged, board.incarnation, board.signing_kid) == (True, START + 1.3, True, 1, 2)
    a.clock.now += 0.7
    a.keeper.tick()
    assert a.host.board.leases == {}
    assert a.fixture.store.board(NAME) is not None


def test_a_key_signs_once_every_reachable_member_has_announced_it(pair: tuple[Node, Node]) -> None:
    """Until then the next common one does; the dead and those that announced nothing don't count."""
    a, _ = pair

    def signing() -> int | None:
        a.keeper.tick()
        return a.host.board.signing_kid

    assert signing() == 2
    a.keeper.after_beat("c", a.clock(), Heard(C, (), told_all=False))
    assert signing() == 1
    a.keeper.announce((3,))
    assert a.keeper.me.kids == (3,)
    assert signing() is None
    a.keeper.announce((3,))
    a.keeper.after_beat("c", a.clock(), Heard(member("c", State.LEFT), (), told_all=False))
    a.keeper.announce((2, 1))
    assert signing() == 2


def test_calls_of_peers_go_to_the_store(pair: tuple[Node, Node]) -> None:
    """Everything but heartbeats, with who has asked."""
    a, _ = pair
    assert a.keeper.on_call(calls.Put(KEY, record(1, 3, ("b", "a"))), "b") == calls.Held(3)
    stored = a.host.record(KEY)
    assert stored is not None
    assert live_items(stored) == {"x": b"1"}


# --- sync --------------------------------------------------------------------------------------------------------------------


def held(node: Node) -> Record:
    found = node.host.record(KEY)
    assert found is not None
    return found


def test_a_returning_node_learns_of_what_it_missed(pair: tuple[Node, Node]) -> None:
    """Its other owner has later writes, another epoch, or an end: after the sync both hold the same."""
    a, b = pair
    for there in (record(1, 9), record(2, 1, ("b", "a")), tombstone(1, version=3)):
        for node in pair:
            node.fixture.store.wipe()
        a.fixture.hold(KEY, record(1, 3))
        b.fixture.hold(KEY, there)
        a.keeper.unsync()
        assert run(a, a.keeper.sync(), b) is True
        assert (held(a).epoch, held(a).version, held(a).ended) == (there.epoch, there.version, there.ended)


def test_a_returning_node_gives_back_what_the_other_has_lost(pair: tuple[Node, Node]) -> None:
    """Its files were lost, this one's were not."""
    a, b = pair
    a.fixture.hold(KEY, record(1, 3), "b")
    assert run(a, a.keeper.sync(), b) is True
    assert held(b) == record(1, 3)
    assert a.fixture.store.hint_count("b") == 0


def test_a_node_stays_unsynced_while_its_partner_is_silent(pair: tuple[Node, Node]) -> None:
    """It may know better; once it is dead for certain, the first of the key's order are asked."""
    a, b = pair
    c = Node(C, clock=a.clock)
    met(a, b, c)
    a.fixture.hold(KEY, record(1, 3))
    assert run(a, a.keeper.sync(), c) is False
    a.clock.now += 0.1
    a.keeper.table = a.keeper.table._replace(
        others={**a.keeper.table.others, "b": a.keeper.table.others["b"]._replace(member=member("b", State.DEAD))}
    )
    assert run(a, a.keeper.sync(), c) is True
    known = c.host.record(KEY)
    assert known is not None
    assert (known.pointer, known.owners) == (True, ("a", "b"))


def test_a_write_is_known_to_both_after_a_heartbeat_although_its_coordinator_died(pair: tuple[Node, Node]) -> None:
    """Numbered, and never delivered: the hint of the same transaction brings it (finding F8)."""
    a, b = pair
    for node in pair:
        node.fixture.hold(KEY, record(1, 3))
    a.host.handle(calls.Apply(KEY, 1, patch(1, x=b"2")))
    beat(b, a)
    assert held(b) == held(a)
    assert live_items(held(b)) == {"x": b"2"}
    assert a.fixture.store.hint_count("b") == 0


def test_hints_for_who_is_forgotten_are_dropped() -> None:
    """It has been away for longer than it may be with its files. Some at each sweep; those of members stay, and so do the marks
    of sessions with one owner."""
    node, b = Node(), Node(B)
    met(node, b)
    for number in range(10):
        key = bytes([16 * number]) * 16
        node.fixture.hold(key, record(2, owners=("a", "b")), "b", "given up", SINGLE)
    node.clock.now += FORGOTTEN_AFTER_S - 1
    node.keeper.after_beat("b", node.clock(), Heard(B, (), told_all=False))
    run(node, node.keeper.sweep(4))
    assert node.fixture.store.hint_count("given up") == 10
    left = []
    for _ in range(4):
        node.clock.now += DROPPED_EVERY_S
        node.keeper.after_beat("b", node.clock(), Heard(B, (), told_all=False))
        for _ in range(3):
            run(node, node.keeper.sweep(4))
            left.append(node.fixture.store.hint_count("given up"))
    assert (left[0], left[-1]) == (6, 0)
    assert left == sorted(left, reverse=True)
    assert [node.fixture.store.hint_count(owner) for owner in ("b", SINGLE)] == [10, 10]


@pytest.mark.parametrize("failure", [ShardDown(3, None), StoreFull("full"), StoreRefused("gone")])
def test_hints_that_cannot_be_dropped_wait_for_the_next_sweep(failure: Exception) -> None:
    """And the rest of the sweep goes on."""

    class Failing(MemoryStore):
        fails = True

        def drop_hints(self, known: Collection[str], before: float, limit: int) -> int:
            if self.fails:
                raise failure
            return super().drop_hints(known, before, limit)

    clock = Clock()
    store = Failing(now=clock)
    node = Node(clock=clock, store=store)
    node.fixture.hold(KEY, record(2, owners=("a", "b")), "given up")
    clock.now += 2 * FORGOTTEN_AFTER_S
    for store.fails in (True, False):
        assert run(node, node.keeper.sweep(4)) == 0
        assert store.hint_count("given up") == int(store.fails)
