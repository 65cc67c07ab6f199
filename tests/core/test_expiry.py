"""Sessions that nobody uses any more are ended by both owners together, against scripted owners."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import Each, End, Expire, Many, Settle, Touch
from clustersession.core.effects import Operation
from clustersession.core.expiry import Overdue, expire
from clustersession.core.record import Key, Record
from clustersession.core.together import CALLS_MAX

from .play import SILENT, Played, Script, play
from .records import KEY, record

HELD, WORD = record(2, 5), "expired: idle"
ENDED = calls.EndHeld(2, ("a", "b"))
END = End(KEY, WORD, ("a", "b"), 2, version=5)


def run(script: Script, *overdue: tuple[Key, Record]) -> Played[int]:
    operation: Operation[int] = expire("a", [Overdue(key, each, WORD) for key, each in overdue or [(KEY, HELD)]])
    return play(operation, script)


def sent(played: Played[int]) -> list[tuple[str, calls.Call]]:
    return [(node, call) for node, many in played.calls(Many) for call in many.calls]


def test_both_owners_end_it_and_need_no_hint_for_each_other() -> None:
    """The other one first: it may know of a later use."""
    script: Script = {
        ("b", Many): [Each((ENDED,)), Each((calls.Done(),))],
        ("a", Many): [Each((ENDED,)), Each((calls.Done(),))],
    }
    played = run(script)
    assert played.outcome == 1
    assert sent(played) == [
        ("b", Expire(KEY, 2, ("a", "b"))),
        ("a", END),
        ("a", Settle(KEY, 2, ("a", "b"), 0)),
        ("b", Settle(KEY, 2, ("a", "b"), 0)),
    ]


def test_a_later_use_that_the_other_owner_knows_of_is_noted_here() -> None:
    """So that it is not asked again before that is over too."""
    played = run({("b", Many): [Each((calls.InUse(4.0),))], ("a", Many): [Each((calls.Done(),))]})
    assert (played.outcome, sent(played)[-1]) == (0, ("a", Touch(KEY, 4.0)))


@pytest.mark.parametrize("reply", [calls.Later(), calls.Conflict(3, ("b", "c")), calls.Broken(), calls.Unreachable("timeout")])
def test_without_the_other_owners_word_nothing_ends(reply: calls.SessionReply) -> None:
    """It is asked again, or what it knows better comes by itself."""
    assert run({("b", Many): [Each((reply,))]}).outcome == 0
    assert run({("b", Many): [SILENT]}).outcome == 0


def test_an_owner_that_holds_nothing_leaves_it_to_this_one() -> None:
    """Only if nothing was written since: it cannot have refused a write. It hears of the end by a hint."""
    played = run({("b", Many): [Each((calls.NotMine(),))], ("a", Many): [Each((ENDED,))]})
    assert (played.outcome, sent(played)[-1]) == (1, ("a", END))
    written = run({("b", Many): [Each((calls.NotMine(),))], ("a", Many): [Each((calls.Conflict(2, ("a", "b")),))]})
    assert written.outcome == 0


def test_an_end_that_the_other_owner_knows_of_is_taken_with_its_reason() -> None:
    """A logout that has not reached this host."""
    played = run({("b", Many): [Each((calls.Gone("logout", 9.0, 2, ("a", "b")),))], ("a", Many): [Each((ENDED,))]})
    assert sent(played)[-1] == ("a", End(KEY, "logout", ("a", "b"), 2, version=5))


def test_a_single_owner_asks_nobody() -> None:
    """There is no other."""
    played = run({("a", Many): [Each((calls.EndHeld(2, ("a", None)),))]}, (KEY, record(2, 5, ("a", None))))
    assert played.outcome == 1


def test_many_go_in_few_messages() -> None:
    """One to each owner for a batch of sessions, and each answer goes to its own."""
    overdue = [(number.to_bytes(16), HELD) for number in range(CALLS_MAX + 1)]
    script: Script = {("b", Many): [Each((calls.InUse(1.0),) * CALLS_MAX), Each((calls.InUse(1.0),))], ("a", Many): SILENT}
    played = run(script, *overdue)
    assert [len(many.calls) for node, many in played.calls(Many) if node == "b"] == [CALLS_MAX, 1]
