"""What a node does with each call in each state of its record: one table, and one test for every rule behind it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from clustersession.core import calls, encoding
from clustersession.core.calls import Call
from clustersession.core.counted import COUNTING_ID_BYTES
from clustersession.core.edits import edit_of
from clustersession.core.record import (
    SOMEBODY,
    Ending,
    Lifetime,
    Lock,
    Patch,
    Record,
    accepted,
    digest,
    live_items,
    moved_to_clock,
    pointer_to,
    size_of,
)
from clustersession.core.replica import Decision, Situation, decide, fetch, key_of
from clustersession.core.values import encode_value

from .records import KEY, NOW, item, patch, pending, pointer, record, situation, tombstone

HERE = situation()
LIVE = record(1, 3)

# --- the table ---------------------------------------------------------------------------------------------------------------

STATES: dict[str, tuple[Record | None, Situation]] = {
    "none": (None, HERE),
    "master": (LIVE, HERE),
    "backup": (record(1, 3, ("b", "a")), HERE),
    "alone": (record(1, 3, ("a", None)), HERE),
    "pending": (pending(2, 3), HERE),  # this node's own change of owners
    "newcomer": (pending(2, 3, ("b", "a")), HERE),  # the new backup of somebody else's
    "tombstone": (tombstone(version=3), HERE),
    "pointer": (pointer(1, ("b", "c"), version=3), HERE),
    "unsynced": (LIVE, situation(synced=False)),
    "empty": (None, situation(synced=False)),  # unsynced without a record
    "frozen": (LIVE.but(frozen_until=NOW + 0.1), HERE),
    "expired": (LIVE.but(lifetime=Lifetime(None, NOW - 1)), HERE),
}


def about(epoch: int, owners: Any) -> dict[str, Call]:
    """One call of each kind that fits a record of this history (version 3), the odd ones named for what is odd."""
    return {
        "apply": calls.Apply(KEY, epoch, patch(9)),
        "apply, older": calls.Apply(KEY, epoch - 1, patch(9)),
        "apply, newer": calls.Apply(KEY, epoch + 1, patch(9)),
        "deliver": calls.Deliver(KEY, epoch, 4, owners, patch(9)),
        "deliver, gap": calls.Deliver(KEY, epoch, 5, owners, patch(9)),
        "deliver, older": calls.Deliver(KEY, epoch - 1, 4, owners, patch(9)),
        "deliver, newer": calls.Deliver(KEY, epoch + 1, 4, owners, patch(9)),
        "deliver, fork": calls.Deliver(KEY, epoch, 4, ("d", "a"), patch(9)),
        "put": calls.Put(KEY, record(epoch, 4, owners)),
        "put, lower": calls.Put(KEY, record(0, 9, ("d", "a"))),
        "put, fork": calls.Put(KEY, record(epoch, 9, ("d", "a"))),
        "put, higher": calls.Put(KEY, record(5, 1, ("d", "a"))),
        "put, ended": calls.Put(KEY, tombstone(epoch, owners)),
        "promote": calls.Promote(KEY, epoch, ("a", "d"), "b"),
        "promote, older": calls.Promote(KEY, epoch - 1, ("a", "d"), "b"),
        "settle": calls.Settle(KEY, epoch, owners, 3),
        "settle, lower": calls.Settle(KEY, epoch, owners, 2),
        "settle, fork": calls.Settle(KEY, epoch, ("d", "a"), 3),
        "absorb": calls.Absorb(KEY, record(5, 1, ("d", "c")), "d"),
        "absorb, ended": calls.Absorb(KEY, tombstone(epoch, owners), "b"),
        "end": calls.End(KEY, "logout", ("a", "b"), 1),
        "hint": calls.LeaveHint(KEY, "d"),
        "freeze": calls.Freeze(KEY, epoch, 0.25),
        "freeze, older": calls.Freeze(KEY, epoch - 1, 0.25),
        "expire": calls.Expire(KEY, epoch, owners),
        "expire, older": calls.Expire(KEY, epoch - 1, owners),
        "touch": calls.Touch(KEY, -5.0),
        "export": calls.Export(KEY),
    }


# A cell is the reply, * if the record is written, >n a hint for n, <n a hint for n that goes; ? see the rules below.
TABLE = """
call           | none      | master        | backup        | alone         | pending       | newcomer      | tombstone     | pointer      | unsynced   | empty     | frozen        | expired
apply          | NotMine   | Applied*>b    | Conflict      | Applied*      | Found         | Conflict      | Gone          | Conflict     | Later      | Later     | Rotating      | Gone
apply, older   | NotMine   | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Later      | Later     | Conflict      | Gone
apply, newer   | NotMine   | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Later      | Later     | Conflict      | Gone
deliver        | Gap       | Held*         | Held*         | Held*         | Held*         | Held*         | Gone          | Gap          | Held*      | Gap       | Held*         | Held*
deliver, gap   | Gap       | Gap           | Gap           | Gap           | Gap           | Gap           | Gone          | Gap          | Gap        | Gap       | Gap           | Gap
deliver, older | Gap       | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Conflict   | Gap       | Conflict      | Conflict
deliver, newer | Gap       | Gap           | Gap           | Gap           | Gap           | Gap           | Gone          | Gap          | Gap        | Gap       | Gap           | Gap
deliver, fork  | Gap       | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Conflict   | Gap       | Conflict      | Conflict
put            | Held*     | Held*         | Held*         | Held*         | Held*         | Held*         | Gone          | ?            | Held*      | Held*     | Held*         | Held*
put, lower     | Held*     | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Conflict   | Held*     | Conflict      | Conflict
put, fork      | Held*     | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Conflict   | Held*     | Conflict      | Conflict
put, higher    | Held*     | Held*>b       | Held*>b       | Held*         | Held*>b       | Held*>b       | Gone          | Held*        | Held*>b    | Held*     | Held*>b       | Held*>b
put, ended     | Held*     | Held*>b       | Held*>b       | Held*         | Held*>b       | Held*>b       | Held          | Held*>b>c    | Held*>b    | Held*     | Held*>b       | Held*>b
promote        | Later     | Promoted*>b>d | Promoted*>b>d | Promoted*>b>d | Promoted*>b>d | Promoted*>b>d | Promoted*>b>d | Conflict     | Later      | Later     | Promoted*>b>d | Promoted*>b>d
promote, older | Later     | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Later      | Later     | Conflict      | Conflict
settle         | NotMine   | Done<b        | Done          | Done          | Done*<b       | Done*         | Done          | Conflict     | Done<b     | NotMine   | Done<b        | Done<b
settle, lower  | NotMine   | Done          | Done          | Done          | Done*         | Done*         | ?             | Conflict     | Done       | NotMine   | Done          | Done
settle, fork   | NotMine   | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Conflict     | Conflict   | NotMine   | Conflict      | Conflict
absorb         | Absorbed  | Absorbed*>b   | Absorbed*>b   | Absorbed*     | Absorbed*>b   | Absorbed*>b   | Absorbed      | Absorbed*    | Absorbed*>b| Absorbed  | Absorbed*>b   | Absorbed*>b
absorb, ended  | Absorbed* | Absorbed*>b   | Absorbed*>b   | Absorbed*     | Absorbed*>b   | Absorbed*>b   | Absorbed      | Absorbed*>b>c| Absorbed*>b| Absorbed* | Absorbed*>b   | Absorbed*>b
end            | EndHeld*>b| EndHeld*>b    | EndHeld*>b    | EndHeld*      | EndHeld*>b    | EndHeld*>b    | EndHeld       | EndHeld*>b>c | EndHeld*>b | EndHeld*>b| EndHeld*>b    | EndHeld*>b
hint           | Done>d    | Done>d        | Done>d        | Done>d        | Done>d        | Done>d        | Done>d        | Done>d       | Done>d     | Done>d    | Done>d        | Done>d
freeze         | NotMine   | Frozen*       | Conflict      | Frozen*       | Found         | Conflict      | Gone          | Conflict     | Later      | Later     | Rotating      | Gone
freeze, older  | NotMine   | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Later      | Later     | Conflict      | Gone
expire         | NotMine   | InUse         | InUse         | InUse         | InUse         | InUse         | Gone          | Conflict     | Later      | Later     | InUse         | EndHeld*>b
expire, older  | NotMine   | Conflict      | Conflict      | Conflict      | Conflict      | Conflict      | Gone          | Conflict     | Later      | Later     | Conflict      | Conflict
touch          | NotMine   | Done*         | Done*         | Done*         | Done*         | Done*         | NotMine       | NotMine      | Done*      | NotMine   | Done*         | ?
export         | Exported  | Exported      | Exported      | Exported      | Exported      | Exported      | Exported      | Exported     | Exported   | Exported  | Exported      | Exported
"""  # noqa: E501
ROWS = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
CELLS = [(row[0], state, cell) for row in ROWS[1:] for state, cell in zip(ROWS[0][1:], row[1:], strict=True) if cell != "?"]


def shown(decision: Decision) -> str:
    told = "".join(f">{owner}" for owner in decision.hint) + "".join(f"<{owner}" for owner in decision.unhint)
    return f"{type(decision.reply).__name__}{'*' if decision.write else ''}{told}"


@pytest.mark.parametrize(("name", "state", "expected"), CELLS)
def test_each_call_in_each_state(name: str, state: str, expected: str) -> None:
    """The reply, whether the record is written, and who is hinted are those of the table."""
    held, at = STATES[state]
    call = about(*((1, ("a", "b")) if held is None else (held.epoch, held.owners)))[name]
    assert shown(decide(held, call, at, "b")) == expected


def test_the_table_is_complete() -> None:
    """Every state, and every call that is about one record, stands in it."""
    assert ROWS[0][1:] == list(STATES)
    assert [row[0] for row in ROWS[1:]] == list(about(1, ("a", "b")))
    assert {type(call) for call in about(1, ("a", "b")).values()} == {
        each for each in calls.SessionCall.__args__ if each not in (calls.Fetch, calls.Confirm, calls.Forget)
    }


def test_calls_about_many_records_are_no_matter_of_one() -> None:
    """They have no key, and `decide` says so."""
    for call in (calls.Confirm(()), calls.Inventory(None, 1), calls.Many(())):
        assert key_of(call) == b""
        with pytest.raises(TypeError, match=type(call).__name__):
            decide(None, call, HERE, None)
    assert key_of(calls.Touch(KEY)) == KEY


# --- fetch -------------------------------------------------------------------------------------------------------------------


def asked(held: Record | None, at: Situation = HERE, *, age: float = 5.0, hinted: str = "") -> Any:
    return fetch(held, calls.Fetch(KEY, age), at, lambda owner: owner == hinted)


def test_an_owner_with_a_lease_vouches_for_its_copy() -> None:
    """Without the lease, with a write that the other may lack, or pending, it shows the copy but does not vouch for it."""
    for mine, other in ((record(), "b"), (record(owners=("b", "a")), "b")):
        assert asked(mine) == calls.Found(mine, serving=True)
        assert asked(mine, situation(leases="cd")) == calls.Found(mine, serving=False)
        assert asked(mine, hinted=other) == calls.Found(mine, serving=False, unheld=True)
        assert asked(mine, hinted="c") == calls.Found(mine, serving=True)
    assert asked(pending()) == calls.Found(pending(), serving=False)


def test_a_single_owner_needs_no_lease() -> None:
    """There is nobody who could know more."""
    assert asked(record(owners=("a", None)), situation(leases=())) == calls.Found(record(owners=("a", None)), serving=True)


def test_an_unsynced_node_says_later_but_knows_a_tombstone_for_certain() -> None:
    """What it holds may be out of date, an end never is (finding F6)."""
    away = situation(synced=False)
    for held in (record(), pointer(), record(lifetime=Lifetime(None, NOW - 1))):
        assert asked(held, away) == calls.Later()
    assert asked(tombstone(at=NOW - 3), away) == calls.Gone("logout", 3.0, 1, ("a", "b"))


def test_files_younger_than_the_id_cannot_hold_its_session() -> None:
    """So an unsynced node with new files says *not mine* rather than keeping a user waiting; older files may hold it."""
    away = situation(synced=False, born=NOW - 100)
    assert asked(None, away, age=101.0) == calls.NotMine()
    assert asked(None, away, age=100.0) == asked(None, away, age=99.0) == calls.Later()
    assert asked(None, situation(born=NOW - 100), age=1.0) == calls.NotMine()


def test_a_pointer_and_a_stranger_s_copy_say_who_the_owners_are() -> None:
    """Never as data, but with whether the last copy is still retained."""
    assert asked(pointer(2)) == calls.Moved(2, ("b", "c"), retained=False)
    assert asked(pointer_to(record(2, owners=("b", "c")), {"x": item(b"1")})) == calls.Moved(2, ("b", "c"), retained=True)
    assert asked(record(2, owners=("b", "c"))) == calls.Moved(2, ("b", "c"), retained=True)


def test_what_has_expired_is_gone_before_it_is_swept() -> None:
    """A single owner says so; one of two says that as far as it knows it is over, and whoever asks asks the other too."""
    old = Lifetime(None, NOW)
    assert asked(record(owners=("a", None), lifetime=old)) == calls.Gone("expired: absolute", 0.0, 1, ("a", None))
    for owners in (("a", "b"), ("b", "a")):
        held = record(owners=owners, lifetime=old)
        assert asked(held) == calls.Found(held, serving=False, expired="expired: absolute")


def test_a_rotated_session_is_readable_until_its_grace_ends_and_no_longer() -> None:
    """The end is final at once; only what it held may still be read, and only for so long."""
    graced = tombstone(ended=Ending("rotated", NOW - 4, NOW + 6), items=record().items)
    assert asked(graced) == calls.Gone("rotated", 4.0, 1, ("a", "b"), graced)
    assert asked(graced, situation(now=NOW + 5.9)).grace == graced
    assert asked(graced, situation(now=NOW + 6)).grace is None
    for write in ("apply", "deliver", "put", "freeze"):
        assert isinstance(decide(graced, about(1, ("a", "b"))[write], HERE, None).reply, calls.Gone)


def test_a_user_s_grace_is_shown_only_by_who_would_know_that_it_is_over() -> None:
    """As a live copy is: not by a node that was away, nor without a lease. What nobody was logged in to may be seen anyway."""
    ending = Ending("rotated", NOW - 4, NOW + 6)
    users, nobodys = (tombstone(ended=ending, items=record().items, principal=who) for who in ("7", None))
    alone = users.but(owners=("a", None))
    for at, shown in ((HERE, True), (situation(synced=False), False), (situation(leases=()), False)):
        assert asked(users, at) == calls.Gone("rotated", 4.0, 1, ("a", "b"), users if shown else None)
        assert asked(nobodys, at).grace == nobodys
    assert asked(alone, situation(leases=())).grace == alone
    assert asked(alone, situation(synced=False)).grace is None


# --- patches -----------------------------------------------------------------------------------------------------------------


def test_the_master_numbers_a_patch_and_marks_it_unheld_at_once() -> None:
    """Number, values, use and the hint for the backup are one decision (finding F8)."""
    held = record(2, 7, last_seen=NOW - 50)
    reply, write, written, hint, unhint = decide(held, calls.Apply(KEY, 2, patch(5, x=b"2")), HERE, None)
    assert (reply, write, hint, unhint) == (calls.Applied(2, 8, ("a", "b")), True, ("b",), ())
    assert written is not None
    assert (written.version, live_items(written), written.last_seen) == (8, {"x": b"2"}, NOW)


@pytest.mark.parametrize("state", ["master", "alone", "frozen"])
def test_a_patch_that_was_numbered_before_is_not_numbered_again(state: str) -> None:
    """A retry with the same patch id changes nothing, and says that it is one; also while the session is being rotated."""
    held, at = STATES[state]
    assert held is not None
    held = held.but(patches=(b"other id", patch(9).id))
    assert decide(held, calls.Apply(KEY, 1, patch(9)), at, None) == Decision(calls.Applied(1, 3, held.owners, repeat=True))


def test_a_patch_over_the_limit_leaves_the_old_version_intact() -> None:
    """It is refused with the size it would have had; deletions don't count, and up to the limit it is taken."""
    small = situation(record_bytes_max=10)
    held = record(items={"abc": item(b"1234567"), "gone": item(None)})
    assert size_of(held) == 10
    assert decide(held, calls.Apply(KEY, 1, patch(1, d=b"")), small, None) == Decision(calls.TooLarge("the session", 11, 10))
    assert decide(held, calls.Apply(KEY, 1, patch(1, abc=b"7654321")), small, None).write
    assert decide(held, calls.Apply(KEY, 1, patch(1, abc=None, wxyz=b"123456")), small, None).write


def test_a_lower_or_higher_epoch_is_refused_with_the_placement_there_is() -> None:
    """A 409 tells where to go; it is no ack, and nothing is written."""
    held = record(5, 3, ("a", "c"))
    for epoch in (4, 6):
        assert decide(held, calls.Apply(KEY, epoch, patch()), HERE, None) == Decision(calls.Conflict(5, ("a", "c")))
    assert decide(held, calls.Deliver(KEY, 4, 4, ("b", "a"), patch()), HERE, None).reply == calls.Conflict(5, ("a", "c"))


def test_a_freeze_ends_by_itself_or_with_the_next_patch() -> None:
    """A rotation that died holds up writes no longer than it said."""
    frozen = decide(record(), calls.Freeze(KEY, 1, 0.25), HERE, None)
    assert frozen.reply == calls.Frozen(record())
    assert frozen.record == record(frozen_until=NOW + 0.25)
    assert isinstance(decide(frozen.record, calls.Apply(KEY, 1, patch()), situation(now=NOW + 0.24), None).reply, calls.Rotating)
    thawed = decide(frozen.record, calls.Apply(KEY, 1, patch()), situation(now=NOW + 0.25), None)
    assert isinstance(thawed.reply, calls.Applied)
    assert thawed.record is not None
    assert thawed.record.frozen_until is None
    assert isinstance(decide(frozen.record, calls.Freeze(KEY, 1, 0.25), situation(now=NOW + 0.25), None).reply, calls.Frozen)


def test_a_numbered_patch_is_taken_in_order_and_once() -> None:
    """The next number is taken, a known patch is held already, anything else is a gap with the version that is held."""
    held = record(1, 3, ("b", "a"), patches=(patch(8).id,), last_seen=NOW - 50)
    taken = decide(held, calls.Deliver(KEY, 1, 4, ("b", "a"), patch(9, y=b"2")), HERE, "b")
    assert taken.reply == calls.Held(4)
    assert taken.record is not None
    assert (taken.record.version, live_items(taken.record), taken.record.last_seen) == (4, {"x": b"1", "y": b"2"}, NOW)
    assert decide(held, calls.Deliver(KEY, 1, 4, ("b", "a"), patch(8)), HERE, "b") == Decision(calls.Held(3))
    for number in (2, 3, 5):
        assert decide(held, calls.Deliver(KEY, 1, number, ("b", "a"), patch(9)), HERE, "b") == Decision(calls.Gap(3))
    assert decide(None, calls.Deliver(KEY, 1, 4, ("b", "a"), patch(9)), HERE, "b") == Decision(calls.Gap(0))


def test_of_a_patch_that_came_in_a_merge_in_part_only_the_rest_is_carried_out() -> None:
    """`n` has it, `m` was written anew elsewhere. The backup gets the whole record then, as after any repeated patch."""
    counting = Patch(
        b"c" * COUNTING_ID_BYTES, {"x": encode_value("new")}, edits=(edit_of("incr", "n", 1), edit_of("incr", "m", 5))
    )
    merged = record(2, 4, items={key: item(encode_value(7), 2, 4) for key in "nm"}, counted={"n": (counting.id,)})
    first = decide(merged, calls.Apply(KEY, 2, counting), HERE, None)
    assert first.reply == calls.Applied(2, 5, merged.owners, repeat=True)
    assert first.record is not None
    assert live_items(first.record) == {"n": encode_value(7), "m": encode_value(12), "x": encode_value("new")}
    assert first.record.counted == dict.fromkeys("nmx", (counting.id,))
    assert decide(first.record, calls.Apply(KEY, 2, counting), HERE, None) == Decision(first.reply)


def test_a_counting_write_under_a_lock_that_another_has_by_now_is_not_acked_as_known() -> None:
    """It may have come in a merge after the other one had read; but given up, or still its own, it is known."""
    under = {"pay": b"mine"}
    counting = Patch(b"c" * COUNTING_ID_BYTES, {}, edits=(edit_of("incr", "x", 1),), under=under)
    known = record(1, 4, counted={"x": (counting.id,)})
    call = calls.Apply(KEY, 1, counting)
    acked = Decision(calls.Applied(1, 4, known.owners, repeat=True))
    assert decide(known.but(locks={"pay": Lock(b"another", 99.0)}), call, HERE, None) == Decision(calls.Differs("\0lock pay"))
    for locks in ({}, {"pay": Lock(b"mine", 99.0)}, {"other": Lock(b"another", 99.0)}):
        assert decide(known.but(locks=locks), call, HERE, None) == acked


def test_the_backup_knows_what_has_counted_too() -> None:
    """A delivery whose answer was lost is held already."""
    delivered = Patch(b"c" * COUNTING_ID_BYTES, {"n": encode_value(7)})
    call = calls.Deliver(KEY, 1, 4, ("b", "a"), delivered)
    taken = decide(record(1, 3, ("b", "a")), call, HERE, "b").record
    assert taken is not None
    assert taken.counted == {"n": (delivered.id,)}
    assert decide(taken, call, HERE, "b") == Decision(calls.Held(4))


def test_a_numbered_patch_settles_the_change_of_owners_before_it() -> None:
    """The master numbers nothing while its change is pending, so a number says that it is accepted."""
    taken = decide(pending(2, 3, ("b", "a")), calls.Deliver(KEY, 2, 4, ("b", "a"), patch()), HERE, "b").record
    assert taken is not None
    assert (taken.accepted, taken.base) == (True, 2)


@pytest.mark.parametrize("name", ["apply", "deliver", "touch", "freeze", "settle", "hint", "promote", "export"])
@pytest.mark.parametrize("state", ["none", "empty", "tombstone"])
def test_nothing_but_a_whole_record_or_an_end_creates(name: str, state: str) -> None:
    """A write to what is not there, or has ended, makes no live session: an end stays an end."""
    held, at = STATES[state]
    written = decide(held, about(1, ("a", "b"))[name], at, "b").record
    assert written is None or written.ended is not None


def test_an_ex_owner_revives_what_it_retains_only_when_it_is_told_to() -> None:
    """A pointer is no copy; what it still has becomes one when everybody after it is gone (finding F15)."""
    retained = pointer(2, ("b", None), items={"x": item(b"1")})
    plain, revive = calls.Promote(KEY, 2, ("a", "d"), None), calls.Promote(KEY, 2, ("a", "d"), None, revive=True)
    refused = Decision(calls.Conflict(2, ("b", None)))
    assert decide(retained, plain, HERE, None) == refused
    assert decide(pointer(2, ("b", None)), revive, HERE, None) == refused
    assert decide(retained, calls.Promote(KEY, 1, ("a", "d"), None, revive=True), HERE, None) == refused
    live = retained.but(pointer=False, epoch=3, owners=("a", "d"), accepted=False, base=2, former=("b",))
    assert decide(retained, revive, HERE, None) == Decision(calls.Promoted(live), True, live, hint=("b", "d"))


# --- whole records -----------------------------------------------------------------------------------------------------------


def test_a_record_based_on_an_older_epoch_is_refused_unless_its_survivor_is_an_owner_here() -> None:
    """The history that the new backup knows has won; the survivor of that very history may go on from it (finding F4)."""
    here = record(3, 5, ("b", "a"))
    assert decide(here, calls.Put(KEY, pending(4, 9, ("d", "a"), base=2)), HERE, "d") == Decision(calls.Conflict(3, ("b", "a")))
    of_owner = pending(4, 6, ("b", "a"), base=2)
    taken = decide(here, calls.Put(KEY, of_owner), HERE, "b")
    assert (taken.reply, taken.record) == (calls.Held(6), of_owner.but(base=3))
    assert isinstance(decide(here, calls.Put(KEY, pending(4, 9, ("d", "a"), base=3)), HERE, "d").reply, calls.Held)


def test_a_record_of_the_history_that_is_pending_here_is_taken() -> None:
    """However old its base is: it is the same change."""
    later = pending(5, 2, ("b", "a"), base=2)
    assert decide(pending(5, 1, ("b", "a"), base=2), calls.Put(KEY, later), HERE, "b").record == later


def test_a_node_on_its_way_out_takes_only_what_its_own_workers_begin() -> None:
    """They may not have heard yet; who chose it as a backup has to choose another one."""
    leaving = situation(leaving=True)
    assert decide(None, calls.Put(KEY, record(1, 1, ("b", "a"))), leaving, "b") == Decision(calls.Later())
    assert decide(None, calls.Put(KEY, record(1, 1, ("a", "b"))), leaving, None).reply == calls.Held(1)


def test_a_frozen_record_is_thawed_by_a_freeze_of_no_time() -> None:
    """The rotation was given up: the next write is taken at once."""
    frozen = decide(record(3, 5), calls.Freeze(KEY, 3, 1.0), HERE, None).record
    assert frozen is not None
    assert decide(frozen, calls.Freeze(KEY, 3, 1.0), HERE, None).reply == calls.Rotating()
    thawed = decide(frozen, calls.Freeze(KEY, 3, 0.0), HERE, None).record
    assert isinstance(decide(thawed, calls.Apply(KEY, 3, patch(1)), HERE, None).reply, calls.Applied)


def test_a_put_is_answered_with_the_version_that_is_held_afterwards() -> None:
    """A late copy sets nothing back, and its sender learns which version there is."""
    held = record(1, 5, ("b", "a"))
    assert decide(held, calls.Put(KEY, record(1, 3, ("b", "a"))), HERE, "b") == Decision(calls.Held(5), False, held)
    assert decide(held, calls.Put(KEY, record(1, 8, ("b", "a"))), HERE, "b").reply == calls.Held(8)


FIRST = record(1, 1, patches=(b"made it",))


def test_two_first_records_of_one_history_are_not_the_same() -> None:
    """Their stamps are equal whatever they hold, so nothing tells them apart later: the second one is no copy of the first."""
    refused = Decision(calls.Conflict(1, ("a", "b")))
    counted = FIRST.but(patches=(), counted={"n": (b"counted it",)})
    for held in (FIRST, FIRST.but(version=7, patches=(b"made it", b"wrote")), counted):
        assert decide(held, calls.Put(KEY, FIRST.but(patches=(b"another",))), HERE, "b") == refused
        assert decide(held, calls.Put(KEY, FIRST.but(patches=(), counted={"n": (b"other one",)})), HERE, "b") == refused


def test_a_first_record_that_comes_again_is_held() -> None:
    """Its call was repeated, or another host finishes what its maker began; also after later writes."""
    counted = FIRST.but(patches=(), counted={"n": (b"counted it",)})
    for first in (FIRST, counted, FIRST.but(patches=())):
        for held in (first, first.but(version=7, patches=(*first.patches, b"wrote"))):
            assert decide(held, calls.Put(KEY, first), HERE, "b") == Decision(calls.Held(held.version), False, held)


def test_only_a_first_record_is_known_by_what_made_it() -> None:
    """Of later ones the version tells which is newer, and a merge may have forgotten ids."""
    for new in (FIRST.but(version=2, patches=(b"x",)), FIRST.but(epoch=2, base=2, patches=(b"x",))):
        assert isinstance(decide(FIRST, calls.Put(KEY, new), HERE, "b").reply, calls.Held)


def test_an_end_is_never_overwritten_by_a_record() -> None:
    """Not by any epoch; who sends one learns of the end."""
    gone = calls.Gone("logout", 2.0, 1, ("a", "b"))
    for late in (record(9, 9, ("b", "a")), pending(9), pointer(9)):
        assert decide(tombstone(at=NOW - 2), calls.Put(KEY, late), HERE, "b") == Decision(gone)


def test_absorbing_answers_with_what_is_held_and_what_is_better() -> None:
    """So that the other side can take it, or knows that both hold the same."""
    held = record(2, 5)
    result = decide(held, calls.Absorb(KEY, record(1, 9), "b"), HERE, "b")
    assert result == Decision(calls.Absorbed(held, digest(KEY, held)), False, held)
    assert decide(None, calls.Absorb(KEY, record(1, 1, ("b", "c"))), HERE, "b").reply == calls.Absorbed(None, None)


def test_who_brings_a_record_is_its_holder_unless_it_names_another() -> None:
    """Only the backup's own copy tells the master that its change is accepted."""
    change = pending(2, 3)

    def settled_by(holder: str | None, source: str | None) -> bool:
        result = decide(change, calls.Absorb(KEY, change, holder), HERE, source).record
        return result is not None and result.accepted

    assert settled_by("b", None)
    assert settled_by(None, "b")
    assert not settled_by("c", "b")
    assert not settled_by(None, None)


# --- owners ------------------------------------------------------------------------------------------------------------------


def test_a_change_of_owners_is_pending_and_everybody_concerned_is_hinted() -> None:
    """Owners of the old epoch, the one that did not answer (finding F3), and the new backup, in the same transaction."""
    held = record(4, 7, ("a", "b"), frozen_until=NOW + 1)
    result = decide(held, calls.Promote(KEY, 4, ("a", "d"), "c"), HERE, None)
    changed = held.but(epoch=5, owners=("a", "d"), accepted=False, base=4, frozen_until=None, former=("b", "c"))
    assert result == Decision(calls.Promoted(changed), True, changed, hint=("b", "c", "d"))


def test_the_new_owners_are_told_whom_their_forerunners_had_still_to_tell() -> None:
    """An ex-owner that nobody has reached is told by whoever holds the session by then; who asks for the change knows of it."""
    at = situation("a", hinted=lambda key: ("x", "d"))
    changed = decide(record(4, 7, ("a", "b")), calls.Promote(KEY, 4, ("a", "d"), "b"), at, "b").record
    assert changed is not None
    assert changed.former == ("x",)
    taken = decide(None, calls.Put(KEY, changed.but(former=("x", "d"))), situation("d"), "a")
    assert taken.hint == ("x",)
    older = decide(record(4, 6, ("d", "b")), calls.Absorb(KEY, accepted(changed)), situation("d"), "a")
    assert {"b", "x"} <= set(older.hint)
    again = decide(taken.record, calls.Put(KEY, changed.but(version=8)), situation("d"), "a")
    assert again.hint == ()


def test_a_change_of_a_pending_change_keeps_the_epoch_it_started_from() -> None:
    """So its rank stays below any later accepted epoch."""
    changed = decide(pending(5, base=2), calls.Promote(KEY, 5, ("a", "d"), None), HERE, None).record
    assert changed is not None
    assert (changed.epoch, changed.base, changed.accepted) == (6, 2, False)


def test_a_single_owner_has_nobody_to_wait_for() -> None:
    """Its change is accepted at once."""
    result = decide(record(4), calls.Promote(KEY, 4, ("a", None), "b"), HERE, None)
    assert result.record is not None
    assert (result.record.accepted, result.record.epoch, result.hint) == (True, 5, ("b",))


def test_an_end_changes_owners_too() -> None:
    """A tombstone looks for its second holder as a record does, also where nothing is synced; it stays a tombstone."""
    for at in (HERE, situation(synced=False)):
        result = decide(tombstone(3), calls.Promote(KEY, 3, ("a", "d"), "b"), at, None)
        assert isinstance(result.reply, calls.Promoted)
        assert result.record is not None
        assert (result.record.ended, result.record.epoch) == (tombstone().ended, 4)
    late = decide(tombstone(3), calls.Promote(KEY, 2, ("a", "d"), "b"), HERE, None)
    assert late == Decision(calls.Gone("logout", 0.0, 3, ("a", "b")))


def test_only_an_owner_by_its_own_record_is_promoted() -> None:
    """Never by a cookie alone: an ex-owner says who the owners are."""
    for held in (pointer(4), record(4, owners=("b", "c"))):
        assert decide(held, calls.Promote(KEY, 4, ("a", "d"), "b"), HERE, None) == Decision(calls.Conflict(4, ("b", "c")))


def test_settling_takes_the_hint_of_the_other_owner_only_if_it_holds_what_is_here() -> None:
    """A version that was numbered meanwhile stays marked; the change itself is accepted."""
    change = pending(2, 5)
    done = decide(change, calls.Settle(KEY, 2, ("a", "b"), 5), HERE, None)
    assert done == Decision(calls.Done(), True, change.but(accepted=True, base=2), unhint=("b",))
    assert decide(change, calls.Settle(KEY, 2, ("a", "b"), 4), HERE, None) == done._replace(unhint=())
    assert decide(record(2, 5), calls.Settle(KEY, 2, ("a", "b"), 6), HERE, None).unhint == ("b",)


# --- end and touch -----------------------------------------------------------------------------------------------------------


def test_an_end_is_written_whether_or_not_there_is_a_record() -> None:
    """With the owners of the record, or else those that the coordinator knows; the answer names them (finding F2)."""
    call = calls.End(KEY, "logout", ("a", "b"), 1)
    held = record(4, 9, ("a", "c"))
    known = decide(held, call, HERE, None)
    assert known.reply == calls.EndHeld(4, ("a", "c"))
    assert known.record == held.but(ended=Ending("logout", NOW), items={})
    assert known.hint == ("c",)
    unknown = decide(None, call, HERE, None)
    assert unknown.reply == calls.EndHeld(1, ("a", "b"))
    assert unknown.record is not None
    assert (unknown.record.ended, unknown.record.owners) == (Ending("logout", NOW), ("a", "b"))
    assert decide(tombstone(4, ("a", "c")), call, HERE, None) == Decision(calls.EndHeld(4, ("a", "c")))


def test_an_end_with_a_grace_keeps_the_values_for_so_long() -> None:
    """And without one nothing of them stays."""
    graced = decide(record(), calls.End(KEY, "rotated", ("a", "b"), 1, 10.0), HERE, None).record
    assert graced is not None
    assert (graced.ended, graced.items) == (Ending("rotated", NOW, NOW + 10), record().items)


def test_an_end_without_a_grace_ends_that_of_before() -> None:
    """Nothing is shown from then on, nor kept of it; it stays what it was, the other owner hears of it. Not so an end with a
    grace, which is the rotation's own, or one of a certain version."""
    ending = Ending("rotated", NOW - 4, NOW + 6)
    graced = tombstone(4, ("a", "c"), ended=ending, items=record().items, principal="7")
    done = decide(graced, calls.End(KEY, "rotated", ("a", "b"), 1), HERE, None)
    over = graced.but(ended=Ending("rotated", NOW - 4), items={}, principal=SOMEBODY)
    assert done == Decision(calls.EndHeld(4, ("a", "c")), True, over, hint=("c",))
    assert decide(graced, calls.End(KEY, "rotated", ("a", "b"), 1, 10.0), HERE, None) == Decision(calls.EndHeld(4, ("a", "c")))
    assert not decide(graced, calls.End(KEY, "emptied", ("a", "c"), 4, None, 1), HERE, None).write


def test_a_logout_is_told_that_the_session_has_another_id() -> None:
    """It would seem to have ended, and go on under that."""
    for held in (tombstone(4, ("a", "c"), ended=Ending("rotated", NOW - 4)), tombstone(4, ended=Ending("rotated", NOW, NOW + 9))):
        told = decide(held, calls.End(KEY, "logout", ("a", "b"), 1), HERE, None)
        assert isinstance(told.reply, calls.Gone)
        assert (told.reply.reason, told.write) == ("rotated", False)


def test_a_touch_only_moves_the_last_use_forward() -> None:
    """By at least a second, by its age, never back, and nothing else of the record changes."""
    held = record(1, 3, last_seen=NOW - 10)
    assert decide(held, calls.Touch(KEY, 3.0), HERE, None) == Decision(calls.Done(), True, held.but(last_seen=NOW - 3))
    assert decide(held, calls.Touch(KEY, 9.0), HERE, None).write
    for age in (9.1, 10.0, 60.0):
        assert decide(held, calls.Touch(KEY, age), HERE, None) == Decision(calls.Done())


def test_a_copy_means_the_same_on_every_clock() -> None:
    """No rule compares two clocks: moved to another host's time, with that host's now, a decision is the same but moved."""
    by = 12345.0
    there = situation(now=NOW + by)
    for state, (held, at) in STATES.items():
        moved = held and moved_to_clock(held, by)
        for name, call in about(1, ("a", "b")).items():
            here = decide(held, call, at, "b")
            then = decide(
                moved,
                encoding.moved_to_clock(call, by),
                there if at.synced else msgspec.structs.replace(there, synced_until=there.now),
                "b",
            )
            assert then.record == (here.record and moved_to_clock(here.record, by)), (state, name)
            assert then.reply == encoding.moved_to_clock(here.reply, by), (state, name)


def test_a_patch_from_a_later_release_keeps_what_the_record_carries() -> None:
    """`extra` of a record is untouched by writes of an older release."""
    sent = Patch(b"1" * 8, {"x": b"2"})
    held = record(extra={"later": b"\x01"})
    written = decide(held, calls.Apply(KEY, 1, sent), HERE, None).record
    assert written is not None
    assert written.extra == held.extra
