"""Whose business a session's owners are."""

from __future__ import annotations

import pytest

from clustersession.core.node import State
from clustersession.core.record import Record
from clustersession.core.repair import owes

from .records import member, pointer, record, tombstone, view

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
