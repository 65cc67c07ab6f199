"""What a second close reading of the rules has found, each with the least that shows it."""

from __future__ import annotations

from typing import Any, Final

from clustersession.core import calls
from clustersession.core.absorb import absorb
from clustersession.core.operations import Cluster, Ended, Rotated, Target, create, load, new_record, rotate, save
from clustersession.core.record import Lifetime, digest, pointer_to
from clustersession.core.replica import decide, sweep
from clustersession.testing.simulated import SimulatedNode, World

from ..runtime.hosts import START, Fixture
from .records import KEY, NOW, item, member, patch, pending, pointer, record, situation

HERE: Final = situation()


def test_a_broken_record_does_not_end_the_sweep() -> None:
    """What is due and does not decode is counted and passed over; the others are swept."""
    here = Fixture()
    here.board(member("a"))
    here.host.handle(calls.Put(b"z" * 16, record(owners=("a", None), lifetime=Lifetime(None, START + 50))))
    here.spoil(KEY)
    here.clock.now += 60
    here.board(member("a"), tick=here.clock.now)
    here.host.sweep(10)
    assert isinstance(here.host.handle(calls.Fetch(b"z" * 16, 1.0)), calls.Gone)


def test_a_rotation_that_has_failed_leaves_the_old_session_as_it_is() -> None:
    """The host is paused in the middle of a login, a write is acked by others, the host goes on: nothing acked is lost."""
    world = World(2, 4)
    world.run(3.0)
    here, other, *_ = world.nodes.values()
    now = here.clock()
    fresh = new_record(_cluster(here), KEY, now=now, patch=patch(1), principal=None, auth_time=None, lifetime=Lifetime())
    created: list[Any] = []
    here.run(create(_cluster(here), KEY, fresh), created.append)
    world.run(world.now + 1.0)
    placement = created[0].placement
    rotated: list[Any] = []
    login = rotate(_cluster(here), KEY, placement, b"n" * 16, patch(2), now=now, principal="7", auth_time=None, grace=None)
    here.run(login, rotated.append)
    world.run(world.now + 0.001)
    here.pause()
    world.run(world.now + 1.5)
    saved = _outcome(world, other, save(_cluster(other), KEY, placement, patch(3, cart=b"book")))
    here.resume()
    world.run(world.now + 6.0)
    assert not isinstance(rotated[0], Rotated)
    master, backup = saved.placement.owners
    target = Target(KEY, master, backup, single=False, floor=(2, 1), age=9.0)
    seen = _outcome(world, other, load(_cluster(other), target))
    assert not isinstance(seen, Ended)


def _cluster(node: SimulatedNode) -> Cluster:
    return Cluster(node.host.view)


def _outcome(world: World, node: SimulatedNode, operation: Any) -> Any:
    done: list[Any] = []
    node.run(operation, done.append)
    world.run(world.now + 1.5)
    return done[0]


def test_a_retained_copy_is_merged_where_its_node_becomes_an_owner() -> None:
    """Else values that only the ex-owner still has are dropped by the very copy that is to replace them (F15)."""
    retained = pointer_to(pending(3, owners=("d", "b"), base=2), {"x": item(b"1", 1, 2)})
    taken = absorb(retained, pending(4, owners=("b", "c"), base=3, items={}), "c").record
    assert taken is not None
    assert taken.items == retained.items


def test_a_later_pointer_is_kept_for_25_hours_too() -> None:
    """The owners it names are as new."""
    told = calls.Absorb(KEY, record(3, 1, ("b", "d"), last_seen=NOW - 3 * 86400), "b")
    moved = decide(pointer(2), told, HERE, "b").record
    assert moved is not None
    assert not sweep(moved, situation(now=NOW + 60)).write


def test_settling_a_change_of_owners_does_not_take_the_hint_of_an_end() -> None:
    """The survivor was told of the end after the new backup took the live record, and who ended it has died."""
    ended_at_2 = decide(pending(2), calls.End(KEY, "logout", ("a", "b"), 1), HERE, None)
    assert ended_at_2.hint == ("b",)
    assert decide(ended_at_2.record, calls.Settle(KEY, 2, ("a", "b"), calls.NOTHING_HELD), HERE, None).unhint == ()


def test_settling_a_change_of_owners_does_not_take_the_hint_of_a_merge() -> None:
    """The new backup brought values of another history into it under the master's version; the master must still hear."""
    other = record(1, 2, ("c", "a"), items={"y": item(b"2")})
    taken = decide(other, calls.Put(KEY, pending(3, 2, ("b", "a"), base=2)), HERE, "b")
    assert (taken.reply, "b" in taken.hint) == (calls.Held(2), True)
    assert decide(taken.record, calls.Settle(KEY, 3, ("b", "a"), 2), HERE, None).unhint == ()


def test_a_change_that_is_tried_again_ranks_no_higher_than_before() -> None:
    """The first try was never accepted, here or elsewhere, so it is no epoch to build on: what the other owner has got accepted
    meanwhile wins over the second one too. (Seed 1715: it did not, and came back to a master that had given it up.)"""
    first = decide(None, calls.Put(KEY, pending(2, owners=("c", "a"))), HERE, "c").record
    second = decide(first, calls.Put(KEY, pending(3, owners=("c", "a"), base=1)), HERE, "c").record
    assert (second is not None, second and second.base) == (True, 1)
    told = decide(second, calls.Absorb(KEY, pointer(2, ("b", "d")), "c"), HERE, "c")
    assert told.reply == calls.Absorbed(None, digest(KEY, told.record) if told.record else None)
    assert told.record is not None
    assert (told.record.pointer, told.record.owners) == (True, ("b", "d"))


def test_who_is_said_to_own_a_later_history_asks_its_other_owner_for_it() -> None:
    """It gave that history up, a late copy of it won elsewhere: without a hint nobody would bring it back to its master."""
    told = decide(record(4, 4, ("c", "a")), calls.Absorb(KEY, pointer(5, ("a", "b"), accepted=False, base=4), "c"), HERE, "c")
    assert told.hint == ("b",)
    assert told.record is not None
    assert not told.record.accepted
    brought = decide(told.record, calls.Absorb(KEY, pending(5, 4, ("a", "b"), base=4), "b"), HERE, "b")
    assert brought.record == pending(5, 4, ("a", "b"), base=4, items=brought.record.items if brought.record else {})


def test_an_end_of_a_pointer_has_no_grace() -> None:
    """Else a parallel request reads an empty session."""
    written = decide(pointer(2), calls.End(KEY, "rotated", ("a", "b"), 1, 10.0), HERE, None).record
    assert written is not None
    assert written.ended is not None
    assert written.ended.grace_until is None


def test_an_oversized_session_may_be_made_smaller() -> None:
    """A merge or a lower limit has made it so; the app that tidies up must not be refused."""
    small = situation(record_bytes_max=100)
    over = record(items={"x": item(b"1" * 90), "y": item(b"2" * 90)})
    assert decide(over, calls.Apply(KEY, 1, patch(1, x=b"1" * 80)), small, None).write
