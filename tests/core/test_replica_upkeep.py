"""What a node does with its records between requests: comparing them with others, ending what is due, making room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.calls import Absorb, Conflict, Done, End, EndHeld, Expire, Found, Gone, InUse, Later, NotMine
from clustersession.core.comparing import compare
from clustersession.core.record import SOMEBODY, Digest, Ending, Lifetime, Owners, Record, contents_of, digest, is_live
from clustersession.core.replica import Decision, decide, due_at, eviction, sweep
from clustersession.core.replica.ends import ALONE_AFTER_S, ASKED_AGAIN_S, BACKUP_EXPIRY_SLACK_S, TOMBSTONE_KEPT_S

from .records import KEY, NOW, item, pending, pointer, record, situation, tombstone

HERE = situation()
SAME, DIFFERENT, NOTHING = True, False, Decision(Done())


def of(each: Record, taken: Record | None = None) -> Digest:
    return msgspec.structs.replace(digest(KEY, each), taken=contents_of(taken.items) if taken else b"")


# --- compare -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [record(2, 5), record(2, 5, ("b", "a")), tombstone(2), record(2, 5).but(last_seen=0.0)])
def test_equal_copies_need_no_hint_any_more(held: Record) -> None:
    """The other one holds what is here, so there is nothing left to tell it."""
    assert compare(held, of(held), HERE, "b") == (Decision(Done(), unhint=("b",)), SAME)
    assert compare(held, of(held), HERE, None)[1] is DIFFERENT


@pytest.mark.parametrize(
    "theirs", [record(2, 4), record(2, 6), record(1, 5), record(2, 5, ("a", "c")), tombstone(2), record(3, 5, ("b", "a"))]
)
def test_copies_that_differ_change_nothing_yet(theirs: Record) -> None:
    """In version, epoch, owners or by having ended: they must meet first."""
    assert compare(record(2, 5), of(theirs), HERE, "b") == (NOTHING, DIFFERENT)


def test_who_holds_nothing_but_is_an_owner_differs() -> None:
    """It is given the copy; an end is shown to everybody."""
    assert compare(None, of(record(2, 5, ("b", "a"))), HERE, "b") == (NOTHING, DIFFERENT)
    assert compare(None, of(tombstone(2, ("b", "c"))), HERE, "b") == (NOTHING, DIFFERENT)


def test_a_node_of_the_key_s_order_keeps_a_pointer_to_what_it_is_asked_about() -> None:
    """So that two histories that no owner connects meet there (finding F14)."""
    asked = compare(None, of(record(4, 5, ("b", "c"))), HERE, "b")
    assert asked == (Decision(Done(), True, told(4, ("b", "c"), principal=SOMEBODY)), SAME)


def test_who_is_only_asked_keeps_nothing_and_yet_differs_where_it_knows_something() -> None:
    """A host that comes back asks everybody about what no other owner can confirm (decision 21)."""
    theirs = of(record(2, 5, ("b", "c")))
    assert compare(None, theirs, HERE, "b", only_ask=True) == (NOTHING, SAME)
    assert compare(None, of(tombstone(2, ("b", "c"))), HERE, "b", only_ask=True) == (NOTHING, SAME)
    assert compare(None, of(record(2, 5, ("b", "a"))), HERE, "b", only_ask=True) == (NOTHING, DIFFERENT)
    for held in (tombstone(3, ("a", "d")), record(3, 6), pointer(3, ("d", "e"))):
        assert compare(held, theirs, HERE, "b", only_ask=True) == (NOTHING, DIFFERENT)


def told(epoch: int, owners: Owners, **more: Any) -> Record:
    """The pointer that a node keeps of what it was shown a digest of."""
    return Record(epoch, 0, owners, pointer=True, last_seen=NOW, **({"base": epoch} | more))


def test_a_pointer_ranks_as_the_change_it_was_told_of() -> None:
    """One of an owner that is still pending must not outrank an accepted one that the real owners hold."""
    held = pointer(4, ("b", "c"))
    change = pending(6, 5, ("d", "b"), base=3)
    assert compare(held, of(change), HERE, "d") == (NOTHING, DIFFERENT)
    assert compare(None, of(change), HERE, "d")[0].record == told(6, ("d", "b"), accepted=False, base=3, principal=SOMEBODY)
    followed = compare(held, of(change.but(base=4)), HERE, "d")[0].record
    assert followed == told(6, ("d", "b"), accepted=False, base=4)
    settled = compare(followed, of(record(6, 5, ("d", "b"))), HERE, "d")[0].record
    assert settled == told(6, ("d", "b"))


def test_a_pointer_follows_to_a_higher_epoch() -> None:
    """And not to a lower one, nor to another history of its own epoch: those must meet."""
    held = pointer(3, ("b", "c"))
    moved = compare(held, of(record(4, 9, ("c", "d"))), HERE, "d")
    assert moved == (Decision(Done(), True, told(4, ("c", "d")), unhint=("d",)), SAME)
    assert compare(held, of(record(3, 9, ("b", "c"))), HERE, "b") == (Decision(Done(), False, held, unhint=("b",)), SAME)
    for other in (record(2, 9, ("b", "c")), record(3, 9, ("b", "d")), record(4, 1, ("a", "b"))):
        assert compare(held, of(other), HERE, "b") == (NOTHING, DIFFERENT)


RETAINED = pointer(3, ("b", "c"), items={"x": item(b"1")})


def test_a_retained_copy_goes_when_the_new_master_has_merged_it() -> None:
    """A node that only heard of the epoch, or its backup, does not settle it (finding F15)."""
    by_master = compare(RETAINED, of(record(3, 9, ("b", "c")), taken=RETAINED), HERE, "b")[0].record
    assert by_master == RETAINED.but(items={})
    for asked in (of(record(3, 9, ("b", "c")), taken=RETAINED), of(pointer(3, ("b", "c")))):
        for source in ("c", "d"):
            assert compare(RETAINED, asked, HERE, source)[0].record == RETAINED
    nobody = compare(RETAINED, of(record(3, 9, ("b", "c"))), HERE, None)
    assert (nobody[0].record, nobody[0].unhint) == (RETAINED, ())


def test_what_the_new_master_may_not_have_merged_is_shown_to_it() -> None:
    """The hint for it stays: the side of two had acked a write, the host that was alone outranked them, and the question of
    its sync took the hint with that write away."""
    for asked in (record(3, 9, ("b", "c")), record(3, 9, ("b", None)), pending(4, 1, ("b", "d"), base=3)):
        for taken in (None, RETAINED.but(items={"x": item(b"1"), "y": item(b"2")})):
            assert compare(RETAINED, of(asked, taken), HERE, "b") == (NOTHING, DIFFERENT)


def test_a_retained_copy_stays_while_one_owner_alone_may_have_the_change() -> None:
    """A change that is pending, or has a single owner, is held by one node for certain (finding F15); its hint goes."""
    for change in (pending(4, 1, ("b", "d"), base=3), record(4, 1, ("b", None))):
        decision, same = compare(RETAINED, of(change, taken=RETAINED), HERE, "b")
        assert same
        assert decision.unhint == ("b",)
        assert decision.record is not None
        assert decision.record.items == RETAINED.items


def test_an_ex_owner_that_keeps_a_pointer_is_not_asked_for_versions() -> None:
    """Epoch and owners are all that it can have right."""
    held = record(2, 5)
    assert compare(held, of(pointer(2, ("a", "b"))), HERE, "d") == (Decision(Done(), unhint=("d",)), SAME)
    assert compare(held, of(pointer(1, ("a", "b"))), HERE, "d") == (NOTHING, DIFFERENT)


def test_a_change_is_accepted_when_its_new_backup_is_seen_to_hold_it() -> None:
    """By the master only, and the hint stays until the backup knows that too."""
    change = pending(2, 5)
    assert compare(change, of(change), HERE, "b") == (Decision(Done(), True, change.but(accepted=True, base=2)), SAME)
    at_backup = pending(2, 5, ("b", "a"))
    assert compare(at_backup, of(at_backup), HERE, "b") == (Decision(Done(), unhint=("b",)), SAME)
    known = at_backup.but(accepted=True, base=2)
    assert compare(at_backup, of(known), HERE, "b") == (Decision(Done(), True, known, unhint=("b",)), SAME)
    assert compare(change.but(accepted=True, base=2), of(change), HERE, "b") == (NOTHING, DIFFERENT)
    assert compare(change, of(change), HERE, "d") == (Decision(Done(), unhint=("d",)), SAME)


def test_what_a_backup_has_merged_is_not_taken_for_the_same() -> None:
    """Its version is that of the master, who numbers: only the contents show that there is more to tell."""
    merged = record(2, 5, ("b", "a"), items={"x": item(b"1"), "y": item(b"2")})
    assert compare(merged, of(record(2, 5, ("b", "a"))), HERE, "b") == (NOTHING, DIFFERENT)


# --- sweep -------------------------------------------------------------------------------------------------------------------


def test_what_has_expired_is_to_be_ended_with_its_other_owner() -> None:
    """The copy stays as it is, due again in a minute if nobody answers; the sweep hands on which limit it has passed."""
    each = record(lifetime=Lifetime(None, NOW))
    assert sweep(each, HERE) == Decision(Found(each, serving=False, expired="expired: absolute"), True, each)
    assert due_at(each, HERE) == NOW + ASKED_AGAIN_S
    idle = record(lifetime=Lifetime(20.0), last_seen=NOW - 22)
    assert sweep(idle, HERE).reply == Found(idle, serving=False, expired="expired: idle")


def test_the_only_owner_makes_a_tombstone_of_what_has_expired() -> None:
    """So that a user who comes back late costs one question and not a search."""
    each = record(owners=("a", None), lifetime=Lifetime(None, NOW))
    assert sweep(each, HERE) == Decision(Done(), True, each.but(ended=Ending("expired: absolute", NOW), items={}))


def test_an_owner_ends_a_session_alone_after_a_day() -> None:
    """Whoever was away for so long discards its files, so nobody can know better any more."""
    each = record(lifetime=Lifetime(None, NOW))
    assert sweep(each, situation(now=NOW + ALONE_AFTER_S - 1)).record == each
    late = sweep(each, situation(now=NOW + ALONE_AFTER_S))
    assert late == Decision(Done(), True, each.but(ended=Ending("expired: absolute", NOW + ALONE_AFTER_S), items={}), hint=("b",))


def test_what_is_not_due_is_written_again_under_its_right_time() -> None:
    """It was used since its due time was written."""
    for each in (record(), record(lifetime=Lifetime(20.0, NOW + 1))):
        assert sweep(each, HERE) == Decision(Done(), True, each)


def test_the_backup_leaves_expiry_to_the_master_for_a_while() -> None:
    """One of the two asks the other; the backup does it where the master does not."""
    each = record(owners=("b", "a"), lifetime=Lifetime(None, NOW))
    assert due_at(each, situation(now=NOW - 5)) == NOW + BACKUP_EXPIRY_SLACK_S


def test_an_owner_that_is_asked_says_when_the_session_was_used_or_ends_it() -> None:
    """By its own copy: the one that asks has missed a use, or it has not."""
    idle = record(2, 5, lifetime=Lifetime(20.0), last_seen=NOW - 22)
    asked = Expire(KEY, 2, ("a", "b"))
    ended_here = Decision(EndHeld(2, ("a", "b")), True, idle.but(ended=Ending("expired: idle", NOW), items={}), hint=("b",))
    assert decide(idle, asked, HERE, "b") == ended_here
    assert decide(idle.but(last_seen=NOW - 21), asked, HERE, "b") == Decision(InUse(21.0))


def test_an_owner_that_cannot_tell_ends_nothing() -> None:
    """It has not synced, its owners are others, or it holds nothing; an end that it knows of is told."""
    over, asked = record(2, 5, lifetime=Lifetime(None, NOW)), Expire(KEY, 2, ("a", "b"))
    assert decide(over, asked, situation(synced=False), "b") == Decision(Later())
    for other in (over.but(epoch=3), over.but(owners=("a", "c")), pointer(2, ("b", "c"))):
        assert decide(other, asked, HERE, "b") == Decision(Conflict(other.epoch, other.owners))
    assert decide(None, asked, HERE, "b") == Decision(NotMine())
    assert decide(tombstone(at=NOW), asked, situation(synced=False), "b").reply == Gone("logout", 0.0, 1, ("a", "b"))


def test_tombstones_and_pointers_are_kept_for_25_hours() -> None:
    """Longer than any node may be away with its files; then they go."""
    assert TOMBSTONE_KEPT_S == 25 * 3600
    for each in (tombstone(at=NOW), pointer(last_seen=NOW)):
        assert sweep(each, situation(now=NOW + TOMBSTONE_KEPT_S - 1)) == NOTHING
        assert sweep(each, situation(now=NOW + TOMBSTONE_KEPT_S)) == Decision(Done(), True)
    assert sweep(None, HERE) == NOTHING


def test_the_values_of_a_rotated_session_go_with_its_grace() -> None:
    """The tombstone stays as long as any other."""
    each = tombstone(ended=Ending("rotated", NOW - 10, NOW), items=record().items)
    assert sweep(each, situation(now=NOW - 1)) == NOTHING
    assert sweep(each, HERE) == Decision(Done(), True, tombstone(ended=Ending("rotated", NOW - 10)))


lifetimes = st.builds(Lifetime, st.none() | st.floats(1, 1e6), st.none() | st.floats(NOW - 1e5, NOW + 1e5))
kinds: list[Callable[[Lifetime], Record]] = [
    lambda life: record(lifetime=life),
    lambda life: record(owners=("b", "a"), lifetime=life),
    lambda life: pending(lifetime=life),
    lambda life: tombstone(lifetime=life),
    lambda life: tombstone(ended=Ending("rotated", NOW, NOW + 10), lifetime=life),
    lambda life: pointer(lifetime=life),
]


@given(st.sampled_from(kinds), lifetimes)
def test_a_record_is_due_when_the_sweep_has_something_to_do_and_never_before(
    kind: Callable[[Lifetime], Record], life: Lifetime
) -> None:
    """At its due time something changes, or the record is not limited; a moment before nothing would."""
    each = kind(life)
    due = due_at(each, HERE)
    assert due > NOW or not is_live(each)
    before, then = sweep(each, situation(now=due - 62)), sweep(each, situation(now=due))
    assert before in (NOTHING, Decision(Done(), True, each)) or due == NOW + ASKED_AGAIN_S
    assert then.write
    assert then.record != each or isinstance(then.reply, Found) or (life == Lifetime() and due == NOW + TOMBSTONE_KEPT_S)


def test_idle_sessions_are_due_when_their_idle_time_is_over() -> None:
    """The last use is known to a tenth of it, and to a minute at the coarsest."""
    assert due_at(record(lifetime=Lifetime(100.0)), HERE) == NOW + 110
    assert due_at(record(lifetime=Lifetime(6000.0)), HERE) == NOW + 6060
    assert due_at(record(lifetime=Lifetime(100.0, NOW + 5)), HERE) == NOW + 5
    assert due_at(record(owners=("b", "a"), lifetime=Lifetime(100.0, NOW + 5)), HERE) == NOW + 5 + BACKUP_EXPIRY_SLACK_S


# --- eviction ----------------------------------------------------------------------------------------------------------------


def first(*held: Record) -> list[Record]:
    """Those that may go, in the order in which they do."""
    return sorted((each for each in held if eviction(each) is not None), key=lambda each: eviction(each) or (9, 0.0))


def test_anonymous_sessions_that_never_came_back_make_room_first() -> None:
    """Then anonymous ones by their last use; who is logged in stays."""
    old, newer = record(created=50.0, last_seen=50.5), record(created=60.0, last_seen=60.5)
    came_back, again = record(created=40.0, last_seen=70.0), record(created=40.0, last_seen=80.0)
    assert first(again, record(principal="u", created=1.0), came_back, newer, old) == [old, newer, came_back, again]


def test_what_is_left_of_anonymous_sessions_makes_room_too() -> None:
    """Or whoever begins sessions and leaves them fills a store for 25 hours. First what nobody misses: an end that time alone
    would bring again, the way to a session that is elsewhere. Other ends count as sessions that never came back."""
    expired = tombstone(ended=Ending("expired: idle", 90.0))
    way, live, logout = pointer(last_seen=91.0), record(created=80.0, last_seen=80.5), tombstone(at=85.0)
    came_back = record(created=10.0, last_seen=20.0)
    assert first(came_back, logout, live, way, expired) == [expired, way, live, logout, came_back]


@pytest.mark.parametrize("whose", ["u", "\0adoption"])
def test_nothing_of_a_user_makes_room(whose: str) -> None:
    """Nor do records of our own: an end, however it came, stays as long as a copy may come back."""
    live = record(principal=whose, created=1.0, lifetime=Lifetime(None, NOW - 1))
    logout, expiry = decide(live, End(KEY, "logout", ("a", "b"), 1), HERE, None), sweep(live.but(owners=("a", None)), HERE)
    left = [each.record for each in (logout, expiry) if each.record is not None and each.record.ended is not None]
    assert len(left) == 2
    assert first(live, *left, pointer(principal=whose)) == []


def test_an_end_of_what_was_not_held_stays_unless_it_is_known_to_be_nobody_s() -> None:
    """The host may have lost the session's copy; the coordinator says what it knows."""
    unknown = decide(None, End(KEY, "logout", ("a", "b"), 1), HERE, None).record
    anonymous = decide(None, End(KEY, "logout", ("a", "b"), 1, anonymous=True), HERE, None).record
    assert unknown is not None
    assert anonymous is not None
    assert first(unknown, anonymous) == [anonymous]
    other = record(1, 3, principal="u")
    for mine, theirs in ((other, unknown), (unknown, other), (unknown.but(epoch=3), other), (other, unknown.but(epoch=3))):
        met = decide(mine, Absorb(KEY, theirs), HERE, "b").record
        assert first(*([met] if met else [])) == []


def test_a_way_of_which_nobody_knows_whose_it_leads_to_goes_last() -> None:
    """It was made of a digest. One that is known to be a user's stays, and so does one that has the last copy."""
    unknown = compare(None, of(record(4, 5, ("b", "c"), created=1.0)), HERE, "b")[0].record
    assert unknown is not None
    came_back, known = record(created=10.0, last_seen=NOW), pointer(3, ("b", "c"), principal="u")
    assert first(unknown, came_back, known, RETAINED) == [came_back, unknown]
    followed = compare(known, of(record(4, 9, ("c", "d"))), HERE, "d")[0].record
    assert followed is not None
    assert first(followed) == []
    ended_here = decide(unknown, End(KEY, "logout", ("b", "c"), 4), HERE, None).record
    assert ended_here is not None
    assert first(ended_here) == [], "it may have been a user's"
