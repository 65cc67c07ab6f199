"""What a session knows of its former IDs that may still be read."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.bars import root_of, with_root
from clustersession.core.graces import AT_ONCE_MAX, CLOSED_WITHIN_S, graces_of, granted, with_graces
from clustersession.core.record import DEVICE, GRACES, Ending, ended, moved_to_clock

from .records import NOW, record

GRACE_S = 10.0


@given(st.lists(st.floats(0.0, 30.0), max_size=20), st.floats(-1e6, 1e6))
def test_every_id_that_may_be_read_is_known(pauses: list[float], by: float) -> None:
    """Whenever it is given up, on whatever host's clock, and nothing is known of those that are over."""
    now, held, until = NOW, record(created=NOW - 5.0, principal="7"), dict[bytes, float]()
    for number, pause in enumerate(pauses):
        now, held = now + pause + by, moved_to_clock(held, by)
        until = {key: moment + by for key, moment in until.items()}
        readable = {key for key, moment in until.items() if now < moment - 1e-3}
        known = {grace.key for grace in graces_of(held, now)}
        assert readable <= known <= until.keys()
        assert len(known) <= AT_ONCE_MAX
        seconds = granted(held, now, GRACE_S)
        assert (seconds is None) is (len(known) == AT_ONCE_MAX)
        key = number.to_bytes(16)
        held = held.but(extra=with_graces(held.extra, key, held, now, seconds))
        until = {**until, key: now + GRACE_S} if seconds is not None else until
    assert graces_of(held, now + GRACE_S + CLOSED_WITHIN_S + 1e-3) == ()


def test_a_grace_names_the_owners_of_then() -> None:
    """That is where the walk to end it begins."""
    old = record(4, 2, ("b", "c"))
    new = record(extra=with_graces({}, b"old", old, NOW, GRACE_S))
    [grace] = graces_of(new, NOW)
    assert (grace.key, grace.epoch, grace.owners) == (b"old", 4, ("b", "c"))
    assert with_graces({}, b"old", old, NOW, None) == {}


def test_other_extras_are_left_alone_and_graces_go_with_the_user() -> None:
    """What a later release has written stays; where another user comes, or the session ends, nothing is known any more."""
    later = {"later": msgspec.Raw(b"\x07"), DEVICE: msgspec.Raw(b"\x92\xa0\xa0")}
    old = record(principal="7", extra=later)
    extra = with_graces(with_root(b"old", old, "7"), b"old", old, NOW, GRACE_S)
    new = old.but(extra=extra)
    assert extra.keys() == {"later", DEVICE, GRACES, "root"}
    assert root_of(b"new", new) == b"old"
    for who in ("8", None):
        assert with_root(b"new", new, who) == {"later": later["later"]}
    assert ended(new, Ending("logout", NOW)).extra == {"later": later["later"]}
