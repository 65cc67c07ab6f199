"""When the next peer is asked too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.calls import Done, NotMine, Reply, Unreachable
from clustersession.core.node import Member
from clustersession.ports import Outgoing
from clustersession.transport.hedging import SAMPLES, Latency, Schedule
from tests.transport.kit import fetch


def batch(*after: float) -> list[Outgoing]:
    return [Outgoing(Member(f"n{number}", "127.0.0.1", 1, 1), fetch(), seconds) for number, seconds in enumerate(after)]


def good(reply: Reply) -> bool:
    return isinstance(reply, Done)


def test_without_a_condition_all_are_due_at_once() -> None:
    """And all are awaited, whatever their replies."""
    schedule = Schedule(batch(0.0, 5.0, 9.0), None, 0.0)
    assert schedule.due(0.0) == [0, 1, 2]
    for index in (2, 0):
        schedule.answered(index, Done())
        assert not schedule.done
    schedule.answered(1, Unreachable("timeout"))
    assert schedule.done
    assert schedule.replies == [Done(), Unreachable("timeout"), Done()]


def test_a_hedge_asks_the_next_when_its_time_has_come() -> None:
    """Seconds count from the start of the exchange."""
    schedule = Schedule(batch(0.0, 0.025, 0.050), good, 100.0)
    assert schedule.due(100.0) == [0]
    assert schedule.next_at == 100.025
    assert schedule.due(100.024) == []
    assert schedule.due(100.026) == [1]
    assert schedule.due(100.060) == [2]
    assert schedule.next_at > 1e9


def test_a_hedge_asks_the_next_at_once_when_all_before_failed() -> None:
    """No time is lost on a peer that is down."""
    schedule = Schedule(batch(0.0, 0.025, 0.050), good, 0.0)
    assert schedule.due(0.0) == [0]
    schedule.answered(0, Unreachable("refused"))
    assert schedule.due(0.001) == [1]
    schedule.answered(1, NotMine())
    assert schedule.due(0.002) == [2]
    schedule.answered(2, NotMine())
    assert schedule.done


def test_a_hedge_waits_while_one_before_may_still_answer() -> None:
    """One of two failed: the other one is given its time."""
    schedule = Schedule(batch(0.0, 0.0, 0.050), good, 0.0)
    assert schedule.due(0.0) == [0, 1]
    schedule.answered(0, NotMine())
    assert schedule.due(0.01) == []


def test_the_first_good_reply_ends_a_hedge() -> None:
    """None stands for those that were not awaited, and it stays ended whatever comes late."""
    schedule = Schedule(batch(0.0, 0.0, 9.0), good, 0.0)
    schedule.due(0.0)
    schedule.answered(1, Done())
    assert schedule.done
    assert schedule.replies == [None, Done(), None]
    schedule.answered(0, NotMine())
    assert schedule.done


def test_nothing_to_ask_is_done() -> None:
    """An empty exchange ends at once."""
    assert Schedule([], None, 0.0).done


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=200))
def test_the_delay_is_the_95th_percentile_within_bounds(samples: list[float]) -> None:
    """Of the last 64 answers; an outlier in twenty does not count."""
    latency = Latency()
    for sample in samples:
        latency.note(sample)
    delay, recent = latency.hedge_delay(0.025, 0.25), samples[-SAMPLES:]
    assert 0.025 <= delay <= 0.25
    if delay > 0.025:
        assert sum(sample > delay for sample in recent) <= len(recent) / 20 or delay == 0.25


def test_without_answers_the_delay_is_the_least() -> None:
    """Nothing is known that would be worth waiting for."""
    assert Latency().hedge_delay(0.025, 0.25) == 0.025


def test_one_slow_answer_of_many_changes_nothing() -> None:
    """And a peer that is slow by nature is given its time."""
    latency = Latency()
    for _ in range(39):
        latency.note(0.010)
    latency.note(0.9)
    assert latency.hedge_delay(0.005, 0.25) == 0.010
    for _ in range(SAMPLES):
        latency.note(0.080)
    assert latency.hedge_delay(0.025, 0.25) == 0.080
