"""Rotate: a new session from exactly what the old one held, and the old one is over before anybody sees the new ID."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import End, Freeze, Promote, Put, Settle
from clustersession.core.edits import edit_of
from clustersession.core.effects import Operation
from clustersession.core.operations import (
    Cluster,
    Conflicting,
    Ended,
    Mistyped,
    Placement,
    Refused,
    Rotated,
    RotateOutcome,
    Saved,
    Unavailable,
    rotate,
)
from clustersession.core.operations.rotating import FREEZE_S, THAW_S
from clustersession.core.operations.saving import ROTATING_TRIES_MAX
from clustersession.core.placement import rendezvous
from clustersession.core.record import Lifetime, Patch, Stamp
from clustersession.core.values import encode_value

from ..play import REFUSED, SILENT, Played, Script, play
from ..records import KEY, NOW, item, patch, pending, record
from .cluster import NODES, cluster, gone, promoted

DONE, HELD = calls.Done(), calls.Held(1)
NEW_KEY = b"n" * 16
PATCH = patch(7, user=b"7", tmp=None)
OLD = record(
    3,
    9,
    ("a", "b"),
    items={"cart": item(b"c", 2, 4, "b"), "tmp": item(b"t"), "gone": item(None)},
    created=10.0,
    lifetime=Lifetime(30.0, 2000.0),
)
BACKUP = next(node for node in rendezvous(NEW_KEY, NODES) if node != "a")  # of the new session
ENDS: Script = {("a", End): [calls.EndHeld(3, ("a", "b"))], ("b", End): [calls.EndHeld(3, ("a", "b"))] * 2}
STORES: Script = {("a", Put): [HELD], (BACKUP, Put): [HELD]}
THERE = Placement(3, ("a", "b"))


def run(
    script: Script, seen: Cluster | None = None, placement: Placement = THERE, grace: float | None = None
) -> Played[RotateOutcome]:
    operation: Operation[RotateOutcome] = rotate(
        seen or cluster(), KEY, placement, NEW_KEY, PATCH, now=NOW, principal="7", auth_time=NOW, grace=grace
    )
    return play(operation, script)


def test_the_old_one_is_frozen_the_new_one_stored_and_the_old_one_ended() -> None:
    """In this order, all before the answer."""
    played = run({("a", Freeze): [calls.Frozen(OLD)], **STORES, **ENDS})
    assert isinstance(played.outcome, Rotated)
    assert played.outcome.saved == Saved(Placement(1, ("a", BACKUP)), 1, copies=2)
    assert played.log[:5] == ["a Freeze", "a Put", f"{BACKUP} Put", "b End", "all a End, b End"]
    assert played.calls(Freeze) == [("a", Freeze(KEY, 3, FREEZE_S))]
    closing = ("b", End(KEY, "rotated", ("a", "b"), 3, None, OLD.version))
    assert played.calls(End) == [closing, *((owner, End(KEY, "rotated", ("a", "b"), 3, anonymous=True)) for owner in "ab")]


def test_the_new_session_begins_anew_with_what_the_old_one_held() -> None:
    """Values and ages go on, limits are never extended; history, stamps and owners are new, deletions left behind."""
    outcome = run({("a", Freeze): [calls.Frozen(OLD.but(extra={"later": b"\x01"}))], **STORES, **ENDS}).outcome
    assert isinstance(outcome, Rotated)
    new = outcome.record
    stamp = Stamp(1, 1, "a")
    assert new.items == {"cart": (stamp, b"c"), "user": (stamp, b"7"), "tmp": (stamp, None)}
    assert (new.epoch, new.version, new.owners, new.accepted, new.base) == (1, 1, ("a", BACKUP), True, 1)
    assert (new.created, new.lifetime, new.last_seen) == (OLD.created, OLD.lifetime, NOW)
    assert (new.principal, new.auth_time, new.patches, new.extra) == ("7", NOW, (PATCH.id,), {"later": b"\x01"})


def test_a_grace_is_handed_on_to_the_end() -> None:
    """For so many seconds the old ID shows what the old session held."""
    played = run({("a", Freeze): [calls.Frozen(OLD)], **STORES, **ENDS}, grace=10.0)
    assert [call.grace for _, call in played.calls(End)] == [10.0] * 3


def test_the_old_session_is_rotated_where_it_is_now() -> None:
    """The freeze follows to its owners, and so does the end."""
    moved = OLD.but(epoch=5, owners=("d", "c"))
    script: Script = {
        ("a", Freeze): [calls.Conflict(5, ("d", "c"))],
        ("d", Freeze): [calls.Frozen(moved)],
        **STORES,
        ("c", End): [calls.EndHeld(5, ("d", "c"))] * 2,
        ("d", End): [calls.EndHeld(5, ("d", "c"))],
    }
    if BACKUP in ("c", "d"):
        script = {**script, (BACKUP, Put): [HELD]}
    played = run(script)
    assert isinstance(played.outcome, Rotated)
    assert played.calls(Freeze)[1] == ("d", Freeze(KEY, 5, FREEZE_S))


def test_a_session_that_has_ended_is_not_rotated() -> None:
    """Nothing new is stored."""
    assert run({("a", Freeze): [gone("logout")]}).log == ["a Freeze"]
    assert run({("a", Freeze): [gone("logout")]}).outcome == Ended("logout")


def test_another_rotation_is_waited_for() -> None:
    """It ends the session, or it dies and the session can be rotated."""
    played = run({("a", Freeze): [calls.Rotating(), gone("rotated")]})
    assert (played.outcome, played.log) == (Ended("rotated"), ["a Freeze", "wait", "a Freeze"])
    assert run({("a", Freeze): [calls.Rotating()] * ROTATING_TRIES_MAX}).outcome == Unavailable("the owners kept changing")


def test_a_change_of_owners_under_way_is_finished_first() -> None:
    """Then it is frozen there."""
    change = pending(4, 9, ("a", "b"), items=OLD.items)
    script: Script = {
        ("a", Freeze): [calls.Found(change, serving=False), calls.Frozen(change.but(accepted=True))],
        ("b", Put): [HELD],
        ("a", Settle): [DONE],
        ("b", Settle): [DONE],
        ("a", Put): [HELD],
        ("a", End): [calls.EndHeld(4, ("a", "b"))],
        ("b", End): [calls.EndHeld(4, ("a", "b"))] * 2,
    }
    if BACKUP == "b":
        script = {**script, ("b", Put): [HELD, HELD]}
    else:
        script = {**script, (BACKUP, Put): [HELD]}
    assert isinstance(run(script, placement=Placement(4, ("a", "b"))).outcome, Rotated)


@pytest.mark.parametrize("answer", [SILENT, REFUSED, calls.Later(), calls.NotMine()])
def test_the_backup_takes_over_from_a_master_that_gives_no_answer(answer: calls.Reply) -> None:
    """And is frozen then."""
    change = promoted(OLD, ("b", "e"))
    script: Script = {
        ("a", Freeze): [answer],
        ("b", Promote): [change],
        ("e", Put): [calls.Held(9)],
        ("b", Settle): [DONE],
        ("e", Settle): [DONE],
        ("b", Freeze): [gone("enough")],
    }
    played = run(script)
    assert played.outcome == Ended("enough")
    assert played.calls(Freeze)[-1] == ("b", Freeze(KEY, 4, FREEZE_S))


def test_a_dead_master_is_not_asked() -> None:
    """Its backup is, or nobody."""
    assert run({("b", Promote): [gone("logout")]}, cluster(dead="a", me="c")).outcome == Ended("logout")
    alone = Placement(1, ("a", None))
    assert run({}, cluster(dead="a", me="c"), alone).outcome == Unavailable("a gave no answer")
    assert run({("a", Freeze): [SILENT], ("b", Promote): [SILENT]}).outcome == Unavailable("a gave no answer")


def test_without_a_place_for_the_new_one_the_old_one_lives_on() -> None:
    """Delete before create would log the user out; and it takes writes again at once."""
    played = run({("a", Freeze): [calls.Frozen(OLD)], ("a", Put): [calls.Full()]})
    assert (played.outcome, played.calls(End)) == (Unavailable("a: full"), [])
    assert played.log[-1] == "tell a Freeze"
    assert played.calls(Freeze)[-1] == ("a", Freeze(KEY, 3, THAW_S))


def test_a_host_on_its_way_out_gives_the_new_one_to_another() -> None:
    """It takes nothing new itself: who logs in during a drain would be turned away."""
    first, second = [node for node in rendezvous(NEW_KEY, NODES) if node != "a"][:2]
    stores: Script = {(first, Put): [HELD], (second, Put): [HELD]}
    outcome = run({("a", Freeze): [calls.Frozen(OLD)], **stores, **ENDS}, cluster(leaving="a")).outcome
    assert isinstance(outcome, Rotated)
    assert outcome.saved.placement == Placement(1, (first, second))
    assert {stamp.master for stamp, _ in outcome.record.items.values()} == {first}


def test_the_new_one_is_withdrawn_if_the_old_one_cannot_be_ended() -> None:
    """Two live sessions of one login would be one too many; nobody has the new ID yet."""
    script: Script = {("a", Freeze): [calls.Frozen(OLD)], **STORES, ("b", End): [SILENT], ("a", calls.Promote): [SILENT]}
    played = run(script)
    assert isinstance(played.outcome, Unavailable)
    withdrawn = [End(NEW_KEY, "withdrawn", ("a", BACKUP))] * 2
    assert [call for node, call in played.calls(End) if call.key == NEW_KEY] == withdrawn
    assert played.log[-2:] == ["tell a End", f"tell {BACKUP} End"]


@pytest.mark.parametrize("written", [False, True])
def test_a_session_that_is_moved_during_its_rotation_is_frozen_again_there(written: bool) -> None:
    """A drain hands it over at this moment: the rotation goes on with what it has, unless somebody has written since."""
    there = OLD.but(epoch=4, owners=("b", "c"), version=OLD.version + written)
    script: Script = {
        ("a", Freeze): [calls.Frozen(OLD)],
        **STORES,
        ("b", End): [calls.Conflict(4, ("b", "c"))],
        ("b", Freeze): [calls.Frozen(there)],
    }
    if not written:
        ended = calls.EndHeld(4, ("b", "c"))
        script = {**script, ("b", End): [calls.Conflict(4, ("b", "c")), ended], ("c", End): [ended] * 2}
    played = run(script)
    assert isinstance(played.outcome, Unavailable if written else Rotated)
    assert (End(NEW_KEY, "withdrawn", ("a", BACKUP)) in [call for _, call in played.calls(End)]) is written


def test_a_single_copy_is_withdrawn_where_it_is() -> None:
    """There is one owner to tell."""
    script: Script = {
        ("a", Freeze): [calls.Frozen(OLD.but(owners=("a", None)))],
        ("a", Put): [HELD],
        ("a", End): [SILENT],
    }
    assert run(script, cluster(nodes="a"), Placement(3, ("a", None))).log[-1] == "tell a End"


# --- operations and expectations -------------------------------------------------------------------------------------------


def rotate_with(patch: Patch, script: Script) -> Played[RotateOutcome]:
    operation = rotate(cluster(), KEY, THERE, NEW_KEY, patch, now=NOW, principal="7", auth_time=NOW, grace=None)
    return play(operation, script)


def test_an_operation_is_carried_out_on_what_was_frozen() -> None:
    """What another request added up to then is in it; both owners of the new session get the result."""
    old = OLD.but(items={"n": item(encode_value(41))})
    script: Script = {("a", Freeze): [calls.Frozen(old)], **STORES, **ENDS}
    played = rotate_with(Patch(b"1", {}, edits=(edit_of("incr", "n", 1),), expected={"n": encode_value(41)}), script)
    assert isinstance(played.outcome, Rotated)
    assert played.outcome.record.items == {"n": (Stamp(1, 1, "a"), encode_value(42))}


@pytest.mark.parametrize(
    ("patch", "outcome"),
    [
        (Patch(b"1", {}, edits=(edit_of("append", "n", 1),)), Mistyped("append", "n", "int")),
        (Patch(b"1", {}, expected={"n": None}), Conflicting("n")),
    ],
)
def test_what_does_not_fit_the_frozen_session_leaves_it_as_it_was(patch: Patch, outcome: Refused) -> None:
    """It takes patches again, and there is no new session."""
    old = OLD.but(items={"n": item(encode_value(41))})
    played = rotate_with(patch, {("a", Freeze): [calls.Frozen(old)]})
    assert (played.outcome, played.log) == (outcome, ["a Freeze", "tell a Freeze"])
    assert played.sent[-1] == ("a", Freeze(KEY, 3, THAW_S))
