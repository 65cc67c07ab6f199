"""`incr`, `append`, `add`, `discard` and `expect` as the app calls them: what it sees, and what travels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clustersession.core.edits import APPEND, INCR, Edit
from clustersession.core.session import Session
from clustersession.core.values import encode_value
from clustersession.errors import (
    ChangeAfterResponse,
    ConflictingWrite,
    SessionTooLarge,
    ValueNotSupported,
    ValueTypeMismatch,
)

UNDECODABLE = b"\xc7\x00\x63"  # an extension type of a later release


def session_of(**values: object) -> Session:
    return Session({key: encode_value(value) for key, value in values.items()}, is_new=False)


def travelling(session: Session) -> tuple[list[str], dict[str, object]]:
    """What travels as operations, by name and key, and the changes that travel as whole values."""
    changes = session.changes()
    edits, _ = session.intent(changes)
    edited = {edit.key for edit in edits}
    whole = {key: None if data is None else Session({key: data})[key] for key, data in changes.items() if key not in edited}
    return [f"{edit.operation} {edit.key}" for edit in edits], whole


def test_the_result_shows_at_once() -> None:
    """On what this request knows: the operations' own return value, and a later look at the key."""
    session = session_of(n=1, cart=["a"], tags={"x"})
    assert session.incr("n") == 2
    assert session.incr("n", by=-0.5) == 1.5
    session.append("cart", "b")
    session.add("tags", "y")
    session.discard("tags", "x")
    assert dict(session) == {"n": 1.5, "cart": ["a", "b"], "tags": {"y"}}
    assert (session.modified, session.accessed) == (True, True)


def test_a_missing_key_starts_empty() -> None:
    """At 0, as an empty list, as an empty set; each is there afterwards."""
    session = session_of()
    assert session.incr("n", 3) == 3
    session.append("cart", 1)
    session.add("tags", 1)
    session.discard("none", 1)
    assert dict(session) == {"n": 3, "cart": [1], "tags": {1}, "none": set()}


def test_operations_travel_in_their_order_and_not_as_values() -> None:
    """Whole values are only those of other keys."""
    session = session_of(n=1, cart=["a"], other=1)
    session.incr("n")
    session.append("cart", "b")
    session["other"] = 2
    session.incr("n", 5)
    assert travelling(session) == (["incr n", "append cart", "incr n"], {"other": 2})
    edits, expected = session.intent(session.changes())
    assert edits[1] == Edit(APPEND, "cart", encode_value("b"))
    assert expected == {}


def test_an_operation_that_changes_nothing_here_travels_all_the_same() -> None:
    """The master may hold something else by now."""
    session = session_of(tags={"x"}, n=1)
    session.add("tags", "x")
    session.incr("n", 0)
    assert travelling(session) == (["add tags", "incr n"], {})


def first(session: Session) -> None:
    session["k"] = []
    session.append("k", 1)


def last(session: Session) -> None:
    session.append("k", 1)
    session["k"] = [9]


def deleted_before(session: Session) -> None:
    del session["k"]
    session.append("k", 1)


def changed_before(session: Session) -> None:
    session["k"].append("in place")
    session.append("k", 1)


def changed_after(session: Session) -> None:
    session.append("k", 1)
    session["k"].append("in place")


def changed_operand(session: Session) -> None:
    item: list[object] = []
    session.append("k", item)
    item.append("in place")


def taken_back(session: Session) -> None:
    session.append("k", 1)
    session["k"].pop()


def changed_between(session: Session) -> None:
    session.append("k", 1)
    session["k"].remove(0)
    session.append("k", 2)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (first, [1]),
        (last, [9]),
        (deleted_before, [1]),
        (changed_before, [0, "in place", 1]),
        (changed_after, [0, 1, "in place"]),
        (changed_operand, [0, ["in place"]]),
        (taken_back, [0]),
        (changed_between, [1, 2]),
    ],
)
def test_where_the_key_is_also_changed_as_a_whole_it_travels_whole(change: Callable[[Session], None], value: object) -> None:
    """The operation is folded into the whole value; an assignment that comes later wins."""
    session = session_of(k=[0], n=1)
    session.incr("n")
    change(session)
    assert travelling(session) == (["incr n"], {"k": value})
    assert session["k"] == value
    assert travelling(session) == (["incr n"], {"k": value})


@pytest.mark.parametrize("known", [True, False])
def test_a_deletion_after_an_operation_deletes(known: bool) -> None:
    """Also a key that only the master holds: the app has seen it here."""
    for whole in (True, False):
        session = session_of(n=1) if known else session_of()
        session.incr("n")
        if whole:
            session.clear()
        else:
            del session["n"]
        assert "n" not in session
        assert travelling(session) == ([], {"n": None})


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda session: session.incr("text"), ["incr", "'text'", "int or float", "str"]),
        (lambda session: session.incr("yes"), ["'yes'", "bool"]),
        (lambda session: session.append("pair", 1), ["append", "'pair'", "a list", "tuple"]),
        (lambda session: session.add("text", 1), ["add", "a set", "str"]),
        (lambda session: session.discard("pair", 1), ["discard", "a set", "tuple"]),
        (lambda session: session.incr("later"), ["'later'", "unknown to this release"]),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_is_seen(call: Callable[[Session], object], words: list[str]) -> None:
    """The error names the operation, the key and both types; nothing is changed."""
    values = {"text": "1", "yes": True, "pair": (1, 2)}
    session = Session({key: encode_value(value) for key, value in values.items()} | {"later": UNDECODABLE})
    with pytest.raises(ValueTypeMismatch) as caught:
        call(session)
    assert [word for word in words if word not in str(caught.value)] == []
    assert (session.changes(), session.modified) == ({}, False)


def test_what_no_session_can_hold_is_refused_at_the_call() -> None:
    """Not at the end of the request, and nothing is changed."""
    session = session_of(n=1)
    for call in (
        lambda: session.append("cart", object()),
        lambda: session.add("tags", [1]),  # type: ignore[arg-type]
        lambda: session.incr("n", "1"),  # type: ignore[arg-type]
        lambda: session.incr(1),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueNotSupported):
            call()
    assert (session.changes(), session.modified) == ({}, False)


def test_after_the_response_an_operation_is_refused() -> None:
    """As any change is, and the value stays as it was."""
    session = session_of(cart=["a"])
    session.close()
    with pytest.raises(ChangeAfterResponse):
        session.append("cart", "b")
    assert session["cart"] == ["a"]
    assert session.changes() == {}


def test_limits_count_what_the_session_shows() -> None:
    """An operation is refused here if its result would be too large as far as this request knows."""
    session = session_of()
    session.append("cart", "x" * 70_000)
    with pytest.raises(SessionTooLarge):
        session.check_limits()


def test_after_a_save_the_next_operation_counts_from_there() -> None:
    """What was saved is not sent again."""
    session = session_of(n=1)
    session.incr("n")
    session.expect("n", 1)
    session.saved(session.changes(), "handle")
    assert session.changes() == {}
    assert session.incr("n") == 3
    edits, expected = session.intent(session.changes())
    assert (edits, expected) == ((Edit(INCR, "n", encode_value(1)),), {})


def test_an_end_forgets_operations_and_expectations() -> None:
    """What comes after it is a new session."""
    session = session_of(n=5)
    session.incr("n")
    session.expect("n", 5)
    session.end()
    session.check_expected()
    assert session.changes() == {}
    assert session.incr("n") == 1


def test_an_expectation_is_no_change() -> None:
    """It says under which condition the changes of this request may be saved; without any there is nothing to save."""
    session = session_of(n=1)
    session.expect("n", 1)
    session.expect("none")
    assert (session.changes(), session.modified) == ({}, False)
    session["n"] = 2
    assert session.intent(session.changes()) == ((), {"n": encode_value(1), "none": None})


@pytest.mark.parametrize("value", [(), (None,), (0,)])
def test_a_session_that_is_not_stored_holds_nothing(value: tuple[Any, ...]) -> None:
    """Only that nothing is there can be expected of it."""
    session = session_of()
    session.expect("n", *value)
    if value:
        with pytest.raises(ConflictingWrite, match="'n'"):
            session.check_expected()
    else:
        session.check_expected()
