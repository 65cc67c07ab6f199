"""What both sides held when they were last equal, and what either has changed since."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.record import Record, Stamp
from clustersession.runtime.mirrored import COOKIES_KEPT, MIRROR, Mirror, print_of

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
VALUES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3))


@given(before=VALUES, theirs=VALUES, ours=VALUES)
def test_only_what_they_alone_have_changed_is_taken_over(
    before: dict[str, int], theirs: dict[str, int], ours: dict[str, int]
) -> None:
    """Set, changed or deleted; of a key that both have changed, ours stays."""
    mirror = Mirror((), {}).written("cookie", before)
    expected = {key for key in "abcd" if theirs.get(key) != before.get(key) and ours.get(key) == before.get(key)}
    assert set(mirror.changed(theirs, ours)) == expected
    assert mirror.is_behind(ours) is (ours != before)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({1: "x"}, {"1": "x"}),
        (NOON.replace(microsecond=678, tzinfo=None), NOON),
    ],
)
def test_what_the_old_system_made_of_a_value_is_no_change(ours: Any, theirs: Any) -> None:
    """Stores in JSON have lists for tuples, and text for numbers as keys."""
    assert print_of(ours) == print_of(theirs)
    assert print_of([theirs]) != print_of([theirs, 1])


@pytest.mark.parametrize("odd", [{(1, 2): "x"}, {None: 1}, 2**80, {"deep": {b"k": 1}}, {1, "a", None}])
def test_what_json_has_not_has_a_print_too(odd: Any) -> None:
    """The old system keeps such values as they are."""
    assert print_of(odd) == print_of(odd) != print_of([odd])


def test_it_knows_the_last_cookies_that_were_sent() -> None:
    """Answers overtake each other: a cookie of ours that comes late is nobody's change."""
    mirror = Mirror((), {})
    for number in range(COOKIES_KEPT + 1):
        mirror = mirror.written(f"cookie {number}", {})
    assert not mirror.knows("cookie 0")
    assert all(mirror.knows(f"cookie {number}") for number in range(1, COOKIES_KEPT + 1))


def test_of_several_cookies_the_one_that_was_sent_last_counts() -> None:
    """None if we have sent none of them."""
    mirror = Mirror((), {}).written("one", {}).written("two", {}).written("three", {})
    assert mirror.latest({"one", "two", "tossed"}) == "two"
    assert mirror.latest({"tossed"}) is mirror.latest(()) is None
    assert mirror.is_last("three")
    assert not mirror.is_last("two")


@pytest.mark.parametrize(("life_s", "due_s"), [(None, 60.0), (3600.0, 60.0), (120.0, 30.0), (2.0, 1.0), (-5.0, 1.0)])
def test_it_is_renewed_long_before_it_runs_out(life_s: float | None, due_s: float) -> None:
    """As often as ours is touched, after a quarter of a life that is short, and not more than once in a second."""
    mirror = Mirror((), {}).sent(1000.0, None if life_s is None else 1000.0 + life_s)
    assert not mirror.is_due(1000.0 + due_s - 0.01, 60.0)
    assert mirror.is_due(1000.0 + due_s, 60.0)


def test_what_is_missing_after_its_time_has_run_out() -> None:
    """To the second; what has no end never does."""
    mirror = Mirror((), {}).sent(1000.0, 1600.0)
    assert not mirror.has_run_out(1597.9)
    assert mirror.has_run_out(1598.0)
    assert not mirror.sent(1000.0, None).has_run_out(1e12)


def test_it_is_kept_in_the_record() -> None:
    """Under a key that no app sees; what does not decode is none."""
    mirror = Mirror((), {}).written("cookie", {"a": 1}).sent(5.0, 7.5)
    record = Record(1, 1, ("a", "b"), {MIRROR: (Stamp(1, 1, "a"), mirror.encoded())})
    kept = Mirror.of(record)
    assert kept is not None
    assert (kept.cookies, dict(kept.prints)) == (mirror.cookies, dict(mirror.prints))
    assert (kept.at, kept.until) == (5.0, 7.5)
    assert Mirror.of(record.but(items={})) is None
    for wrong in (b"", b"\xc1", mirror.encoded()[:-1], b"\x01"):
        assert Mirror.of(record.but(items={MIRROR: (Stamp(1, 1, "a"), wrong)})) is None
