"""Where copies meet: one result for everybody, in whatever order, and nothing that was written falls away."""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.absorb import Absorption, absorb, owners_but
from clustersession.core.counted import COUNTING_ID_BYTES
from clustersession.core.record import (
    SOMEBODY,
    Ending,
    Item,
    Lock,
    Owners,
    Patch,
    Record,
    Stamp,
    ended,
    is_live,
    merged_items,
    patched,
    pointer_to,
    rank,
)

from .records import NODES, item, pending, pointer, record, tombstone

# --- a table of single meetings ----------------------------------------------------------------------------------------------


def test_who_holds_nothing_takes_a_copy_only_as_an_owner() -> None:
    """An owner takes the copy, anybody takes a tombstone; a stranger's copy and a pointer are nothing to hold."""
    for copy in (record(), pending()):
        assert absorb(None, copy, "a") == absorb(None, copy, "b") == Absorption(copy)
        assert absorb(None, copy, "c") == Absorption(None)
    for me in NODES:
        assert absorb(None, tombstone(), me) == Absorption(tombstone())
        assert absorb(None, pointer(), me) == Absorption(None)


def test_a_tombstone_wins_over_a_copy_of_any_rank() -> None:
    """Whatever the epochs, the result has ended and holds no value; the owners that the copy named are told."""
    for mine, theirs in itertools.product((record(1), record(9), pending(5), pointer(3)), (tombstone(1), tombstone(9))):
        result = absorb(mine, theirs, "a")
        assert result.record is not None
        assert (result.record.ended, result.record.items, result.record.pointer) == (theirs.ended, {}, False)
        assert result.record.epoch == max(mine, theirs, key=rank).epoch
        assert result.hint == owners_but(mine.owners, "a")
        assert result.better is None


def test_a_grace_stays_where_the_session_was_rotated() -> None:
    """Another node that hears of the end shows no values, neither those that came with it nor its own, which may be others."""
    graced = tombstone(ended=Ending("rotated", 990.0, 1010.0), items=record().items)
    for mine in (record(1, 9), record(0, 1)):
        taken = absorb(mine, graced, "a").record
        assert taken is not None
        assert (taken.ended, taken.items) == (Ending("rotated", 990.0), {})


def test_a_user_s_grace_is_over_when_one_side_knows_that_it_is() -> None:
    """And a node that held nothing takes only the end. What nobody was logged in to stays as it is."""
    ending = Ending("rotated", 990.0, 1010.0)
    users, nobodys = (tombstone(ended=ending, items=record().items, principal=who) for who in ("7", None))
    over = users.but(ended=Ending("rotated", 990.0), items={}, principal=SOMEBODY)
    assert absorb(users, over, "a").record == absorb(over, users, "a").record == over
    assert absorb(users, users, "a").record == users, "the other owner has it too"
    assert absorb(users, over.but(epoch=2, base=2), "a").record == over.but(epoch=2, base=2)
    assert absorb(None, users, "a").record == over
    assert absorb(None, nobodys, "a").record == absorb(nobodys, over.but(principal=None), "a").record == nobodys


def test_a_tombstone_is_shown_to_who_still_has_a_copy() -> None:
    """It is kept as it is, and is the better one."""
    for copy in (record(9), pending(9), pointer(9)):
        assert absorb(tombstone(1), copy, "a") == Absorption(tombstone(1), better=tombstone(1))


def test_of_two_tombstones_the_higher_history_is_kept() -> None:
    """So that both sides name the same owners; the one that knows more says so."""
    low, high = tombstone(1), tombstone(2, ("b", "c"))
    assert absorb(low, high, "a") == Absorption(low.but(epoch=2, owners=("b", "c"), base=2))
    assert absorb(high, low, "a") == Absorption(high, better=high)
    assert absorb(low, low, "a") == Absorption(low)


def test_within_one_history_the_higher_version_wins() -> None:
    """Values merge per key, the last use is the later one, and the lower side is shown the higher."""
    old = record(1, 1, items={"x": item(b"1"), "y": item(b"kept", 1, 1)}, last_seen=9.0)
    new = record(1, 2, items={"x": item(b"2", 1, 2)}, last_seen=5.0)
    merged = new.but(items={"x": item(b"2", 1, 2), "y": item(b"kept", 1, 1)}, last_seen=9.0)
    assert absorb(old, new, "b") == Absorption(merged)
    assert absorb(new, new, "b") == Absorption(new)
    assert absorb(new, record(1, 1), "b") == Absorption(new, better=new)


def test_a_pending_change_is_settled_when_one_side_knows_that_it_is() -> None:
    """Accepted on either side is accepted on both, whichever has the higher version (finding F4)."""
    for mine, theirs in itertools.product((record(2, 1), record(2, 2)), (pending(2, 1), pending(2, 2))):
        for one, two in ((mine, theirs), (theirs, mine)):
            result = absorb(one, two, "b").record
            assert result is not None
            assert (result.accepted, result.base) == (True, 2)


def test_only_the_master_concludes_from_meeting_its_backup_that_a_change_is_settled() -> None:
    """The backup cannot know whether the master has moved on since, and no third node speaks for the backup."""

    def settles(me: str, source: str | None) -> bool:
        result = absorb(pending(2), pending(2), me, source).record
        assert result is not None
        return result.accepted

    assert settles("a", "b")
    assert not any(settles(me, source) for me, source in (("b", "a"), ("a", "c"), ("a", None), ("a", "a")))


def test_the_higher_history_wins_and_the_lower_is_shown_it() -> None:
    """The owners that only the lower one named learn of it, and the new master of every value that it lacks."""
    low, high = record(1, 5, ("a", "b")), record(2, 1, ("b", "c"), items={"z": item(b"z", 2, 1, "b")})
    assert absorb(high, low, "c") == Absorption(high, better=high)
    taken = absorb(low, high, "a")
    assert taken == Absorption(pointer_to(high, low.items), hint=("b",))
    assert absorb(low, record(2, 1, ("a", "c")), "a") == Absorption(record(2, 1, ("a", "c")), hint=("b",))
    assert absorb(low, record(2, 1, ("c", "d"), items={}), "a").hint == ("b", "c")


def test_an_ex_owner_keeps_its_copy_until_two_nodes_hold_the_new_epoch() -> None:
    """While the new owner is alone, or its change is pending, the old copy stays in the pointer (finding F15)."""
    mine = record(1, items={"x": item(b"old", 1, 1), "y": item(b"more", 1, 2)})
    newer = {"x": item(b"new", 2, 1, "c"), "y": item(b"more", 1, 2)}
    for theirs in (pending(2, owners=("b", "c"), items=newer), record(2, owners=("b", None), items=newer)):
        assert absorb(mine, theirs, "a").record == pointer_to(theirs, mine.items)
    settled = record(2, owners=("b", "c"), items=newer)
    assert absorb(mine, settled, "a") == Absorption(pointer_to(settled))


def test_only_the_master_makes_a_version_of_what_another_history_adds() -> None:
    """It numbers the merge and tells its backup; a backup merges and tells the master."""
    lost = record(1, 7, ("c", "d"), items={"q": item(b"q", 1, 7, "c")})
    mine = record(2, 3)
    both = {**mine.items, **lost.items}
    merged = mine.but(items=both, version=4)
    assert absorb(mine, lost, "a") == Absorption(merged, better=merged, hint=("b",))
    assert absorb(mine, lost, "b") == Absorption(mine, better=mine)
    assert absorb(lost.but(owners=("a", "d")), mine, "a") == Absorption(mine.but(items=both, version=8), hint=("d", "b"))
    assert absorb(lost.but(owners=("b", "d")), mine, "b") == Absorption(mine.but(items=both), hint=("d", "a"))


def test_what_a_backup_has_merged_becomes_a_version_at_the_master() -> None:
    """Equal versions with more values on the backup's side: the master numbers them, and the backup gets that version."""
    mine = record(2, 3)
    theirs = mine.but(items={**mine.items, "q": item(b"q", 1, 7, "c")})
    merged = theirs.but(version=4)
    assert absorb(mine, theirs, "a", "b") == Absorption(merged, better=merged, hint=("b",))


def test_a_write_wins_over_the_merged_value_that_it_overwrites() -> None:
    """Also where that was numbered higher, by the master of a history that lost: no copy that still has it brings it back."""
    lost = record(1, 9, ("c", "d"), items={"n": item(b"old", 2, 9, "c"), "m": item(b"old", 3, 1, "c")})
    held = absorb(record(2, 3, items={}), lost, "a").record
    assert held is not None
    assert held.items == lost.items
    written = patched(held, Patch(b"p", {"n": b"new", "m": None, "x": b"new"}), held.version + 1)
    for after in (merged_items(written.items, lost.items), merged_items(lost.items, written.items)):
        assert {name: value for name, (_, value) in after.items()} == {"n": b"new", "m": None, "x": b"new"}
    assert written.items["x"][0] == (2, held.version + 1, "a")


P, Q, R = (number.to_bytes(COUNTING_ID_BYTES) for number in range(3))


def test_a_patch_that_came_in_a_merge_is_not_counted_when_it_is_repeated() -> None:
    """Its id comes along with its result: at a master that merges, at one whose history wins, and by way of a pointer."""
    start = record(1, 3, ("b", "a"), items={"n": item(b"1", 1, 3, "b")}, patches=(b"p3",))
    counted = start.but(version=4, items={"n": item(b"2", 1, 4, "b")}, patches=(b"p3", b"p4"))
    moved = start.but(epoch=2, base=2, owners=("a", "b"))
    for holder in (absorb(moved, counted, "a"), absorb(counted, moved, "b"), absorb(counted, moved.but(owners=("b", "c")), "b")):
        assert holder.record is not None
        assert (holder.record.items, set(holder.record.patches)) == (counted.items, {b"p3", b"p4"})
    handed_on = absorb(counted, moved.but(owners=("a", "c")), "b").record
    assert handed_on is not None
    assert handed_on.pointer
    result = absorb(moved.but(owners=("a", "c")), handed_on, "a").record
    assert result is not None
    assert (result.items, set(result.patches)) == (counted.items, {b"p3", b"p4"})


def test_a_patch_whose_result_is_overwritten_counts_when_it_is_repeated() -> None:
    """Both sides have written the value: what the side that lost had counted is not in it."""
    lost = record(1, 4, ("b", "a"), items={"n": item(b"2", 1, 4, "b")}, patches=(b"p3", b"p4"))
    won = record(2, 9, ("a", "b"), items={"n": item(b"5", 2, 9)}, patches=(b"p3", b"p5"))
    for result in (absorb(won, lost, "a").record, absorb(lost, won, "b").record):
        assert result is not None
        assert result.patches == (b"p3", b"p5")
    stale = won.but(items={"n": item(b"1", 1, 3, "b")}, patches=(b"p3", b"lost"))
    taken = absorb(stale, lost, "a").record
    assert taken is not None
    assert taken.patches == (b"p3", b"p4")


def test_what_was_counted_is_known_with_its_value_whatever_else_was_overwritten() -> None:
    """`n` was counted at a master that fell silent; `c`, which both had, was written anew elsewhere. The merge has both, and
    knows what is in `n`; of `m`, which both sides have counted, it knows what the side that won had counted."""
    held = {"n": item(b"1", 1, 2, "b"), "c": item(b"old", 1, 3, "b"), "m": item(b"1", 1, 1, "b")}
    silent = record(
        1, 5, ("b", "a"), items={**held, "n": item(b"2", 1, 4, "b"), "m": item(b"2", 1, 5, "b")}, counted={"n": (P,), "m": (Q,)}
    )
    master = record(2, 5, items={**held, "c": item(b"new", 2, 4), "m": item(b"2", 2, 5)}, counted={"m": (R,)})
    for taken in (absorb(master, silent, "a").record, absorb(silent, master.but(owners=("a", "b")), "b").record):
        assert taken is not None
        assert {name: value for name, (_, value) in taken.items.items()} == {"n": b"2", "c": b"new", "m": b"2"}
        assert taken.counted == {"n": (P,), "m": (R,)}


def test_a_pointer_brings_what_was_counted_in_the_values_that_it_retains() -> None:
    """Until two nodes have them."""
    mine = record(1, 4, ("b", "a"), items={"n": item(b"2", 1, 4, "b")}, counted={"n": (P, Q)})
    pointed = absorb(mine, record(2, 4, ("a", "c")), "b").record
    assert pointed is not None
    assert pointed.pointer
    back = absorb(record(2, 4, ("a", "c")), pointed, "a").record
    assert back is not None
    assert back.counted == {"n": (P, Q)}


def test_what_both_sides_have_in_the_same_value_stays_known_if_one_has_forgotten() -> None:
    """As it was written to sooner after that."""
    mine = record(2, 4, items={"n": item(b"2", 1, 4, "b"), "x": item(b"1", 2, 4)}, counted={"n": (Q,)})
    theirs = record(1, 4, ("b", "a"), items={"n": item(b"2", 1, 4, "b"), "y": item(b"1", 1, 3, "b")}, counted={"n": (P, Q)})
    taken = absorb(mine, theirs, "a").record
    assert taken is not None
    assert taken.counted == {"n": (P, Q)}


def test_while_somebody_has_a_lock_a_write_that_comes_in_a_merge_is_not_known_by_its_id() -> None:
    """It may be of the one who had the lock before, at a master that fell silent: repeated, it meets the fence."""
    late = record(1, 4, ("b", "a"), items={"held": item(b"late", 1, 4, "b")}, patches=(b"p3", b"late"))
    free = record(2, 4, items={}, patches=(b"p3", b"p5"))
    taken = free.but(locks={"held": Lock(b"another", 99.0)})
    for mine, known in ((free, True), (taken, False)):
        for after in (absorb(mine, late, "a").record, absorb(late, mine.but(owners=("a", "b")), "b").record):
            assert after is not None
            assert after.items == late.items
            assert (b"late" in after.patches) == known


def test_patches_of_disjoint_values_are_known_from_both_sides() -> None:
    """Neither side has lost anything."""
    mine = record(2, 3, items={"x": item(b"1", 2, 3)}, patches=(b"p1", b"p2"))
    theirs = record(1, 7, ("c", "d"), items={"y": item(b"1", 1, 7, "c")}, patches=(b"p1", b"p9"))
    result = absorb(mine, theirs, "a").record
    assert result is not None
    assert result.patches == (b"p1", b"p9", b"p2")


def test_a_pointer_is_never_taken_for_data() -> None:
    """It changes no value of a copy and does not raise its version; it only says that there is a higher history."""
    mine = record(2, 3, ("a", "b"))
    assert absorb(mine, pointer(1, ("b", "c"), version=9), "a") == Absorption(mine, better=mine)
    assert absorb(mine, pointer(2, ("a", "b"), version=9), "a") == Absorption(mine)
    higher = pointer(3, ("b", "c"), version=9)
    assert absorb(mine, higher, "a") == Absorption(pointer_to(higher, mine.items), hint=("b",))
    assert absorb(pointer(2), pointer(3, ("b", "d")), "a") == Absorption(pointer(3, ("b", "d")))


def test_who_is_named_by_a_pointer_to_an_epoch_it_has_not_serves_its_old_copy_no_more() -> None:
    """The copy of the new epoch is on its way or lost; what is here is not vouched for, and not thrown away either."""
    mine = record(1)
    result = absorb(mine, pointer(3, ("c", "a")), "a").record
    assert result is not None
    assert (result.accepted, result.items, result.epoch) == (False, mine.items, 1)
    assert absorb(pointer(1), pointer(3, ("c", "a")), "a") == Absorption(pointer(1))
    assert absorb(record(5), pointer(3, ("c", "a")), "a") == Absorption(record(5), better=record(5))


def test_a_retained_copy_goes_back_to_the_master() -> None:
    """What an ex-owner kept in its pointer is merged where it is missing, and told to the backup."""
    kept = pointer(2, ("a", "b"), items={"q": item(b"q", 1, 7, "c")})
    mine = record(2, 3)
    merged = mine.but(items={**mine.items, **kept.items}, version=4)
    assert absorb(mine, kept, "a") == Absorption(merged, hint=("b",))
    assert absorb(mine, kept, "b") == Absorption(mine)


def test_a_retained_copy_goes_when_two_nodes_hold_it() -> None:
    """Who is told so by one of them keeps the way only: what it has would be shown again when both are gone, after whatever came
    later. Until then, and where the copy lacks something of it, it stays."""
    kept = pointer(2, ("a", "b"), items=record().items)
    held = record(2, 3)
    assert absorb(kept, held, "c").record == kept.but(items={})
    assert absorb(kept.but(accepted=False, base=1), held, "c").record == kept.but(items={})
    for theirs in (pending(2, base=1), record(2, 3, ("a", None)), held.but(items={}), pointer(2, ("a", "b"))):
        mine = kept.but(owners=theirs.owners)
        result = absorb(mine, theirs, "c").record
        assert result is not None
        assert result.items == mine.items


def test_owners_but() -> None:
    """Every owner that there is, without this one."""
    assert owners_but(("a", "b"), "a") == owners_but(("b", "a"), "a") == ("b",)
    assert owners_but(("a", None), "a") == ()
    assert owners_but(("b", "c"), "a") == ("b", "c")


# --- whole clusters ----------------------------------------------------------------------------------------------------------


class Story(NamedTuple):
    """One history: its owners, whether it is accepted, and the values that its version 0 and each write brought."""

    epoch: int
    owners: Owners
    settled: bool
    inherited: dict[str, Item]
    writes: tuple[str, ...]

    def copy(self, writes: int) -> Record:
        """The copy that has so many of the writes. Equal stamps carry equal values."""
        items = dict(self.inherited)
        for number, name in enumerate(self.writes[:writes], start=1):
            items[name] = written(name, Stamp(self.epoch, number, self.owners[0]))
        alone = self.owners[1] is None
        base = self.epoch if self.settled or alone else self.epoch - 1
        return Record(self.epoch, writes, self.owners, items, accepted=self.settled or alone, base=base)


def written(name: str, stamp: Stamp) -> Item:
    return stamp, None if stamp.version == 3 else f"{name} {stamp}".encode()


def _former(name: str, stamp: Stamp) -> tuple[str, Item]:
    return name, written(name, stamp)


names = st.sampled_from("xyz")
former_items = st.lists(
    st.builds(_former, names, st.builds(Stamp, st.just(0), st.integers(1, 4), st.sampled_from(NODES))), max_size=3
).map(dict)
Copies = dict[str, Record | None]


@st.composite
def clusters(draw: st.DrawFn, *, settled: bool = False, alone: bool = True, forks: int = 3) -> Copies:
    """What each node holds after forks: each history has its master's copy, its backup may lag or hold something else."""
    masters = draw(st.permutations(NODES))[: draw(st.integers(1, forks))]
    stories = []
    for master, epoch in zip(masters, draw(st.permutations((1, 2, 3, 4))), strict=False):
        others: list[str | None] = [node for node in NODES if node != master]
        backup = None if alone and draw(st.integers(0, 5)) == 0 else draw(st.sampled_from(others))
        writes = tuple(draw(st.lists(names, max_size=3)))
        stories.append(Story(epoch, (master, backup), settled or draw(st.booleans()), draw(former_items), writes))
    held: Copies = {story.owners[0]: story.copy(len(story.writes)) for story in stories}
    for node in NODES:
        if node not in held:
            held[node] = draw(_held_by_another(node, stories))
    return held


def _held_by_another(node: str, stories: list[Story]) -> st.SearchStrategy[Record | None]:
    """Nothing, the lagging copy of a backup, or the pointer of an ex-owner."""
    kinds: list[st.SearchStrategy[Record | None]] = [st.none()]
    for story in stories:
        if node in story.owners:
            kinds.append(st.integers(0, len(story.writes)).map(story.copy))
        else:
            kinds.append(st.just(pointer_to(story.copy(len(story.writes)))))
    return st.one_of(kinds)


def meet(held: Copies, me: str, peer: str) -> None:
    """`peer` shows what it holds to `me`, and what is better goes back, as two hosts do it with hints and in a sync."""
    theirs = held[peer]
    if theirs is None:
        return
    better = _taken(held, me, theirs, peer)
    back = None if better is None else _taken(held, peer, better, me)
    if back is not None:
        _taken(held, me, back, peer)


def _taken(held: Copies, me: str, theirs: Record, source: str) -> Record | None:
    result = absorb(held[me], theirs, me, source)
    held[me] = result.record
    return result.better


PAIRS = list(itertools.permutations(NODES, 2))
meetings = st.lists(st.sampled_from(PAIRS), max_size=12)  # any order, any repetition, before everybody meets everybody
orders = st.integers(0, 2**20).map(lambda seed: random.Random(seed).sample(PAIRS, len(PAIRS)))


def met_everybody(held: Copies, first: list[tuple[str, str]], order: list[tuple[str, str]]) -> Copies:
    """After meetings in any order, until no meeting changes anything. It must come to that."""
    held = dict(held)
    for me, peer in first:
        meet(held, me, peer)
    for _ in range(30):
        before = dict(held)
        for me, peer in order:
            meet(held, me, peer)
        if held == before:
            return held
    pytest.fail(f"it goes on for ever: {held}")


def live(held: Copies) -> dict[str, Record]:
    return {node: each for node, each in held.items() if each is not None and is_live(each)}


@given(clusters(), meetings, orders)
def test_everybody_comes_to_one_history(held: Copies, first: list[tuple[str, str]], order: list[tuple[str, str]]) -> None:
    """Its owners, and they alone, end with the same epoch, version and values, and nobody points anywhere else."""
    after = met_everybody(held, first, order)
    one, *others = live(after).values()
    for each in others:
        assert (each.epoch, each.owners, each.version, each.items) == (one.epoch, one.owners, one.version, one.items)
    assert set(live(after)) == {owner for owner in one.owners if owner is not None}
    assert {each.owners for each in after.values() if each is not None} == {one.owners}


@given(clusters(settled=True), meetings, orders)
def test_the_highest_accepted_history_is_the_one(
    held: Copies, first: list[tuple[str, str]], order: list[tuple[str, str]]
) -> None:
    """Whoever meets whom first."""
    best = max(live(held).values(), key=rank)
    after = live(met_everybody(held, first, order))
    assert {(each.epoch, each.owners) for each in after.values()} == {(best.epoch, best.owners)}


@given(clusters(forks=2), meetings, orders)
def test_no_value_is_lost_where_two_histories_meet(
    held: Copies, first: list[tuple[str, str]], order: list[tuple[str, str]]
) -> None:
    """The result has, for every key of every copy, that value or a later one."""
    after = live(met_everybody(held, first, order))
    for before in live(held).values():
        for each in after.values():
            assert merged_items(each.items, before.items) == each.items


@given(clusters(), st.sampled_from(NODES), meetings, orders)
def test_one_tombstone_ends_every_copy(
    held: Copies, where: str, first: list[tuple[str, str]], order: list[tuple[str, str]]
) -> None:
    """Of whatever rank it is, and wherever: afterwards nobody holds a value."""
    copy = held[where] or next(iter(live(held).values()))
    held[where] = ended(copy, Ending("logout", 1.0))
    after = met_everybody(held, first, order)
    assert live(after) == {}
    assert not any(each.items for each in after.values() if each is not None)


@given(clusters(), st.sampled_from(PAIRS))
def test_meeting_again_changes_nothing(held: Copies, pair: tuple[str, str]) -> None:
    """A message that arrives twice does what it did the first time."""
    me, peer = pair
    theirs = held[peer]
    if theirs is None:
        return
    once = absorb(held[me], theirs, me, peer).record
    assert absorb(once, theirs, me, peer).record == once
