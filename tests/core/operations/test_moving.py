"""Change of owners: a survivor takes a new backup, and both sides of a cut link come to one history."""

from __future__ import annotations

from typing import TypeAlias

import pytest

from clustersession.core import calls
from clustersession.core.calls import Absorb, Export, Promote, Put, Settle
from clustersession.core.effects import Operation
from clustersession.core.operations import Cluster, Placement
from clustersession.core.operations.moving import completed, moved, taught
from clustersession.core.record import Record

from ..play import REFUSED, SILENT, Played, Script, play
from ..records import KEY, pending, record, tombstone
from .cluster import LIVE, cluster, gone, next_backup, promoted

DONE = calls.Done()
Moved: TypeAlias = tuple[Placement, Record | None] | calls.Gone | None


def run(script: Script, seen: Cluster | None = None, lost: str | None = "b") -> Played[Moved]:
    operation: Operation[Moved] = moved(seen or cluster(), KEY, 1, "a", lost)
    return play(operation, script)


def held_by(backup: str, change: calls.Promoted) -> Script:
    """Everything goes well with this backup."""
    version = calls.Held(change.record.version)
    return {("a", Promote): [change], (backup, Put): [version], ("a", Settle): [DONE], (backup, Settle): [DONE]}


def test_the_tests_know_whom_a_survivor_recruits() -> None:
    """The first of the key's order that is neither it nor the lost one."""
    assert [next_backup("a", "b"), next_backup("a", "e"), next_backup("a", "e", "b")] == ["e", "b", "d"]


def test_a_survivor_takes_a_new_backup_and_both_learn_when_it_is_settled() -> None:
    """First the record, then the master's word that it has not moved on, then the backup, then the mark goes."""
    change = promoted(LIVE, ("a", "e"))
    played = run(held_by("e", change))
    assert played.outcome == (Placement(2, ("a", "e")), change.record)
    assert played.log == ["a Promote", "e Put", "a Settle", "e Settle", "tell a Settle"]
    assert played.sent == [
        ("a", Promote(KEY, 1, ("a", "e"), "b")),
        ("e", Put(KEY, change.record)),
        ("a", Settle(KEY, 2, ("a", "e"), calls.NOTHING_HELD)),
        ("e", Settle(KEY, 2, ("a", "e"), 3)),
        ("a", Settle(KEY, 2, ("a", "e"), 3)),
    ]


def test_the_mark_stays_if_the_backup_was_not_told() -> None:
    """It holds the record, so the change is accepted; that it does not know it yet is what the hint is for."""
    script: Script = {**held_by("e", promoted(LIVE, ("a", "e"))), ("e", Settle): [SILENT]}
    played = run(script)
    assert played.outcome == (Placement(2, ("a", "e")), promoted(LIVE, ("a", "e")).record)
    assert played.log[-1] == "e Settle"


def test_a_survivor_that_has_moved_on_says_where_to() -> None:
    """What the backup took is then a history that has lost already: nobody may call it accepted."""
    script: Script = {
        ("a", Promote): [promoted(LIVE, ("a", "e"))],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [calls.Conflict(4, ("a", "d"))],
    }
    assert run(script).outcome == (Placement(4, ("a", "d")), None)


@pytest.mark.parametrize("answer", [SILENT, calls.NotMine()])
def test_a_survivor_that_does_not_confirm_settles_nothing(answer: calls.Reply) -> None:
    """It is not known whether the change stands."""
    script: Script = {("a", Promote): [promoted(LIVE, ("a", "e"))], ("e", Put): [calls.Held(3)], ("a", Settle): [answer]}
    assert run(script).outcome is None


def test_the_first_of_the_order_arbitrates() -> None:
    """A candidate that gives no answer is tried again, not passed over: the other side of a cut link asks it too."""
    first, second = promoted(LIVE, ("a", "e")), promoted(LIVE.but(epoch=2), ("a", "e"))
    script: Script = {("a", Promote): [first, second], ("e", Put): [SILENT, calls.Held(3)]}
    played = run({**script, ("a", Settle): [DONE], ("e", Settle): [DONE]})
    assert played.outcome == (Placement(3, ("a", "e")), second.record)
    assert played.calls(Promote) == [("a", Promote(KEY, 1, ("a", "e"), "b")), ("a", Promote(KEY, 2, ("a", "e"), "b"))]


def test_a_candidate_that_stays_silent_ends_it_for_now() -> None:
    """Nothing is accepted; the next request tries again."""
    change = promoted(LIVE, ("a", "e"))
    assert run({("a", Promote): [change, change], ("e", Put): [SILENT, SILENT]}).outcome is None


def test_a_single_owner_may_pass_over_a_silent_candidate() -> None:
    """Nobody else could own a copy, so there is nothing to arbitrate."""
    second = promoted(LIVE.but(epoch=2), ("a", "b"))
    script: Script = {
        **held_by("b", second),
        ("a", Promote): [promoted(LIVE, ("a", "e")), second],
        ("e", Put): [REFUSED],
    }
    played = run(script, lost=None)
    assert played.outcome == (Placement(3, ("a", "b")), second.record)
    assert [call.owners for _, call in played.calls(Promote)] == [("a", "e"), ("a", "b")]


def test_alone_there_is_one_copy_if_the_policy_has_it() -> None:
    """`min_copies=2` refuses instead."""
    alone = promoted(LIVE, ("a", None))
    seen = cluster(nodes="ab")
    assert run({("a", Promote): [alone]}, seen).outcome == (Placement(2, ("a", None)), alone.record)
    assert run({}, cluster(nodes="ab", min_copies=2)).outcome is None


def test_a_single_owner_goes_on_alone_when_the_only_candidate_is_silent() -> None:
    """What the candidate may hold is pending, and not served until this owner settles it."""
    alone = promoted(LIVE, ("a", None))
    script: Script = {("a", Promote): [promoted(LIVE, ("a", "c")), alone], ("c", Put): [SILENT]}
    assert run(script, cluster(nodes="ac"), lost=None).outcome == (Placement(2, ("a", None)), alone.record)


def test_a_survivor_that_is_gone_is_not_asked() -> None:
    """The table says that it is dead."""
    assert run({}, cluster(dead="a", me="c")).outcome is None


@pytest.mark.parametrize("answer", [SILENT, calls.Later(), calls.NotMine()])
def test_a_survivor_that_cannot_be_promoted(answer: calls.Reply) -> None:
    """Silent, not synced, or without a copy: not now."""
    assert run({("a", Promote): [answer]}).outcome is None


def test_a_survivor_that_is_of_a_later_epoch_says_so() -> None:
    """Somebody was quicker: that is where to go on."""
    assert run({("a", Promote): [calls.Conflict(3, ("a", "d"))]}).outcome == (Placement(3, ("a", "d")), None)
    assert run({("a", Promote): [gone()]}).outcome == gone()


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [(calls.Conflict(4, ("b", "e")), (Placement(4, ("b", "e")), None)), (gone(epoch=4), gone(epoch=4))],
)
def test_a_refused_survivor_takes_the_record_of_the_winner(refusal: calls.Reply, outcome: Moved) -> None:
    """The new backup knows a history that has won: the survivor is shown it, and nothing is rolled back (finding F4)."""
    winner = record(4, 7, ("b", "e"))
    script: Script = {
        ("a", Promote): [promoted(LIVE, ("a", "e"))],
        ("e", Put): [refusal],
        ("e", Export): [calls.Exported(winner)],
        ("a", Absorb): [calls.Absorbed()],
    }
    played = run(script)
    assert played.outcome == outcome
    assert played.sent[-1] == ("a", Absorb(KEY, winner, "e"))


@pytest.mark.parametrize("answer", [SILENT, calls.Exported(None), calls.Broken()])
def test_without_the_record_of_the_winner_nothing_is_taught(answer: calls.Reply) -> None:
    """The hints will do it."""
    assert play(taught(KEY, "a", "e"), {("e", Export): [answer]}).log == ["e Export"]


# --- finishing what another coordinator began --------------------------------------------------------------------------------


def finish(copy: Record, script: Script, *, delivered: bool = False, seen: Cluster | None = None) -> Played[Moved]:
    operation: Operation[Moved] = completed(seen or cluster(), KEY, copy, delivered=delivered)
    return play(operation, script)


def test_a_pending_change_is_finished_by_whoever_meets_it() -> None:
    """The record goes to the new backup, then it is settled with the version that is held there."""
    change = pending(2, 3, ("a", "e"))
    played = finish(change, {("e", Put): [calls.Held(4)], ("a", Settle): [DONE], ("e", Settle): [DONE]})
    assert played.outcome == (Placement(2, ("a", "e")), change)
    assert played.calls(Settle)[1] == ("e", Settle(KEY, 2, ("a", "e"), 4))


def test_what_is_delivered_needs_only_to_be_settled() -> None:
    """Both answered with it."""
    played = finish(pending(2, 3, ("a", "e")), {("a", Settle): [DONE], ("e", Settle): [DONE]}, delivered=True)
    assert played.log == ["a Settle", "e Settle", "tell a Settle"]


def test_a_single_copy_has_nothing_to_finish() -> None:
    """It is where it is."""
    single = record(2, 3, ("a", None))
    assert finish(single, {}).outcome == (Placement(2, ("a", None)), single)


def test_a_backup_that_is_silent_now_is_replaced() -> None:
    """As if the change had never begun."""
    change = pending(2, 3, ("a", "b"))
    after = promoted(change, ("a", "e"))
    played = finish(change, {**held_by("e", after), ("b", Put): [SILENT]})
    assert played.outcome == (Placement(3, ("a", "e")), after.record)
    assert played.calls(Promote) == [("a", Promote(KEY, 2, ("a", "e"), "b"))]


def test_a_backup_that_knows_better_ends_the_change() -> None:
    """With an end, or with other owners."""
    for refusal, outcome in ((gone(), gone()), (calls.Conflict(5, ("d", "e")), (Placement(5, ("d", "e")), None))):
        script: Script = {
            ("e", Put): [refusal],
            ("e", Export): [calls.Exported(tombstone(5, ("d", "e")))],
            ("a", Absorb): [calls.Absorbed()],
        }
        assert finish(pending(2, 3, ("a", "e")), script).outcome == outcome
