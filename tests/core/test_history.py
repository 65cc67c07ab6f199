"""Counts of each minute of the last hour."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.history import MINUTES, History, added, noted, since_min, trend

NAME = "refused_session_lost"


def after(*steps: tuple[int, int]) -> tuple[int, ...]:
    """The row of one counter, which was looked at in these minutes with these totals."""
    history = noted(None, {}, 0)
    for minute, total in steps:
        history = noted(history, {NAME: total, "session_rotated": 7}, minute)
    assert history.counts.keys() <= {NAME}
    return history.counts.get(NAME, ())


def test_growth_counts_for_the_minute_in_which_it_is_seen() -> None:
    """The newest first, also where nobody looked for some minutes."""
    assert after((5, 2), (5, 3), (8, 4))[:5] == (1, 0, 0, 3, 0)


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    """The row is gone with its last count."""
    assert sum(after((1, 5), (MINUTES, 5))) == 5
    assert after((1, 5), (MINUTES + 1, 5)) == ()


def test_what_was_counted_before_anybody_looked_is_of_no_minute() -> None:
    """As when a node of a later release takes over the files."""
    history = noted(None, {NAME: 100}, 9)
    assert history == History(9, {}, {NAME: 100})
    assert noted(history, {NAME: 101}, 9).counts[NAME][0] == 1


def test_counters_that_begin_anew_lose_nothing() -> None:
    """The files were discarded: what they show now is all new."""
    assert after((1, 10), (2, 3))[:2] == (3, 10)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=40))
def test_nothing_counts_twice_or_is_lost_within_the_hour(steps: list[tuple[int, int]]) -> None:
    """The row adds up to what was counted in the minutes that it covers."""
    minute = total = 0
    looks, grown = [], []
    for pause, by in steps:
        minute, total = minute + pause, total + by
        looks.append((minute, total))
        grown.append((minute, by))
    assert sum(after(*looks)) == sum(by for at, by in grown if minute - at < MINUTES)


def test_hosts_are_added_minute_by_minute() -> None:
    """One that knows less of the past adds nothing there."""
    assert added([(1, 2, 3), (10,), ()]) == (11, 2, 3)
    assert added([]) == ()


def test_a_trend_is_more_than_chance() -> None:
    """Ten minutes against the ten before; what is all of the last ten has no trend yet."""
    assert trend((9,) * 5) == "new"
    assert trend((1,) * 10 + (9,) * 10) == "falling"
    assert trend((9,) * 10 + (1,) * 10) == "rising"
    assert trend((2,) * 10 + (3,) * 10) == "steady"
    assert trend((0,) * 30 + (3,)) == "falling"


def test_the_oldest_minute_says_since_when() -> None:
    """None where nothing was counted."""
    assert since_min((0, 1, 0, 4, 0)) == 3
    assert since_min((0, 0)) is None
