"""Whose business a session's owners are, and how they are changed without anybody asking for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from clustersession.core.calls import (
    Absorb,
    Absorbed,
    Call,
    Confirm,
    Conflict,
    Done,
    Each,
    Export,
    Exported,
    Held,
    Later,
    Many,
    Promote,
    Promoted,
    Put,
    Reply,
    Settle,
    Unreachable,
)
from clustersession.core.effects import Ask, AskAll, Pace
from clustersession.core.node import State
from clustersession.core.operations import Cluster
from clustersession.core.operations.outcome import Placement
from clustersession.core.record import Record, digest
from clustersession.core.repair import STARTED_AT_ONCE, Progress, Surroundings, owes, placed_anew, spread

from .play import Script, play
from .records import KEY, member, pending, pointer, record, tombstone, view

DEAD_B = (member("a"), member("b", State.DEAD), member("c"))
LEAVING_B = (member("a"), member("b", State.LEAVING), member("c"))
ALONE = (member("a"), member("b", State.DEAD))


@pytest.mark.parametrize(
    ("held", "members", "leaving", "expected"),
    [
        (record(), None, False, False),
        (record(), DEAD_B, False, True),
        (record(owners=("b", "a")), DEAD_B, False, True),
        (record(), LEAVING_B, False, False),  # it hands over itself
        (record(), (member("a"), member("b", State.SUSPECT), member("c")), False, False),
        (record(owners=("c", "a")), DEAD_B, False, False),
        (record(owners=("a", None)), None, False, True),
        (record(owners=("a", None)), ALONE, False, False),
        (tombstone(), DEAD_B, False, True),  # a logout must survive the next failure too
        (pointer(), DEAD_B, False, False),
        (record(), None, True, True),
        (record(owners=("b", "a")), None, True, True),
        (record(owners=("a", None)), ALONE, True, True),
        (tombstone(), None, True, True),
        (pointer(), None, True, False),
        (record(owners=("b", "c")), None, True, False),
        (None, None, True, False),
    ],
)
def test_who_owes_what(held: Record | None, members: tuple[object, ...] | None, leaving: bool, expected: bool) -> None:
    """An owner whose partner is gone owes another one; who leaves owes all it has."""
    assert owes(held, view(*members or ()), leaving=leaving) is expected  # type: ignore[arg-type]


# --- one session -------------------------------------------------------------------------------------------------------------

SEEN = Placement(1, ("a", "b"))
WITHOUT_B = Cluster(view(*DEAD_B))


def test_a_session_without_its_backup_gets_another_one() -> None:
    """What was seen in the survey is enough to begin with, and no step is left out: promoted, put, accepted here, then there, and
    only then nothing is left to tell."""
    changed = pending(2, owners=("a", "c"))
    script: Script = {("a", Promote): Promoted(changed), ("c", Put): Held(1), ("a", Settle): Done(), ("c", Settle): Done()}
    played = play(placed_anew(WITHOUT_B, KEY, SEEN, leaving=False), script)
    assert played.outcome is True
    assert played.log == ["a Promote", "c Put", "a Settle", "c Settle", "tell a Settle"]


def test_what_was_seen_may_have_changed_meanwhile() -> None:
    """Then it is refused, what is there now is looked at, and it is seen to that, or left alone."""
    now = record(4, 7, owners=("a", "c"))
    script: Script = {("a", Promote): Conflict(4, ("a", "c")), ("a", Export): Exported(now)}
    played = play(placed_anew(WITHOUT_B, KEY, SEEN, leaving=False), script)
    assert (played.outcome, played.log) == (True, ["a Promote", "a Export"])

    lacking = record(4, 7, owners=("b", "a"))
    script = {
        ("a", Promote): [Conflict(4, ("b", "a")), Promoted(pending(5, 7, ("a", "c")))],
        ("a", Export): Exported(lacking),
        ("c", Put): Held(7),
        ("a", Settle): Done(),
        ("c", Settle): Done(),
    }
    played = play(placed_anew(WITHOUT_B, KEY, SEEN, leaving=False), script)
    assert played.outcome is True
    assert [call.epoch for _, call in played.calls(Promote)] == [1, 4]


def test_an_owner_that_is_back_is_not_replaced() -> None:
    """It was gone when the session was looked at, and is not now."""
    script: Script = {("a", Export): Exported(record())}
    assert play(placed_anew(Cluster(view("a", "b", "c")), KEY, SEEN, leaving=False), script).log == ["a Export"]


def test_nothing_is_made_single_by_repair() -> None:
    """Without anybody to take a copy it stays as it is: the other owner may come back."""
    assert play(placed_anew(Cluster(view(*ALONE)), KEY, SEEN, leaving=False), {}).outcome is False


ZONED = Cluster(view("a", "b", "c", zones={"a": "x", "b": "x", "c": "y"}))


def spreading(count: int, answer: Callable[[str, Call], Reply]) -> tuple[Progress, list[tuple[str, Call]]]:
    """So many crowded sessions; what was asked whom."""
    progress = Progress()
    progress.crowded = [(bytes([number]) * 16, SEEN) for number in range(count)]
    at = Surroundings(lambda: ZONED, lambda after, limit: [], lambda: False, Pace(lambda: 0.0, lambda: 1.0))
    asked: list[tuple[str, Call]] = []

    def reply(ask: Ask) -> Reply:
        parts = ask.call.calls if isinstance(ask.call, Many) else (ask.call,)
        asked.extend((ask.node, part) for part in parts)
        replies = tuple(answer(ask.node, part) for part in parts)
        return Each(replies) if isinstance(ask.call, Many) else replies[0]  # type: ignore[arg-type]

    operation, value = spread(at, progress), None
    with suppress(StopIteration):
        while True:
            effect = operation.send(value)
            value = tuple(map(reply, effect.asks)) if isinstance(effect, AskAll) else None
    return progress, asked


def test_a_copy_that_shares_a_zone_goes_to_another_one() -> None:
    """Its master brings it to the first of another zone; what has other owners by then is left alone."""

    def answer(node: str, call: Call) -> Reply:
        match call:
            case Promote():
                return Conflict(4, ("c", "d")) if call.key[0] else Promoted(pending(2, owners=("a", "c")))
            case Put():
                return Held(1)
        return Done()

    progress, asked = spreading(2, answer)
    assert (progress.moved, progress.crowded) == (2, [])
    assert [(node, call.owners, call.dead) for node, call in asked if isinstance(call, Promote)] == [("a", ("a", "c"), "b")] * 2
    assert [node for node, call in asked if isinstance(call, Put)] == ["c"]


def test_no_more_copies_are_moved_when_one_cannot_be() -> None:
    """They are safe as they are: whoever is full or silent is not asked for all of them."""
    progress, asked = spreading(STARTED_AT_ONCE + 5, lambda node, call: Later())
    assert (progress.moved, len(asked)) == (0, STARTED_AT_ONCE)


def test_who_leaves_keeps_a_pointer_and_says_so() -> None:
    """Only when two others hold the session is it out of this node's hands."""
    changed = pending(2, owners=("b", "c"))
    held = digest(KEY, pointer(2, ("b", "c")))
    script: Script = {
        ("b", Promote): Promoted(changed),
        ("c", Put): Held(1),
        ("b", Settle): Done(),
        ("c", Settle): Done(),
        ("a", Absorb): Absorbed(None, held),
        ("b", Confirm): Done(),
    }
    played = play(placed_anew(Cluster(view("a", "b", "c")), KEY, SEEN, leaving=True), script)
    assert played.outcome is True
    assert played.log == ["b Promote", "c Put", "b Settle", "c Settle", "tell b Settle", "a Absorb", "b Confirm"]
    assert played.calls(Confirm) == [("b", Confirm((held,)))]


def test_the_place_of_another_that_leaves_is_taken_only_to_hand_on() -> None:
    """Both owners leave: with one that stays the session has two owners, but one of them is about to go."""
    both = Cluster(view(member("a", State.LEAVING), member("b", State.LEAVING), "c", "d"))
    script: Script = {
        ("a", Promote): Promoted(pending(2, owners=("a", "c"))),
        ("c", Promote): Promoted(pending(3, owners=("c", "d"))),
        ("c", Put): Held(1),
        ("d", Put): Held(1),
        ("a", Settle): Done(),
        ("c", Settle): Done(),
        ("d", Settle): Done(),
        ("a", Export): Exported(record(2, owners=("a", "c"))),
        ("a", Absorb): Absorbed(None, digest(KEY, pointer(3, ("c", "d")))),
        ("c", Confirm): Done(),
    }
    played = play(placed_anew(both, KEY, SEEN, leaving=True), script)
    assert played.outcome is True
    assert [node for node, _ in played.calls(Promote)] == ["a", "c"]


def test_who_leaves_is_not_done_while_it_is_still_an_owner() -> None:
    """What it holds after all is another history: it is looked at again."""
    better = record(3, 9, owners=("a", "b"))
    script: Script = {
        ("b", Promote): [Promoted(pending(2, owners=("b", "c"))), Conflict(9, ("b", "c"))],
        ("c", Put): Held(1),
        ("b", Settle): Done(),
        ("c", Settle): Done(),
        ("a", Absorb): [Absorbed(better, digest(KEY, better)), Absorbed(None, digest(KEY, pointer(9, ("b", "c"))))],
        ("b", Confirm): Done(),
        ("a", Export): [Exported(better), Exported(pointer(9, ("b", "c")))],
        ("b", Export): Exported(record(9, 9, ("b", "c"))),
    }
    played = play(placed_anew(Cluster(view("a", "b", "c")), KEY, SEEN, leaving=True), script)
    assert played.outcome is True
    assert [call.epoch for _, call in played.calls(Promote)] == [1, 3]


def test_who_leaves_gives_the_other_owner_what_that_never_got() -> None:
    """A session whose first write reached this node only, and was answered 503: without a copy nobody else could take it, and the
    drain would never end (found by the drill: 3 sessions that could not be handed over)."""
    mine, changed = pending(1, owners=("a", "b")), pending(2, owners=("b", "c"))
    script: Script = {
        ("b", Promote): [Later(), Promoted(changed)],
        ("a", Export): [Exported(mine), Exported(record(1))],
        ("b", Put): Held(1),
        ("a", Settle): Done(),
        ("b", Settle): Done(),
        ("c", Put): Held(1),
        ("c", Settle): Done(),
        ("a", Absorb): Absorbed(None, digest(KEY, pointer(2, ("b", "c")))),
        ("b", Confirm): Done(),
    }
    played = play(placed_anew(Cluster(view("a", "b", "c")), KEY, SEEN, leaving=True), script)
    assert played.outcome is True
    assert [(node, call.record) for node, call in played.calls(Put)] == [("b", mine), ("c", changed)]


def test_a_silent_owner_is_given_nothing_twice() -> None:
    """It is tried again in the next pass, and the others are not kept waiting."""
    script: Script = {("b", Promote): Unreachable("x"), ("a", Export): Exported(record()), ("b", Put): Unreachable("x")}
    played = play(placed_anew(Cluster(view("a", "b", "c")), KEY, SEEN, leaving=True), script)
    assert (played.outcome, len(played.calls(Put))) == (False, 1)
