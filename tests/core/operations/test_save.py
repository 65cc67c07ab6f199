"""Save: numbered by the master, held by both owners, wherever the session has moved; a refusal is never an ack."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import Absorb, Apply, Deliver, End, Export, LeaveHint, Promote, Put, Settle, Touch
from clustersession.core.edits import edit_of
from clustersession.core.effects import Operation
from clustersession.core.operations import (
    Cluster,
    Conflicting,
    Ended,
    Mistyped,
    Placement,
    Refused,
    Rejected,
    Saved,
    SaveOutcome,
    Unavailable,
    save,
    touch,
)
from clustersession.core.operations.saving import AGAIN_MAX, ROTATING_TRIES_MAX, TRIES_MAX
from clustersession.core.record import Lock, Patch

from ..play import REFUSED, SILENT, Played, Script, play
from ..records import KEY, patch, pending, record, tombstone
from .cluster import HERE, LIVE, cluster, gone, promoted

DONE, PATCH = calls.Done(), patch(7, x=b"new")
NUMBERED = calls.Applied(1, 4, ("a", "b"))
THERE = Placement(2, ("a", "e"))  # where a survivor `a` that lost `b` goes on


def run(script: Script, seen: Cluster | None = None, placement: Placement = HERE) -> Played[SaveOutcome]:
    operation: Operation[SaveOutcome] = save(seen or cluster(), KEY, placement, PATCH)
    return play(operation, script)


def taken_over(survivor: str, backup: str = "e", copy: calls.Promoted | None = None) -> Script:
    """`survivor` becomes the master of epoch 2 with this backup, and the patch is then numbered and delivered there."""
    change = copy or promoted(LIVE, (survivor, backup))
    return {
        (survivor, Promote): [change],
        (backup, Put): [calls.Held(change.record.version)],
        (survivor, Settle): [DONE],
        (backup, Settle): [DONE],
    }


# --- the usual way -----------------------------------------------------------------------------------------------------------


def test_a_patch_is_numbered_delivered_and_only_then_acked() -> None:
    """One call to each owner; that the mark can go is told without waiting."""
    played = run({("a", Apply): [NUMBERED], ("b", Deliver): [calls.Held(4)]})
    assert played.outcome == Saved(HERE, 4, copies=2)
    assert played.log == ["a Apply", "b Deliver", "tell a Settle"]
    assert played.sent == [
        ("a", Apply(KEY, 1, PATCH)),
        ("b", Deliver(KEY, 1, 4, ("a", "b"), PATCH)),
        ("a", Settle(KEY, 1, ("a", "b"), 4)),
    ]


def test_a_gap_at_the_backup_is_repaired_by_the_whole_record() -> None:
    """From the master, as it is now; it may have later writes already."""
    now = record(1, 6)
    script: Script = {
        ("a", Apply): [NUMBERED],
        ("b", Deliver): [calls.Gap(2)],
        ("a", Export): [calls.Exported(now)],
        ("b", Put): [calls.Held(6)],
    }
    played = run(script)
    assert played.outcome == Saved(HERE, 4, copies=2)
    assert played.calls(Put) == [("b", Put(KEY, now))]


def test_a_patch_that_was_numbered_before_is_not_delivered_under_a_wrong_number() -> None:
    """A retry: the whole record goes, and the number is the one there is."""
    script: Script = {
        ("a", Apply): [calls.Applied(1, 9, ("a", "b"), repeat=True)],
        ("a", Export): [calls.Exported(record(1, 9))],
        ("b", Put): [calls.Held(9)],
    }
    played = run(script)
    assert (played.outcome, played.calls(Deliver)) == (Saved(HERE, 9, copies=2), [])


def test_a_session_over_a_limit_is_rejected() -> None:
    """With what is too large, and nothing was changed."""
    assert run({("a", Apply): [calls.TooLarge("the session", 9, 8)]}).outcome == Rejected("the session", 9, 8)


def test_an_ended_session_takes_no_write() -> None:
    """The answer of the master is final."""
    assert run({("a", Apply): [gone("logout")]}).outcome == Ended("logout")


def test_a_full_store_is_no_reason_to_move_the_session() -> None:
    """It says so."""
    assert run({("a", Apply): [calls.Full()]}).outcome == Unavailable("a: its store is full")


# --- others are the owners now -----------------------------------------------------------------------------------------------


def test_a_save_follows_the_owners() -> None:
    """To wherever it is told, with the epoch there."""
    there = Placement(3, ("d", "c"))
    script: Script = {
        ("a", Apply): [calls.Conflict(2, ("b", "d"))],
        ("b", Apply): [calls.Conflict(3, ("d", "c"))],
        ("d", Apply): [calls.Applied(3, 8, ("d", "c"))],
        ("c", Deliver): [calls.Held(8)],
    }
    played = run(script)
    assert played.outcome == Saved(there, 8, copies=2)
    assert [(node, call.epoch) for node, call in played.calls(Apply)] == [("a", 1), ("b", 2), ("d", 3)]


def test_a_node_that_refuses_the_placement_it_names_is_not_asked_for_ever() -> None:
    """There is nowhere to follow to."""
    assert run({("a", Apply): [calls.Conflict(1, ("a", "b"))]}).outcome == Unavailable("a refuses its own placement")


def test_owners_that_keep_changing_end_a_save() -> None:
    """After a bounded number of steps."""
    changing: list[calls.Reply] = [calls.Conflict(2 + step, ("a", "b")) for step in range(TRIES_MAX + ROTATING_TRIES_MAX)]
    assert run({("a", Apply): [*changing]}).outcome == Unavailable("the owners kept changing")


def test_a_refused_delivery_is_no_ack() -> None:
    """The backup knows of other owners: the old master is shown them, and the patch is delivered again there."""
    winner = record(3, 7, ("b", "d"))
    script: Script = {
        ("a", Apply): [NUMBERED],
        ("b", Deliver): [calls.Conflict(3, ("b", "d"))],
        ("b", Export): [calls.Exported(winner)],
        ("a", Absorb): [calls.Absorbed()],
        ("b", Apply): [calls.Applied(3, 8, ("b", "d"))],
        ("d", Deliver): [calls.Held(8)],
    }
    played = run(script)
    assert played.outcome == Saved(Placement(3, ("b", "d")), 8, copies=2)
    assert played.calls(Absorb) == [("a", Absorb(KEY, winner, "b"))]
    assert [call.patch.id for _, call in played.calls(Apply)] == [PATCH.id, PATCH.id]


def test_the_record_of_a_master_that_has_moved_on_is_not_delivered() -> None:
    """Between number and export it got other owners: they are followed."""
    script: Script = {
        ("a", Apply): [NUMBERED, calls.Applied(2, 5, ("a", "d"))],
        ("b", Deliver): [calls.Gap(0)],
        ("a", Export): [calls.Exported(record(2, 4, ("a", "d")))],
        ("d", Deliver): [calls.Held(5)],
    }
    assert run(script).outcome == Saved(Placement(2, ("a", "d")), 5, copies=2)


def test_a_tombstone_at_the_backup_ends_the_session_at_the_master_too() -> None:
    """It is told at once, or the backup keeps a hint for it; the write is not acked."""
    script: Script = {("a", Apply): [NUMBERED], ("b", Deliver): [gone("logout")]}
    told = run({**script, ("a", End): [calls.EndHeld(1, ("a", "b"))]})
    assert told.outcome == Ended("logout")
    assert told.calls(End) == [("a", End(KEY, "logout", ("a", "b")))]
    hinted = run({**script, ("a", End): [SILENT], ("b", LeaveHint): [DONE]})
    assert hinted.outcome == Ended("logout")
    assert hinted.calls(LeaveHint) == [("b", LeaveHint(KEY, "a"))]


# --- an owner gives no answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [SILENT, REFUSED, calls.Later(), calls.NotMine(), calls.Broken()])
def test_the_backup_takes_over_from_a_master_that_gives_no_answer(answer: calls.Reply) -> None:
    """It becomes the master with a new backup, and the patch is numbered there."""
    script: Script = {
        **taken_over("b"),
        ("a", Apply): [answer],
        ("b", Apply): [calls.Applied(2, 4, ("b", "e"))],
        ("e", Deliver): [calls.Held(4)],
    }
    played = run(script)
    assert played.outcome == Saved(Placement(2, ("b", "e")), 4, copies=2)
    assert played.calls(Promote) == [("b", Promote(KEY, 1, ("b", "e"), "a"))]
    assert played.calls(Apply)[1] == ("b", Apply(KEY, 2, PATCH))


def test_a_dead_master_is_not_asked() -> None:
    """The table knows that it costs only time."""
    script: Script = {
        **taken_over("b"),
        ("b", Apply): [calls.Applied(2, 4, ("b", "e"))],
        ("e", Deliver): [calls.Held(4)],
    }
    assert run(script, cluster(dead="a", me="c")).log[0] == "b Promote"


def test_a_host_that_was_cut_off_writes_through_owners_it_still_takes_for_dead() -> None:
    """It is back before its next heartbeat: the owners answer, so nothing is refused and nothing is moved."""
    script: Script = {("a", Apply): [NUMBERED], ("b", Deliver): [calls.Held(4)]}
    played = run(script, cluster(dead="abde", me="c", converged=False))
    assert played.outcome == Saved(HERE, 4, copies=2)
    assert played.log == ["a Apply", "b Deliver", "tell a Settle"]


def test_a_host_that_was_cut_off_asks_for_a_takeover_too() -> None:
    """The same where the master is really gone: the survivor is asked although the table calls it dead."""
    played = run({("a", Apply): [SILENT], ("b", Promote): [gone("logout")]}, cluster(dead="abde", me="c", converged=False))
    assert played.outcome == Ended("logout")
    assert played.log == ["a Apply", "b Promote"]


def test_a_silent_backup_is_replaced_before_the_ack() -> None:
    """The master takes a new one; the patch is known there already, so it only has to be held by both."""
    script: Script = {
        **taken_over("a", copy=promoted(record(1, 4), ("a", "e"))),
        ("a", Apply): [NUMBERED, calls.Applied(2, 4, ("a", "e"), repeat=True)],
        ("b", Deliver): [SILENT],
        ("e", Put): [calls.Held(4), calls.Held(4)],
        ("a", Export): [calls.Exported(record(2, 4, ("a", "e")))],
    }
    played = run(script)
    assert played.outcome == Saved(THERE, 4, copies=2)
    assert played.calls(Promote) == [("a", Promote(KEY, 1, ("a", "e"), "b"))]


def test_a_dead_backup_is_not_asked() -> None:
    """It is replaced at once."""
    script: Script = {
        **taken_over("a"),
        ("a", Apply): [NUMBERED, calls.Applied(2, 4, ("a", "e"))],
        ("e", Deliver): [calls.Held(4)],
    }
    assert run(script, cluster(dead="b")).log[:2] == ["a Apply", "a Promote"]


def test_nobody_can_take_over() -> None:
    """Both are asked again a moment later, twice; then it is unavailable, and says why. Nothing was acked."""
    played = run({("a", Apply): SILENT, ("b", Promote): SILENT})
    assert played.outcome == Unavailable("a: timeout, and b could not take over")
    assert played.log == ["a Apply", "b Promote", "wait"] * AGAIN_MAX + ["a Apply", "b Promote"]


def test_who_could_not_take_over_for_a_moment_is_asked_again() -> None:
    """Both owners were busy with themselves: the same patch is taken a moment later, by whoever of them can."""
    again: Script = {("a", Apply): [SILENT, NUMBERED], ("b", Promote): [calls.Later()], ("b", Deliver): [calls.Held(4)]}
    assert run(again).outcome == Saved(HERE, 4, copies=2)
    moved: Script = {
        **taken_over("b"),
        ("a", Apply): SILENT,
        ("b", Promote): [calls.Later(), promoted(LIVE, ("b", "e"))],
        ("b", Apply): [calls.Applied(2, 4, ("b", "e"))],
        ("e", Deliver): [calls.Held(4)],
    }
    assert run(moved).outcome == Saved(Placement(2, ("b", "e")), 4, copies=2)


def test_an_end_that_shows_in_the_take_over_is_the_answer() -> None:
    """Refused by the survivor, or in the record it would go on from."""
    assert run({("a", Apply): [SILENT], ("b", Promote): [gone("logout")]}).outcome == Ended("logout")
    over = promoted(tombstone(1, ("a", "b")), ("b", "e"))
    assert run({**taken_over("b", copy=over), ("a", Apply): [SILENT]}).outcome == Ended("logout")


def test_a_single_owner_that_gives_no_answer_leaves_nobody() -> None:
    """There is no other copy."""
    alone = Placement(1, ("a", None))
    assert run({("a", Apply): SILENT}, cluster(me="c"), alone).outcome == Unavailable("a: timeout")
    assert run({("a", Apply): calls.Later()}, cluster(me="c"), alone).outcome == Unavailable("a: later")


@pytest.mark.parametrize("export", [SILENT, REFUSED, calls.Exported(None)])
def test_the_backup_takes_over_from_a_master_that_is_gone_before_the_record_was_delivered(export: calls.Reply) -> None:
    """It fell silent between number and export: the backup lacks the patch, takes its place and numbers it anew."""
    script: Script = {
        ("a", Apply): [NUMBERED],
        ("b", Deliver): [calls.Gap(1)],
        ("a", Export): [export],
        **taken_over("b"),
        ("b", Apply): [calls.Applied(2, 4, ("b", "e"))],
        ("e", Deliver): [calls.Held(4)],
    }
    played = run(script)
    assert played.outcome == Saved(Placement(2, ("b", "e")), 4, copies=2)
    assert {call.patch.id for _, call in played.calls(Apply)} == {PATCH.id}


def test_a_master_that_cannot_be_asked_for_the_record_acks_nothing() -> None:
    """If the backup cannot take over either: whether both hold the write is not known."""
    script: Script = {
        ("a", Apply): NUMBERED,
        ("b", Deliver): calls.Gap(1),
        ("a", Export): SILENT,
        ("b", Promote): calls.Later(),
    }
    assert run(script).outcome == Unavailable("no second node took the write")


def test_a_write_is_not_acked_on_the_tombstone_that_came_after_it() -> None:
    """The master exports what it holds now: that the backup takes a tombstone is no ack of a write."""
    script: Script = {("a", Apply): [NUMBERED], ("b", Deliver): [calls.Gap(1)], ("a", Export): [calls.Exported(tombstone())]}
    assert run(script).outcome == Ended("logout")


# --- one copy ----------------------------------------------------------------------------------------------------------------


def test_one_copy_is_acked_only_where_nobody_could_hold_a_second() -> None:
    """It counts as one; `min_copies=2` refuses instead."""
    alone = Placement(1, ("a", None))
    script: Script = {("a", Apply): [calls.Applied(1, 4, ("a", None))]}
    assert run(script, cluster(nodes="a"), alone).outcome == Saved(alone, 4, copies=1)
    refused = run(script, cluster(nodes="a", min_copies=2), alone)
    assert refused.outcome == Unavailable("no second node can take a copy")


def test_a_single_owner_takes_a_backup_with_the_next_write() -> None:
    """As soon as there is one."""
    script: Script = {
        **taken_over("a", copy=promoted(record(1, 4, ("a", None)), ("a", "e"))),
        ("a", Apply): [calls.Applied(1, 4, ("a", None)), calls.Applied(2, 4, ("a", "e"), repeat=True)],
        ("a", Export): [calls.Exported(record(2, 4, ("a", "e")))],
        ("e", Put): [calls.Held(4), calls.Held(4)],
    }
    played = run(script, placement=Placement(1, ("a", None)))
    assert played.outcome == Saved(THERE, 4, copies=2)
    assert played.calls(Promote) == [("a", Promote(KEY, 1, ("a", "e"), None))]


# --- at the wrong moment -----------------------------------------------------------------------------------------------------


def test_a_change_of_owners_under_way_is_finished_first() -> None:
    """Then the patch is numbered there."""
    change = pending(2, 3, ("a", "e"))
    script: Script = {
        ("a", Apply): [calls.Found(change, serving=False), calls.Applied(2, 4, ("a", "e"))],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
        ("e", Deliver): [calls.Held(4)],
    }
    assert run(script, placement=Placement(2, ("a", "e"))).outcome == Saved(THERE, 4, copies=2)


def test_a_change_of_owners_that_cannot_be_finished() -> None:
    """Who was to take the record says nothing, and nobody else may."""
    change = pending(2, 3, ("a", "b"))
    script: Script = {("a", Apply): calls.Found(change, serving=False), ("b", Put): SILENT, ("a", Promote): SILENT}
    assert run(script).outcome == Unavailable("a: the owners are changing")


def test_a_rotation_is_waited_for() -> None:
    """It is over in a moment: then the session is there, or ended."""
    script: Script = {("a", Apply): [calls.Rotating(), calls.Rotating(), NUMBERED], ("b", Deliver): [calls.Held(4)]}
    played = run(script)
    assert played.outcome == Saved(HERE, 4, copies=2)
    assert played.log[:5] == ["a Apply", "wait", "a Apply", "wait", "a Apply"]


def test_a_rotation_without_end_is_not_waited_for_for_ever() -> None:
    """And its master is not taken for silent: the owners stay as they are."""
    script: Script = {("a", Apply): [calls.Rotating()] * (ROTATING_TRIES_MAX + 1)}
    played = run(script)
    assert isinstance(played.outcome, Unavailable)
    assert played.log.count("wait") == ROTATING_TRIES_MAX


# --- touch -------------------------------------------------------------------------------------------------------------------


def test_a_touch_tells_both_owners_and_waits_for_nobody() -> None:
    """Owners that are gone are not told."""
    assert play(touch(cluster(), KEY, HERE), {}).sent == [("a", Touch(KEY)), ("b", Touch(KEY))]
    assert play(touch(cluster(), KEY, HERE), {}).log == ["tell a Touch", "tell b Touch"]
    assert play(touch(cluster(dead="b"), KEY, HERE), {}).log == ["tell a Touch"]
    assert play(touch(cluster(), KEY, Placement(1, ("a", None))), {}).log == ["tell a Touch"]


# --- operations and expectations -------------------------------------------------------------------------------------------


def test_the_backup_gets_what_the_master_made_of_an_operation() -> None:
    """The result as a whole value: whatever the backup holds under the key, under one stamp both hold the same."""
    counting = Patch(b"1", {"x": b"new"}, edits=(edit_of("incr", "n", 1),), expected={"n": b"\x04"})
    numbered = calls.Applied(1, 4, ("a", "b"), results={"n": b"\x05"})
    played = play(save(cluster(), KEY, HERE, counting), {("a", Apply): [numbered], ("b", Deliver): [calls.Held(4)]})
    assert played.outcome == Saved(HERE, 4, copies=2)
    delivered = Patch(b"1", {"x": b"new", "n": b"\x05"})
    assert played.sent[:2] == [("a", Apply(KEY, 1, counting)), ("b", Deliver(KEY, 1, 4, ("a", "b"), delivered))]


def test_after_a_failover_an_operation_is_carried_out_on_what_the_survivor_holds() -> None:
    """The new master gets the operation itself, not the result of a master that nobody will hear of again."""
    counting = Patch(b"1", {}, edits=(edit_of("incr", "n", 1),))
    numbered = calls.Applied(2, 4, ("b", "e"), results={"n": b"\x09"})
    script: Script = {**taken_over("b", "e"), ("a", Apply): [REFUSED], ("b", Apply): [numbered], ("e", Deliver): [calls.Held(4)]}
    played = play(save(cluster(), KEY, HERE, counting), script)
    assert played.outcome == Saved(Placement(2, ("b", "e")), 4, copies=2)
    assert ("b", Apply(KEY, 2, counting)) in played.sent
    assert ("e", Deliver(KEY, 2, 4, ("b", "e"), Patch(b"1", {"n": b"\x09"}))) in played.sent


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (calls.Differs("n"), Conflicting("n")),
        (calls.Unsuitable("incr", "n", "str"), Mistyped("incr", "n", "str")),
    ],
)
def test_what_the_master_refuses_is_asked_of_nobody_else(reply: calls.Reply, outcome: Refused) -> None:
    """It has said no by what it holds; nothing is delivered."""
    played = run({("a", Apply): [reply]})
    assert (played.outcome, played.log) == (outcome, ["a Apply"])


COUNTING = Patch(b"1", {}, edits=(edit_of("incr", "n", 1),))
LOCKING = Patch(b"1", {}, locks={"pay": Lock(b"me", 9.0)})


@pytest.mark.parametrize("reply", [calls.Differs("n"), calls.Unsuitable("incr", "n", "str"), calls.TooLarge("the session", 9, 8)])
@pytest.mark.parametrize("lost", [SILENT, REFUSED])
@pytest.mark.parametrize("change", [PATCH, COUNTING])
def test_what_a_silent_master_may_have_nobody_can_refuse(change: Patch, lost: calls.Reply, reply: calls.Reply) -> None:
    """It may have numbered the patch, and come back with it: that nothing was saved would not be true."""
    script: Script = {**taken_over("b", "e"), ("a", Apply): [lost], ("b", Apply): [reply]}
    assert isinstance(play(save(cluster(), KEY, HERE, change), script).outcome, Unavailable)


def test_what_was_numbered_and_not_delivered_nobody_can_refuse() -> None:
    """The backup has gone on meanwhile, with a lock of somebody else; the master's number comes back with it in a merge."""
    gone_on = calls.Conflict(2, ("b", "e"))
    taught: Script = {("b", Export): [calls.Exported(LIVE)], ("a", Absorb): [calls.Absorbed(None)]}
    script: Script = {**taught, ("a", Apply): [NUMBERED], ("b", Deliver): [gone_on], ("b", Apply): [calls.Differs("\0lock pay")]}
    assert isinstance(run(script).outcome, Unavailable)


def test_a_lock_that_a_silent_master_may_have_given_is_refused_by_the_next() -> None:
    """No merge brings a lock, so whoever wants it may go on waiting for it."""
    script: Script = {**taken_over("b", "e"), ("a", Apply): [SILENT], ("b", Apply): [calls.Differs("\0lock pay")]}
    assert play(save(cluster(), KEY, HERE, LOCKING), script).outcome == Conflicting("\0lock pay")
