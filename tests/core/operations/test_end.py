"""End: acked when two nodes hold the tombstone, wherever the session has moved."""

from __future__ import annotations

from clustersession.core import calls
from clustersession.core.calls import End, LeaveHint, Promote, Put, Settle
from clustersession.core.effects import Operation
from clustersession.core.operations import Cluster, Ended, EndedBy, EndOutcome, Placement, Unavailable, end, end_unwritten
from clustersession.core.operations.ending import TRIES_MAX

from ..play import SILENT, Played, Script, play
from ..records import KEY, tombstone
from .cluster import HERE, cluster, gone, promoted

DONE = calls.Done()
HELD = calls.EndHeld(1, ("a", "b"))
ENDED = tombstone(1)


def run(
    script: Script, seen: Cluster | None = None, *, placement: Placement = HERE, grace: float | None = None
) -> Played[EndOutcome]:
    operation: Operation[EndOutcome] = end(seen or cluster(), KEY, placement, "logout", grace)
    return play(operation, script)


def moved_to(backup: str = "e", survivor: str = "a", epoch: int = 1) -> Script:
    """The survivor's tombstone gets another holder."""
    change = promoted(ENDED.but(epoch=epoch), (survivor, backup))
    return {
        (survivor, LeaveHint): [DONE],
        (survivor, Promote): [change],
        (backup, Put): [calls.Held(1)],
        (survivor, Settle): [DONE],
        (backup, Settle): [DONE],
    }


def test_both_owners_are_told_at_once() -> None:
    """Then both know of each other that nothing is left to tell."""
    played = run({("a", End): [HELD], ("b", End): [HELD]})
    assert (played.outcome, played.log) == (EndedBy(2), ["all a End, b End", "tell a Settle", "tell b Settle"])
    assert played.calls(End) == [(owner, End(KEY, "logout", ("a", "b"), 1, None)) for owner in "ab"]
    assert run({("a", End): [HELD], ("b", End): [HELD]}, grace=10.0).calls(End)[0][1].grace == 10.0


def test_an_end_follows_to_the_owners_of_the_highest_epoch() -> None:
    """The coordinator knew others; it is acked only when those there are now hold it (finding F2)."""
    script: Script = {
        ("a", End): [calls.EndHeld(2, ("b", "c"))],
        ("b", End): [calls.EndHeld(3, ("c", "d"))],
        ("c", End): [calls.EndHeld(3, ("c", "d"))],
        ("d", End): [calls.EndHeld(3, ("c", "d"))],
    }
    played = run(script)
    assert (played.outcome, played.log[:2]) == (EndedBy(2), ["all a End, b End", "all c End, d End"])
    assert [(node, call.epoch, call.owners) for node, call in played.calls(End)][2] == ("c", 3, ("c", "d"))


def test_a_lower_epoch_leads_nowhere() -> None:
    """What an owner that missed the last change says does not count."""
    script: Script = {("a", End): [HELD], ("b", End): [calls.EndHeld(1, ("c", "d"))]}
    assert run(script).outcome == EndedBy(2)


def test_an_end_recruits_as_a_save_does() -> None:
    """One owner gave no answer: it is hinted, the other takes a new one, and only then it is acked (finding F12)."""
    for silent, survivor in (("b", "a"), ("a", "b")):
        script: Script = {**moved_to("e", survivor), (survivor, End): [HELD], (silent, End): [SILENT]}
        played = run(script)
        assert played.outcome == EndedBy(2)
        assert played.calls(LeaveHint) == [(survivor, LeaveHint(KEY, silent))]
        assert played.calls(Promote) == [(survivor, Promote(KEY, 1, (survivor, "e"), silent))]
        assert played.log[-2:] == [f"tell {survivor} Settle", "tell e Settle"]


def test_a_dead_owner_is_not_told_but_hinted() -> None:
    """It gets the tombstone when it comes back; two others hold it meanwhile."""
    played = run({**moved_to(), ("a", End): [HELD]}, cluster(dead="b"))
    assert (played.outcome, played.log[0]) == (EndedBy(2), "all a End")


def test_one_holder_is_enough_only_where_there_is_no_other() -> None:
    """And not with `min_copies=2`."""
    alone = promoted(ENDED, ("a", None))
    script: Script = {("a", End): [HELD], ("b", End): [SILENT], ("a", LeaveHint): [DONE], ("a", Promote): [alone]}
    assert run(script, cluster(nodes="ab")).outcome == EndedBy(1)
    refused = run({**script, ("a", Promote): SILENT}, cluster(nodes="ab", min_copies=2))
    assert refused.outcome == Unavailable("b gave no answer and nobody else could hold the end")
    single: Script = {("a", End): [calls.EndHeld(1, ("a", None))]}
    assert run(single, cluster(nodes="a"), placement=Placement(1, ("a", None))).outcome == EndedBy(1)


def test_the_end_of_a_single_copy_gets_a_second_holder_too() -> None:
    """As a write does: else that owner's death leaves only what an ex-owner retains, and the session would be back."""
    alone = Placement(1, ("a", None))
    held = {("a", End): [calls.EndHeld(1, ("a", None))]}
    script: Script = {
        **held,
        ("a", Promote): [promoted(ENDED, ("a", "e"))],
        ("e", Put): [calls.Held(1)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    assert run(script, placement=alone).outcome == EndedBy(2)
    nobody: Script = {**held, ("a", Promote): [SILENT]}
    assert run(nobody, placement=alone).outcome == EndedBy(1)


def test_an_end_that_nobody_else_holds_is_not_acked() -> None:
    """The new one is silent too: the user must not believe that it is over."""
    script: Script = {
        ("a", End): [HELD],
        ("b", End): [SILENT],
        ("a", LeaveHint): [DONE],
        ("a", Promote): [promoted(ENDED, ("a", "e"))] * 2,
        ("e", Put): [SILENT, SILENT],
    }
    assert run(script).outcome == Unavailable("b gave no answer and nobody else could hold the end")


def test_two_that_end_together_both_see_two_holders() -> None:
    """The other coordinator moved the tombstone first: its owners are told, and none is counted that does not hold it."""
    script: Script = {
        ("a", End): [HELD],
        ("b", End): [SILENT],
        ("a", LeaveHint): [DONE],
        ("a", Promote): [gone(epoch=2, owners=("a", "e"))],
        ("e", End): [calls.EndHeld(2, ("a", "e"))],
    }
    played = run(script)
    assert played.outcome == EndedBy(2)
    assert played.log[-3:] == ["all e End", "tell a Settle", "tell e Settle"]


def test_a_survivor_that_is_no_owner_any_more_leads_to_those_that_are() -> None:
    """Between the end and the move somebody else changed the owners."""
    script: Script = {
        ("a", End): [HELD],
        ("b", End): [SILENT],
        ("a", LeaveHint): [DONE],
        ("a", Promote): [calls.Conflict(2, ("c", "d"))],
        ("c", End): [calls.EndHeld(2, ("c", "d"))],
        ("d", End): [calls.EndHeld(2, ("c", "d"))],
    }
    assert run(script).outcome == EndedBy(2)


def test_without_any_owner_every_other_node_keeps_the_end_for_them() -> None:
    """It is not acked; but an owner that comes back meets it, with whom it is for and without a grace."""
    others: Script = {(node, End): [HELD] for node in "cde"}
    played = run({("a", End): [SILENT], ("b", End): [SILENT], **others}, cluster(me="c"), grace=10.0)
    assert played.outcome == Unavailable("no owner of the session could be told to end it (a, b)")
    assert played.log == ["all a End, b End", "all c End, d End, e End"]
    assert played.sent[-1] == ("e", End(KEY, "logout", ("a", "b"), 1))
    assert run({}, cluster(nodes="ab", dead="ab", me="c")).log == []


def test_owners_that_keep_changing_end_it() -> None:
    """After a bounded number of steps it is unavailable, not acked."""
    turns = [calls.Conflict(2 + step, ("a", "b")) for step in range(TRIES_MAX)]
    script: Script = {("a", End): HELD, ("b", End): SILENT, ("a", LeaveHint): DONE, ("a", Promote): [*turns]}
    assert run(script).outcome == Unavailable("the owners kept changing")


def test_a_chain_of_moves_is_followed_but_not_for_ever() -> None:
    """Each owner names the next one; where it does not end soon, the end is not acked, but everybody keeps it."""

    def chain(nodes: str) -> Script:
        steps = enumerate(zip(nodes, nodes[1:] + nodes[-1], strict=True))
        return {(node, End): [calls.EndHeld(2 + step, (after, None))] for step, (node, after) in steps}

    single, seen = Placement(1, ("a", None)), cluster(nodes="abcdef")
    assert run({**chain("abcd"), ("d", Promote): [SILENT]}, seen, placement=single).outcome == EndedBy(1)
    everybody: Script = {(node, End): calls.EndHeld(9, ("e", None)) for node in "f"}
    longer: Script = {**chain("abcde"), **everybody}
    outcome = run(
        {key: value[0] if isinstance(value, list) else value for key, value in longer.items()}, seen, placement=single
    ).outcome
    assert isinstance(outcome, Unavailable)


# --- only if nothing was written meanwhile -------------------------------------------------------------------------------


def unwritten(script: Script, placement: Placement = HERE) -> Played[EndOutcome | Ended | None]:
    return play(end_unwritten(cluster(), KEY, placement, 7, "emptied"), script)


def test_an_end_that_depends_on_the_version_closes_the_backup_first() -> None:
    """With the backup closed no write can be acked any more: what the other owner has numbered meanwhile is refused."""
    played = unwritten({("a", End): [HELD], ("b", End): [HELD, HELD]})
    assert (played.outcome, played.log[:2]) == (EndedBy(2), ["b End", "all a End, b End"])
    assert played.calls(End)[0] == ("b", End(KEY, "emptied", ("a", "b"), 1, None, 7))


def test_without_a_backup_the_master_decides() -> None:
    """There is nobody else who could hold a later version."""
    played = unwritten({("a", End): [HELD, HELD], ("a", Promote): [SILENT]}, Placement(1, ("a", None)))
    assert (played.outcome, played.calls(End)[0][1].version) == (EndedBy(1), 7)


def test_what_was_written_to_meanwhile_is_not_ended() -> None:
    """Nor what has moved, or what gives no answer: nothing has happened then."""
    for reply in (calls.Conflict(1, ("a", "b")), SILENT, calls.NotMine()):
        played = unwritten({("b", End): [reply]})
        assert (played.outcome, played.log) == (None, ["b End"])


def test_what_was_ended_by_another_is_told() -> None:
    """The request that emptied it comes too late."""
    assert unwritten({("b", End): [gone("rotated")]}).outcome == Ended("rotated")
