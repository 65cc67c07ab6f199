"""Whom a host watches and asks: those it has to do with all the time, everybody else in turn."""

from __future__ import annotations

import random
from collections import Counter

from clustersession.core import calls
from clustersession.core.membership import Entry, Table
from clustersession.core.node import State, View
from clustersession.core.placement import partners
from clustersession.core.upkeep import Silent
from clustersession.errors import ShardDown
from clustersession.runtime.contacts import GOSSIP, REMEMBERED_S, Contacts
from clustersession.store.memory import MemoryStore
from clustersession.testing.simulated import World

from ..core.records import KEY, member, record

NOW = 1000.0
PATIENCE_S = 3.0
NAMES = [f"n{number}" for number in range(40)]


def table(**states: State) -> Table:
    entries = {name: Entry(member(name, states.get(name, State.ALIVE)), NOW, 0.0) for name in NAMES}
    return Table(member("me"), entries, 0.0)


def contacts(store: MemoryStore | None = None) -> Contacts:
    return Contacts(store or MemoryStore(now=lambda: NOW), random.Random(1))


CIRCLE = partners(View("me", (member("me"), *(member(name) for name in NAMES))), "me")
FAR = sorted(set(NAMES) - CIRCLE)


def watched(some: Contacts, known: Table | None = None, now: float = NOW) -> set[str]:
    return set(some.watched(known or table(), now, PATIENCE_S))


def test_partners_are_watched() -> None:
    """And are asked to do the same."""
    some = contacts()
    assert watched(some) == CIRCLE
    assert all(some.wants(name) for name in CIRCLE)
    assert not some.wants(FAR[0])


def test_who_shares_sessions_is_watched_until_a_survey_finds_none() -> None:
    """What was learnt while the survey was under way stays."""
    some = contacts()
    some.share_with([FAR[0], None], NOW)
    some.share_with([FAR[1]], NOW + 5)
    assert watched(some) == CIRCLE | {FAR[0], FAR[1]}
    some.surveyed([FAR[2]], NOW + 1)
    assert watched(some) == CIRCLE | {FAR[1], FAR[2]}
    assert some.wants(FAR[2])


def test_who_says_that_it_watches_this_host_is_watched_in_turn() -> None:
    """While it says so; that alone is no reason to ask it for the same, or two would keep each other for ever."""
    some = contacts()
    some.called_by(FAR[0], NOW)
    assert FAR[0] in watched(some, now=NOW + PATIENCE_S)
    assert not some.wants(FAR[0])
    assert FAR[0] not in watched(some, now=NOW + PATIENCE_S + 0.1)


def test_who_gave_no_answer_is_watched_until_it_does_or_is_dead() -> None:
    """Nobody lives on hearsay."""
    some = contacts()
    some.gave_no_answer(FAR[0])
    assert FAR[0] in watched(some)
    some.answered(FAR[0])
    assert FAR[0] not in watched(some)
    some.gave_no_answer(FAR[0])
    assert FAR[0] not in watched(some, table(**{FAR[0]: State.DEAD}))
    assert FAR[0] not in watched(some)


def test_who_is_undecided_is_watched_on() -> None:
    """A suspect, or one that leaves, although there is no other reason any more."""
    for state in (State.SUSPECT, State.LEAVING):
        known = table(**{FAR[0]: state})
        assert FAR[0] not in watched(contacts(), known)
        assert FAR[0] in watched(contacts(), known._replace(watched={FAR[0]: NOW}))


def test_each_of_the_others_has_its_turn() -> None:
    """Two at a time, dead ones too, none twice before all had theirs; who left is left alone."""
    some, known = contacts(), table(**{FAR[0]: State.DEAD, FAR[1]: State.LEFT})
    known = known._replace(watched=dict.fromkeys(CIRCLE, NOW))
    others = set(FAR) - {FAR[1]}
    rounds = -(-len(others) // GOSSIP)
    asked = Counter(name for _ in range(rounds) for name in some.drawn(known))
    assert set(asked) == others
    assert max(asked.values()) - min(asked.values()) <= 1
    alone = known._replace(others={FAR[0]: known.others[FAR[0]]})
    assert some.drawn(alone) == {FAR[0]}
    assert some.drawn(known._replace(others={})) == set()


def test_the_dead_with_which_sessions_are_shared_are_asked_each_time() -> None:
    """They are awaited: besides those whose turn it is."""
    some, known = contacts(), table(**{FAR[0]: State.DEAD, FAR[1]: State.DEAD})
    some.share_with([FAR[0]], NOW)
    assert FAR[0] not in watched(some, known)
    for _ in range(5):
        drawn = some.drawn(known)
        assert FAR[0] in drawn
        assert len(drawn) == GOSSIP + 1


def test_who_has_hints_here_is_watched() -> None:
    """So that it fetches them soon; all members are looked through within a few rounds."""
    world = World(1, 1)
    host = world.nodes["n0"].host
    host.handle(calls.Put(KEY, record(1, 3, ("n0", FAR[3]))))
    host.handle(calls.LeaveHint(KEY, FAR[3]))
    some = contacts(world.nodes["n0"].store)
    for _ in range(4):
        some.look_for_hints(table())
    assert watched(some) == CIRCLE | {FAR[3]}
    host.unhint(FAR[3], KEY)
    some.look_for_hints(table())
    assert watched(some) == CIRCLE


def test_a_sixteenth_that_is_down_ends_no_heartbeat() -> None:
    """Its hints are looked for again with the next round."""

    class Down(MemoryStore):
        def hint_count(self, owner: str) -> int:
            raise ShardDown(len(owner), 1)

    some = contacts(Down(now=lambda: NOW))
    some.look_for_hints(table())
    assert watched(some) == CIRCLE


def test_only_who_matters_makes_a_host_look_through_its_sessions() -> None:
    """Those it had to do with lately, and the first one that can take copies."""
    some, near = contacts(), min(CIRCLE)
    watched(some)
    quiet = some.states(table(), NOW)
    assert some.states(table(**{FAR[0]: State.DEAD}), NOW) == quiet
    gone = table(**{near: State.DEAD})
    assert some.states(gone, NOW) == quiet | {(near, State.DEAD)}
    assert some.states(gone, NOW + REMEMBERED_S + 1) == quiet | {(near, State.DEAD)}
    watched(some, gone, NOW + REMEMBERED_S + 1)
    assert some.states(table(**dict.fromkeys(NAMES, State.SUSPECT)), NOW) != quiet


def test_a_copy_that_comes_makes_two_hosts_watch_each_other() -> None:
    """At once, whichever message brought it: no survey is awaited. Who is asked in turn, and silent, is watched too."""
    world = World(1, 30, seeds=3)
    world.run(6.0)
    one = world.nodes["n0"].keeper
    far = next(name for name in world.nodes if name != "n0" and name not in one.table.watched)
    one.on_call(calls.Many((calls.Put(KEY, record(1, 3, (far, "n0"))),)), far)
    world.run(world.now + 1.2)
    assert far in one.table.watched
    assert "n0" in world.nodes[far].keeper.table.watched
    assert world.nodes["n0"].host.situation().leased(far)
    other = next(name for name in world.nodes if name != "n0" and name not in one.table.watched)
    one.after_beat(other, 0.0, Silent("timeout"))
    one.tick()
    assert other in one.table.watched


def test_who_knows_little_is_told_everything() -> None:
    """A node that has just come, or took all others for dead, knows everybody after one answer; the others get a part."""
    world = World(1, 30, seeds=3)
    world.run(6.0)
    for knows, full in ((0, True), (20, True), (21, False), (29, False)):
        answer = world.nodes["n0"].keeper.on_call(calls.Heartbeat(member("n1"), (), 0.0, knows=knows), "n1")
        assert isinstance(answer, calls.Beat)
        assert (len(answer.members) == 29) is full
