"""When a peer is not asked any more."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clustersession.transport.breaker import FAILURES_IN_A_ROW, OPEN_S, OPEN_S_MAX, PROBE_S, WINDOW, Breaker


def opened(now: float = 0.0, chance: float = 1.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_IN_A_ROW):
        breaker.failed(now, chance)
    return breaker


def test_it_opens_after_three_failures_in_a_row() -> None:
    """Two failures are bad luck, the third one opens it."""
    breaker = Breaker()
    for _ in range(FAILURES_IN_A_ROW - 1):
        breaker.failed(0.0, 1.0)
    assert breaker.allows(0.0)
    breaker.failed(0.0, 1.0)
    assert not breaker.allows(0.0)
    assert "open until" in repr(breaker)


def test_a_success_between_failures_starts_the_row_anew() -> None:
    """Failures count in a row."""
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(0.0, 1.0)
        breaker.failed(0.0, 1.0)
        breaker.succeeded()
    assert breaker.closed


def test_it_opens_when_half_of_twenty_fail() -> None:
    """A peer that answers every other call is given up too."""
    breaker = Breaker()
    for number in range(WINDOW):
        assert breaker.closed
        if number % 2:
            breaker.failed(0.0, 1.0)
        else:
            breaker.succeeded()
    assert not breaker.closed


def test_old_outcomes_are_forgotten() -> None:
    """Only the last twenty count."""
    breaker = Breaker()
    for _ in range(20):
        breaker.failed(0.0, 1.0)
        for _ in range(WINDOW // 4):
            breaker.succeeded()
    assert breaker.closed
    for _ in range(WINDOW):
        breaker.succeeded()
    assert not breaker.troubled


def test_one_probe_passes_after_the_open_time() -> None:
    """Then one call finds out, the others go on being refused."""
    breaker = opened(now=10.0)
    assert not breaker.allows(10.0 + OPEN_S - 0.01)
    assert breaker.allows(10.0 + OPEN_S)
    assert not breaker.allows(10.0 + OPEN_S)


def test_a_probe_that_succeeds_closes_it() -> None:
    """All calls pass again, and nothing is held against the peer."""
    breaker = opened()
    assert breaker.allows(OPEN_S)
    breaker.succeeded()
    assert breaker.closed
    assert not breaker.troubled


def test_the_open_time_doubles_up_to_a_bound() -> None:
    """1 s, then 2 s and no more."""
    breaker, now, times = opened(), 0.0, []
    for _ in range(7):
        begin = now
        while not breaker.allows(now):
            now += 0.25
        times.append(now - begin)
        breaker.failed(now, 1.0)
    assert times == [1.0, 2.0, *[OPEN_S_MAX] * 5]


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_the_open_time_has_full_jitter(chance: float) -> None:
    """Processes that lost the same peer at the same time do not probe it at the same time."""
    breaker = opened(chance=chance)
    assert breaker.allows(chance * OPEN_S)
    assert chance < 1e-9 or not opened(chance=chance).allows(chance * OPEN_S * 0.99)


def test_a_probe_that_was_abandoned_is_replaced() -> None:
    """A probe whose caller lost interest does not keep it open for ever."""
    breaker = opened()
    assert breaker.allows(OPEN_S)
    assert not breaker.allows(OPEN_S + PROBE_S - 0.01)
    assert breaker.allows(OPEN_S + PROBE_S)


def test_late_failures_do_not_prolong_it() -> None:
    """Calls that were under way when it opened say nothing new."""
    breaker = opened()
    for _ in range(5):
        breaker.failed(0.5, 1.0)
    assert breaker.allows(OPEN_S)


def test_a_reset_closes_it() -> None:
    """Somebody knows better."""
    breaker = opened()
    breaker.reset()
    assert breaker.allows(0.0)
    assert not breaker.troubled
