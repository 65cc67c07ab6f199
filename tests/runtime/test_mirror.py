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


def test_it_is_kept_in_the_record() -> None:
    """Under a key that no app sees; what does not decode is none."""
    mirror = Mirror((), {}).written("cookie", {"a": 1})
    record = Record(1, 1, ("a", "b"), {MIRROR: (Stamp(1, 1, "a"), mirror.encoded())})
    kept = Mirror.of(record)
    assert kept is not None
    assert (kept.cookies, dict(kept.prints)) == (mirror.cookies, dict(mirror.prints))
    assert Mirror.of(record.but(items={})) is None
    for wrong in (b"", b"\xc1", mirror.encoded()[:-1], b"\x01"):
        assert Mirror.of(record.but(items={MIRROR: (Stamp(1, 1, "a"), wrong)})) is None
