"""What reading the rules closely has found, each with the least that shows it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from clustersession.core import calls
from clustersession.core.absorb import absorb
from clustersession.core.comparing import compare
from clustersession.core.operations import Cluster, Lost, Rotated, Saved, create, load, new_record, rotate, save
from clustersession.core.placement import choose_backup
from clustersession.core.record import Ending, Lifetime, digest, is_live, live_items, rank
from clustersession.core.replica import decide, fetch, sweep
from clustersession.testing.simulated import SimulatedNode, World

from ..runtime.hosts import Fixture
from .operations.cluster import cluster, target
from .play import SILENT, play
from .records import KEY, NOW, item, member, patch, pending, pointer, record, situation, tombstone

HERE: Final = situation()
OVER: Final = Lifetime(None, NOW)


# --- expiry ------------------------------------------------------------------------------------------------------------------


def test_an_unsynced_node_ends_nothing() -> None:
    """A host that was away longer than a session may idle must not end one that its users went on using elsewhere."""
    swept = sweep(record(lifetime=OVER), situation(synced=False)).record
    assert swept is None or is_live(swept)


def test_the_other_owner_is_told_that_a_session_has_expired() -> None:
    """As of every other tombstone."""
    assert decide(record(lifetime=OVER), calls.Expire(KEY, 1, ("a", "b")), HERE, "b").hint == ("b",)


def test_a_host_that_is_cut_off_ends_nothing_that_others_use() -> None:
    """It ticks, so it never loses its sync, but nobody told it who uses the session: it asks, and waits for an answer."""
    cut_off = situation(leases=())
    idle = record(last_seen=NOW - 100, lifetime=Lifetime(10.0))
    for owners in (("a", "b"), ("b", "a")):
        swept = sweep(idle.but(owners=owners), cut_off)
        assert (swept.record, swept.hint) == (idle.but(owners=owners), ())
        answer = fetch(idle.but(owners=owners), calls.Fetch(KEY, 1.0), cut_off, lambda _: False)
        assert answer == calls.Found(idle.but(owners=owners), serving=False, expired="expired: idle")


def test_a_backup_does_not_vouch_for_an_expired_copy() -> None:
    """The limits of a session are the same on every host: the other owner is asked."""
    answer = fetch(record(owners=("b", "a"), lifetime=OVER), calls.Fetch(KEY, 1.0), HERE, lambda _: False)
    assert not (isinstance(answer, calls.Found) and answer.serving)


def test_a_touch_does_not_revive_what_has_expired() -> None:
    """Not in the seconds before the sweep either, where this host alone can tell."""
    for over in (record(last_seen=NOW - 100, lifetime=Lifetime(10.0), owners=("a", None)), record(lifetime=OVER)):
        assert not decide(over, calls.Touch(KEY), HERE, None).write


def test_a_pointer_to_an_idle_session_is_kept_for_25_hours() -> None:
    """From when the copy was handed over, else the ex-owner says *not mine* at once, and a live session can be called lost."""
    idle_for_days = record(1, 3, last_seen=NOW - 3 * 86400)
    moved = decide(idle_for_days, calls.Absorb(KEY, idle_for_days.but(epoch=2, owners=("b", "c"), base=2)), HERE, "b").record
    assert moved is not None
    assert moved.pointer
    assert not sweep(moved, situation(now=NOW + 60)).write


# --- where copies meet -------------------------------------------------------------------------------------------------------


def test_a_copy_that_is_not_to_be_served_any_more_does_not_rise_in_rank() -> None:
    """Else the lower of two accepted histories of one epoch wins, if a pointer arrives first."""
    mine = record(4, 4, ("c", "a"))
    marked = absorb(mine, pointer(4, ("d", "c")), "c").record
    assert marked is not None
    assert rank(marked) <= rank(mine) < rank(record(4, 4, ("d", "c")))
    assert absorb(marked, record(4, 4, ("d", "c"), items={}), "c").record == record(4, 4, ("d", "c"), items=mine.items)


def test_a_retained_copy_is_kept_until_two_nodes_hold_a_new_epoch() -> None:
    """Told of two changes in turn that nobody has accepted, the ex-owner is still the only one that has the last copy."""
    mine = record(1, items={"x": item(b"1")})
    first = absorb(mine, pending(2, owners=("b", "c"), items={}), "a").record
    assert first is not None
    assert first.items == mine.items
    second = absorb(first, record(3, 1, ("b", None), items={}), "a").record
    assert second is not None
    assert second.items == mine.items


def test_a_session_is_not_lost_while_an_ex_owner_retains_its_last_copy() -> None:
    """The single new owner died before anybody took a second copy; the ex-owner cannot take over at this moment."""
    script = {(node, calls.Fetch): calls.NotMine() for node in "cde"} | {("b", calls.Promote): calls.Later()}
    answer = calls.Moved(2, ("a", None), retained=True)
    outcome = play(
        load(cluster(dead="a", me="c"), target()), {**script, ("b", calls.Fetch): answer, ("a", calls.Fetch): SILENT}
    ).outcome
    assert not isinstance(outcome, Lost)


def test_a_pointer_to_a_pending_change_does_not_outrank_an_accepted_one() -> None:
    """A witness was asked about a change that nobody accepted; the accepted one of the same epoch stays."""
    asked = compare(None, digest(KEY, pending(2, 1, ("d", "b"))), situation("e"), "d")[0].record
    assert asked is not None
    accepted_one = record(2, 1, ("a", "c"))
    assert absorb(accepted_one, asked, "a", "e").record == accepted_one


# --- ends --------------------------------------------------------------------------------------------------------------------


def test_a_grace_without_values_is_no_grace() -> None:
    """Else a parallel request reads an empty session where it should read the anonymous one, or nothing."""
    graced = tombstone(ended=Ending("rotated", NOW - 1, NOW + 9), items=record().items)
    taken = absorb(record(), graced, "a").record
    assert taken is not None
    assert taken.ended is not None
    assert taken.items or taken.ended.grace_until is None


def test_an_end_of_what_is_not_here_has_no_grace() -> None:
    """There is nothing to read."""
    written = decide(None, calls.End(KEY, "rotated", ("a", "b"), 1, 10.0), HERE, None).record
    assert written is not None
    assert written.ended is not None
    assert written.ended.grace_until is None


def test_settling_a_write_does_not_take_the_hint_of_an_end() -> None:
    """The end came between the write and its settlement, and its coordinator died: the backup must still hear of it."""
    ended_at_4 = decide(record(1, 4), calls.End(KEY, "logout", ("a", "b"), 1), HERE, None)
    assert ended_at_4.hint == ("b",)
    assert decide(ended_at_4.record, calls.Settle(KEY, 1, ("a", "b"), 4), HERE, None).unhint == ()


# --- acks --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [None, pointer(2)])
def test_who_does_not_hold_a_record_does_not_say_so(held: Any) -> None:
    """`Held` is counted as a copy."""
    assert not isinstance(decide(held, calls.Put(KEY, record(2, 1, ("b", "c"))), HERE, "b").reply, calls.Held)


def _cluster(node: SimulatedNode) -> Cluster:
    return Cluster(node.host.view)


def test_no_write_that_was_acked_is_missing_after_a_rotation() -> None:
    """One host is silent. A parallel write to the old session is refused, or it is in the new one."""
    for moment in (0.249, 0.2495, 0.25, 0.2505, 0.251):
        rotated, saved = _rotated_while_written(moment)
        assert isinstance(rotated, Rotated)
        assert not isinstance(saved, Saved) or live_items(rotated.record).get("cart") == b"book"


def _rotated_while_written(moment: float) -> tuple[Any, Any]:
    """A login whose new backup is silent, and so long after its begin a write through another host: how both ended."""
    world = World(2, 4)
    world.run(3.0)
    here, *others = world.nodes.values()
    new_key = next(key for key in (number.to_bytes(16) for number in range(99)) if _backup(here, key) != _backup(here, KEY))
    now, nothing = here.clock(), Lifetime()
    fresh = new_record(_cluster(here), KEY, now=now, patch=patch(1), principal=None, auth_time=None, lifetime=nothing)
    created: list[Any] = []
    here.run(create(_cluster(here), KEY, fresh), created.append)
    world.run(world.now + 1.0)
    placement = created[0].placement
    world.nodes[_backup(here, new_key)].pause()
    writer = next(node for node in others if not node.paused)
    rotated: list[Any] = []
    saved: list[Any] = []
    login = patch(2, user=b"7")
    here.run(
        rotate(_cluster(here), KEY, placement, new_key, login, now=now, principal="7", auth_time=None, grace=None), rotated.append
    )
    world.run(world.now + moment)
    writer.run(save(_cluster(writer), KEY, placement, patch(3, cart=b"book")), saved.append)
    world.run(world.now + 2.0)
    return rotated[0], saved[0]


def _backup(node: SimulatedNode, key: bytes) -> str:
    chosen = choose_backup(node.host.view, key, without=(node.name,), near=(node.name,))
    assert chosen is not None
    return chosen


# --- sync ----------------------------------------------------------------------------------------------------------------------


def test_a_broken_record_does_not_keep_others_from_syncing() -> None:
    """It is one difference among many: the copy of the one that asks may be whole."""
    here = Fixture()
    here.board(member("a"), member("b"))
    here.spoil(KEY)
    answer = here.host.handle(calls.Confirm((digest(KEY, record()),)), "b")
    assert isinstance(answer, calls.Confirmed)
