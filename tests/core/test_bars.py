"""What two nodes compare of the bars that they know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.bars import BUCKETS, Tally, bucket_of

IDS = st.binary(min_size=8, max_size=8).filter(any)
BARS = st.dictionaries(IDS, st.floats(0.0, 1000.0))


def tally_of(bars: dict[bytes, float]) -> Tally:
    tally = Tally()
    for bar_id, at in bars.items():
        tally.add(bar_id, at)
    return tally


@given(BARS, BARS)
def test_what_differs_is_in_a_bucket_that_differs(mine: dict[bytes, float], theirs: dict[bytes, float]) -> None:
    """Nothing that one of them lacks is passed over, and where both have the same nothing is sent."""
    one, other = tally_of(mine), tally_of(theirs)
    different = {bucket_of(bar_id) for bar_id in mine.keys() ^ theirs.keys()}
    assert set(one.differing(other.sums(), 0)) == different
    assert (one.digest() == other.digest()) is (mine.keys() == theirs.keys())
    assert set(one.differing(other.sums(), 100)) == {bucket for bucket in different if bucket >= 100}


@given(BARS, st.floats(0.0, 1000.0))
def test_what_is_forgotten_leaves_no_trace(bars: dict[bytes, float], until: float) -> None:
    """As if it had never been told; and what is told twice counts once."""
    tally = tally_of({**bars})
    for bar_id, at in bars.items():
        tally.add(bar_id, at + 1.0)
    tally.forget_until(until)
    left = {bar_id: at for bar_id, at in bars.items() if at > until}
    assert (tally.digest(), tally.sums(), len(tally)) == (tally_of(left).digest(), tally_of(left).sums(), len(left))
    assert all((bar_id in tally) is (bar_id in left) for bar_id in bars)


def test_an_id_of_another_length_breaks_nothing() -> None:
    """A later release may make longer ones: heartbeats go on, with all that they compare."""
    tally = tally_of({b"x" * 12: 1.0, b"": 1.0, b"y": 1.0})
    assert len(tally.sums()) == BUCKETS * 8
    assert tally.digest()


@given(BARS, st.binary(max_size=64))
def test_sums_of_another_form_are_those_of_nobody(bars: dict[bytes, float], sums: bytes) -> None:
    """Then all is sent."""
    assert set(tally_of(bars).differing(sums, 0)) == {bucket_of(bar_id) for bar_id in bars}
    assert list(tally_of(bars).differing(sums, BUCKETS)) == []
