"""Operations in step: each gets its own answers, and what goes to one node at a time goes in as few messages as fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core import calls
from clustersession.core.effects import Ask, AskAll, Effect, Hedge, Operation, Tell, Wait
from clustersession.core.record import Key, digest
from clustersession.core.together import BYTES_MAX, CALLS_MAX, NOT_TOGETHER, PIECE_MAX, Crew, joined, pieces_of, together

from .records import KEY, item, record

Answer = Callable[[str, calls.Call], calls.Reply]


def held_by(node: str, call: calls.Call) -> calls.Reply:
    """Who answered what, as a reply."""
    assert isinstance(call, calls.Fetch)
    return calls.Gone(f"{node} {call.key.hex()} {call.age:g}", 0.0, 1, ("a", None))


def run(operation: Operation[Any], answer: Answer = held_by, silent: frozenset[str] = frozenset()) -> tuple[Any, list[Ask]]:
    """The result, and every message that was sent."""
    sent: list[Ask] = []
    value: Any = None
    try:
        while True:
            effect = operation.send(value)
            assert isinstance(effect, AskAll)
            sent += effect.asks
            value = tuple(_answered(ask, answer, silent) for ask in effect.asks)
    except StopIteration as stop:
        return stop.value, sent


def _answered(ask: Ask, answer: Answer, silent: frozenset[str]) -> calls.Reply:
    assert isinstance(ask.call, calls.Many)
    if ask.node in silent:
        return calls.Unreachable("timeout")
    return calls.Each(tuple(answer(ask.node, call) for call in ask.call.calls))  # type: ignore[misc]


def key(number: int) -> Key:
    return number.to_bytes(16)


def walk(number: int, steps: list[tuple[str, ...]]) -> Operation[list[Any]]:
    """Asks the nodes of each step at once; what it was told."""
    told: list[Any] = []
    for at, nodes in enumerate(steps):
        asks = tuple(Ask(node, calls.Fetch(key(number), float(at))) for node in nodes)
        told.append((yield asks[0]) if len(asks) == 1 else (yield AskAll(asks)))
    return told


def expected(number: int, steps: list[tuple[str, ...]]) -> list[Any]:
    told: list[Any] = []
    for at, nodes in enumerate(steps):
        replies = tuple(held_by(node, calls.Fetch(key(number), float(at))) for node in nodes)
        told.append(replies[0] if len(nodes) == 1 else replies)
    return told


NODES = st.sampled_from("abc")
STEPS = st.lists(st.lists(NODES, min_size=1, max_size=3).map(tuple), max_size=5)


@given(st.lists(STEPS, max_size=8))
def test_each_operation_is_told_what_it_asked(plans: list[list[tuple[str, ...]]]) -> None:
    """However many steps the others take, and whomever they ask."""
    results, _ = run(together([walk(number, steps) for number, steps in enumerate(plans)]))
    assert results == [expected(number, steps) for number, steps in enumerate(plans)]


def test_what_one_node_is_asked_goes_in_one_message() -> None:
    """Ten operations of two steps: two messages to each node."""
    _, sent = run(together([walk(number, [("a",), ("b",)]) for number in range(10)]))
    assert [ask.node for ask in sent] == ["a", "b"]


def test_a_message_does_not_grow_without_bound() -> None:
    """Neither in calls nor in bytes: a node carries it out at one go."""
    _, sent = run(together([walk(number, [("a",)]) for number in range(3 * CALLS_MAX + 1)]))
    assert [len(ask.call.calls) for ask in sent if isinstance(ask.call, calls.Many)] == [CALLS_MAX] * 3 + [1]

    large = record(items={"x": item(b"x" * (BYTES_MAX // 3))})

    def put(number: int) -> Operation[calls.Reply]:
        reply: calls.Reply = yield Ask("a", calls.Put(key(number), large))
        return reply

    _, sent = run(together([put(number) for number in range(5)]), lambda node, call: calls.Held(1))
    assert [len(ask.call.calls) for ask in sent if isinstance(ask.call, calls.Many)] == [2, 2, 1]


def test_a_crew_takes_in_others_while_it_is_at_work() -> None:
    """Each is at a step of its own, and what they ask one node goes in one message all the same."""
    crew = Crew[list[Any]]()
    over: list[tuple[int, list[Any]]] = []

    def at_work() -> Operation[None]:
        for number in range(4):
            crew.start([walk(number, [("a",), ("b", "c"), ("a",)])])
            over.extend((yield from crew.round()))
        while crew:
            over.extend((yield from crew.round()))

    _, sent = run(at_work())
    assert over == [(number, expected(number, [("a",), ("b", "c"), ("a",)])) for number in range(4)]
    assert sorted(ask.node for ask in sent) == ["a"] * 6 + ["b"] * 4 + ["c"] * 4
    assert max(len(ask.call.calls) for ask in sent if isinstance(ask.call, calls.Many)) == 2


@given(st.integers(0, 5 * PIECE_MAX))
def test_the_pieces_of_a_message_are_all_of_it(count: int) -> None:
    """In their order, none of them long; their replies are those of the message."""
    many = calls.Many(tuple(calls.Fetch(key(number), 0.0) for number in range(count)))
    pieces = pieces_of(many)
    assert all(isinstance(piece, calls.Many) and len(piece.calls) <= PIECE_MAX for piece in pieces)
    replies = [calls.Each(tuple(held_by("a", call) for call in piece.calls)) for piece in pieces]  # type: ignore[union-attr,misc]
    assert joined(replies) == calls.Each(tuple(held_by("a", call) for call in many.calls))  # type: ignore[misc]


@given(st.integers(0, 5 * PIECE_MAX))
def test_the_pieces_of_a_comparison_are_all_of_it(count: int) -> None:
    """In their order, none of them long; where they differ is where the whole does."""
    digests = tuple(digest(key(number), record()) for number in range(count))
    pieces = pieces_of(calls.Confirm(digests))
    assert all(isinstance(piece, calls.Confirm) and len(piece.digests) <= PIECE_MAX for piece in pieces)
    replies = [calls.Confirmed(tuple((each.key, None) for each in piece.digests)) for piece in pieces]  # type: ignore[union-attr]
    assert joined(replies) == calls.Confirmed(tuple((each.key, None) for each in digests))


def test_what_is_not_many_calls_is_one_piece() -> None:
    """And its reply is the reply."""
    call = calls.Fetch(KEY, 0.0)
    assert pieces_of(call) == (call,)
    assert joined([calls.NotMine()]) == calls.NotMine()


def test_a_piece_without_replies_is_an_answer_to_none() -> None:
    """Nobody could tell which of them are missing."""
    assert joined([calls.Each((calls.Done(),)), calls.Full(), calls.Each(())]) == calls.Full()


def test_a_silent_node_is_silent_to_everybody() -> None:
    """And to nobody else's harm."""
    results, _ = run(together([walk(1, [("a",)]), walk(2, [("b",)])]), silent=frozenset("a"))
    assert results == [[calls.Unreachable("timeout")], expected(2, [("b",)])]


def test_an_answer_that_does_not_fit_is_none() -> None:
    """Fewer replies than calls: nobody can tell whose they are."""
    operation = together([walk(1, [("a",)]), walk(2, [("a",)])])
    operation.send(None)
    with pytest.raises(StopIteration) as stop:
        operation.send((calls.Each((calls.Held(1),)),))
    assert stop.value.value == [[NOT_TOGETHER], [NOT_TOGETHER]]


def test_a_notice_is_sent_and_a_hedge_asks_all() -> None:
    """A notice needs no answer; in a hedge nobody is held back."""

    def told() -> Operation[object]:
        nothing = yield Tell("a", calls.Touch(KEY))
        replies = yield Hedge((Ask("a", calls.Fetch(KEY, 1.0)), Ask("b", calls.Fetch(KEY, 1.0))), lambda reply: True)
        return nothing, replies

    def answer(node: str, call: calls.Call) -> calls.Reply:
        return calls.Done() if isinstance(call, calls.Touch) else held_by(node, call)

    ((nothing, replies),), _ = run(together([told()]), answer)
    assert nothing is None
    assert replies == tuple(held_by(node, calls.Fetch(KEY, 1.0)) for node in "ab")


def test_who_must_wait_cannot_go_along() -> None:
    """One would hold up all."""

    def waiting() -> Operation[None]:
        effect: Effect = Wait(1.0)
        yield effect

    with pytest.raises(TypeError, match="Wait"):
        together([waiting()]).send(None)
