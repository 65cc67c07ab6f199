"""Operations on values: what a master makes of them, in any order, and what it refuses."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core import calls
from clustersession.core.calls import Apply, Deliver
from clustersession.core.edits import ADD, APPEND, DISCARD, INCR, UNKNOWN_TYPE, Edit, edit_of
from clustersession.core.encoding import decode_call, encode_message
from clustersession.core.record import Lifetime, Patch, Record, live_items
from clustersession.core.replica import Situation, decide
from clustersession.core.resolving import resolved, with_results
from clustersession.core.values import decode_value, encode_value
from clustersession.errors import ValueNotSupported

from .records import KEY, NOW, item, record, situation

UNDECODABLE = b"\xc7\x00\x63"  # an extension type of a later release
ROOMY = situation(record_bytes_max=100_000)


def holding(**values: object) -> Record:
    return record(items={key: item(encode_value(value)) for key, value in values.items()})


def edits(*asked: tuple[str, str, object], number: int = 1, **more: Any) -> Patch:
    return Patch(number.to_bytes(8), more.pop("changes", {}), edits=tuple(edit_of(*each) for each in asked), **more)


def values_in(found: Record) -> dict[str, object]:
    return {key: decode_value(data) for key, data in live_items(found).items()}


def applied(held: Record, patch: Patch, at: Situation = ROOMY) -> Record:
    decision = decide(held, Apply(KEY, held.epoch, patch), at, None)
    assert decision.record is not None
    return decision.record


@pytest.mark.parametrize(
    ("operation", "held", "operand", "after"),
    [
        (INCR, None, 1, 1),
        (INCR, 41, 1, 42),
        (INCR, 2, -5, -3),
        (INCR, 1, 0.5, 1.5),
        (INCR, 2**64, 2**70, 2**64 + 2**70),
        (APPEND, None, {"id": 1}, [{"id": 1}]),
        (APPEND, [1], [2], [1, [2]]),
        (ADD, None, "x", {"x"}),
        (ADD, {"x"}, "x", {"x"}),
        (ADD, {"x"}, (1, 2), {"x", (1, 2)}),
        (DISCARD, {"x", "y"}, "x", {"y"}),
        (DISCARD, None, "x", set()),
    ],
)
def test_the_master_carries_out_an_operation_on_what_it_holds(
    operation: str, held: object, operand: object, after: object
) -> None:
    """Each operation, on a value and on a missing key; the result is in the reply, for the backup."""
    before = holding() if held is None else holding(k=held)
    decision = decide(before, Apply(KEY, 1, edits((operation, "k", operand))), ROOMY, None)
    assert decision.record is not None
    assert values_in(decision.record) == {"k": after}
    assert decision.reply == calls.Applied(1, 2, ("a", "b"), results={"k": encode_value(after)})


@pytest.mark.parametrize(
    ("operation", "held", "found"),
    [
        (INCR, "1", "str"),
        (INCR, True, "bool"),
        (INCR, [1], "list"),
        (APPEND, (1,), "tuple"),
        (APPEND, None, "NoneType"),
        (ADD, [1], "list"),
        (ADD, frozenset((1,)), "frozenset"),
        (DISCARD, {}, "dict"),
    ],
)
def test_an_operation_on_a_value_of_another_type_changes_nothing(operation: str, held: object, found: str) -> None:
    """The whole patch is refused, also what else is in it."""
    before = holding(k=held)
    patch = edits((INCR, "n", 1), (operation, "k", 1), changes={"other": b"\x01"})
    assert resolved(before, patch, NOW) == calls.Unsuitable(operation, "k", found)
    decision = decide(before, Apply(KEY, 1, patch), ROOMY, None)
    assert (decision.write, decision.record, decision.hint) == (False, None, ())


@pytest.mark.parametrize(
    ("held", "edit"),
    [
        (UNDECODABLE, edit_of(INCR, "k", 1)),
        (encode_value({1}), Edit(ADD, "k", UNDECODABLE)),
        (encode_value({1}), Edit(ADD, "k", encode_value([1]))),
        (encode_value(1), Edit("max", "k", encode_value(1))),
    ],
)
def test_what_only_a_later_release_understands_is_refused(held: bytes, edit: Edit) -> None:
    """A value, an operand or an operation that this release does not know is never guessed at."""
    before = record(items={"k": item(held)})
    assert resolved(before, Patch(b"1", {}, edits=(edit,)), NOW) == calls.Unsuitable(edit.operation, "k", UNKNOWN_TYPE)


def test_a_sum_that_no_number_can_hold_is_refused() -> None:
    """An int beyond the range of floats, and a float."""
    found = resolved(holding(k=10**400), edits((INCR, "k", 0.5)), NOW)
    assert isinstance(found, calls.Unsuitable)


def test_whole_values_of_a_patch_are_set_before_its_operations() -> None:
    """An operation sees what the same patch sets or deletes, and its fellows before it."""
    before = holding(n=100, old=[1])
    patch = edits((INCR, "n", 1), (INCR, "n", 2), (APPEND, "old", 2), changes={"n": encode_value(5), "old": None})
    assert values_in(applied(before, patch)) == {"n": 8, "old": [2]}


def test_a_retry_counts_once() -> None:
    """The patch id is known, so nothing is written; that the values differ from what it expected then is no conflict either."""
    patch = edits((INCR, "n", 1), expected={"n": encode_value(1)})
    once = applied(holding(n=1), patch)
    again = decide(once, Apply(KEY, 1, patch), ROOMY, None)
    assert (again.write, again.reply) == (False, calls.Applied(1, 2, ("a", "b"), repeat=True))
    assert values_in(once) == {"n": 2}


def test_what_an_operation_makes_too_large_is_refused() -> None:
    """The limit is about the result, which only the master knows."""
    small = situation(record_bytes_max=10)
    decision = decide(holding(k=["123456"]), Apply(KEY, 1, edits((APPEND, "k", "7890"))), small, None)
    assert isinstance(decision.reply, calls.TooLarge)
    assert not decision.write


@pytest.mark.parametrize(
    ("held", "expected", "taken"),
    [
        ({"k": 1}, {"k": encode_value(1)}, True),
        ({"k": 1}, {"k": encode_value(2)}, False),
        ({"k": 1}, {"k": encode_value(1.0)}, False),
        ({"k": 1}, {"k": None}, False),
        ({}, {"k": None}, True),
        ({}, {"k": encode_value(None)}, False),
        ({"k": 1, "l": 2}, {"k": encode_value(1), "l": encode_value(3)}, False),
    ],
)
def test_a_patch_is_taken_only_on_what_it_expects(
    held: dict[str, object], expected: dict[str, bytes | None], taken: bool
) -> None:
    """All of it or nothing, by the encoded values that the master holds before it."""
    decision = decide(holding(**held), Apply(KEY, 1, Patch(b"1", {"k": b"\x07"}, expected=expected)), ROOMY, None)
    assert decision.write is taken
    assert isinstance(decision.reply, calls.Applied if taken else calls.Differs)


def test_a_deleted_key_is_none() -> None:
    """Its mark is kept for merges, but nothing is stored under it."""
    before = record(items={"k": item(None)})
    assert isinstance(resolved(before, Patch(b"1", {}, expected={"k": None}), NOW), Patch)
    assert resolved(before, Patch(b"1", {}, expected={"k": b"\x01"}), NOW) == calls.Differs("k")


def test_a_patch_without_operations_stays_the_same_object() -> None:
    """The usual write costs no copy."""
    patch = Patch(b"1", {"k": b"\x01"})
    assert resolved(holding(), patch, NOW) is patch
    assert with_results(patch, None) is patch


def test_a_patch_of_before_operations_is_read() -> None:
    """A host of the release before sends neither operations nor expectations."""
    old = [b"12345678", {"k": b"\x01"}, [60.0, None], {}]
    message = ["Apply", KEY, 1, old]
    assert decode_call(msgspec.msgpack.encode(message)) == Apply(KEY, 1, Patch(b"12345678", {"k": b"\x01"}, Lifetime(60.0)))


def test_operations_survive_the_wire() -> None:
    """In an `Apply`, in their order."""
    call = Apply(KEY, 1, edits((INCR, "n", 1), (APPEND, "l", {"a": 1}), (ADD, "s", "x"), expected={"n": None}))
    assert decode_call(encode_message(call)) == call


@pytest.mark.parametrize(
    ("operation", "operand", "word"),
    [
        (INCR, "1", "str"),
        (INCR, True, "bool"),
        (INCR, None, "NoneType"),
        (ADD, [1], "list"),
        (DISCARD, {}, "dict"),
        (ADD, ([],), "tuple"),
        (APPEND, object(), "object"),
    ],
)
def test_an_operand_that_does_not_fit_is_refused_at_once(operation: str, operand: object, word: str) -> None:
    """Where it is called, with the type that was given."""
    with pytest.raises(ValueNotSupported, match=word):
        edit_of(operation, "k", operand)


@given(
    writers=st.lists(st.lists(st.integers(-9, 9), max_size=4), min_size=1, max_size=8),
    seed=st.integers(0, 2**16),
)
def test_any_interleaving_of_writers_gives_the_sum(writers: list[list[int]], seed: int) -> None:
    """Also with retries and a backup that gets the numbered patches out of order: both come to the same, exact result."""
    rng = random.Random(seed)
    master, backup = holding(), holding()
    back = situation("b", record_bytes_max=100_000)
    queues = [[(writer, step, by) for step, by in enumerate(each)] for writer, each in enumerate(writers)]
    late: list[Deliver] = []
    while any(queues):
        writer, step, by = rng.choice([queue for queue in queues if queue]).pop(0)
        patch = edits((INCR, "sum", by), (APPEND, "log", [writer, step]), (ADD, "writers", writer), number=writer * 100 + step)
        for _ in range(rng.choice((1, 1, 2))):
            decision = decide(master, Apply(KEY, 1, patch), ROOMY, None)
            assert isinstance(decision.reply, calls.Applied)
            if not decision.reply.repeat and decision.record is not None:
                master = decision.record
                change = with_results(patch, decision.reply.results)
                late.append(Deliver(KEY, 1, decision.reply.version, master.owners, change))
        while late and rng.random() < 0.6:
            backup = delivered(backup, late.pop(rng.randrange(len(late))), master, back)
    for call in late:
        backup = delivered(backup, call, master, back)
    done = [(writer, step) for writer, each in enumerate(writers) for step in range(len(each))]
    if done:
        found: dict[str, Any] = values_in(master)
        assert found["sum"] == sum(map(sum, writers))
        assert sorted(map(tuple, found["log"])) == done
        assert found["writers"] == {writer for writer, _ in done}
        assert backup.items == master.items


def delivered(backup: Record, call: Deliver, master: Record, at: Situation) -> Record:
    """What the backup holds afterwards; a gap is answered with the whole record of the master."""
    decision = decide(backup, call, at, None)
    if isinstance(decision.reply, calls.Gap):
        decision = decide(backup, calls.Put(KEY, master), at, None)
    assert isinstance(decision.reply, calls.Held)
    return backup if decision.record is None else decision.record


def test_a_backup_that_has_merged_more_takes_the_masters_result() -> None:
    """It may hold what another history added before its master does: under one stamp both must hold one value."""
    master, backup = holding(l=[1]), holding(l=[1, "merged"])
    patch = edits((APPEND, "l", 2))
    decision = decide(master, Apply(KEY, 1, patch), ROOMY, None)
    assert isinstance(decision.reply, calls.Applied)
    assert decision.record is not None
    call = Deliver(KEY, 1, 2, ("a", "b"), with_results(patch, decision.reply.results))
    held = decide(backup, call, situation("b", record_bytes_max=1000), None).record
    assert held is not None
    assert held.items == decision.record.items
