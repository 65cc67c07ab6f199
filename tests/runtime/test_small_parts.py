"""Headers, counters, budget, outages: the small parts of the pipeline."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.errors import LateWrite, SessionUnavailable
from clustersession.runtime.budget import Budget
from clustersession.runtime.counters import Counters
from clustersession.runtime.headers import NOTHING, SessionHeaders, joined, never_stored, vary_on_cookie
from clustersession.runtime.outages import FORGOTTEN_S, LOST_KEPT_S, PATIENCE_S, Outages
from clustersession.runtime.refusal import refusal
from clustersession.testing import ManualClock

KEY = b"k" * 16


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        (None, "Cookie"),
        ("", "Cookie"),
        ("Accept", "Accept, Cookie"),
        ("Accept-Encoding, Accept", "Accept-Encoding, Accept, Cookie"),
        ("cookie", "cookie"),
        ("Accept, COOKIE", "Accept, COOKIE"),
        ("*", "*"),
    ],
)
def test_vary(given: str | None, merged: str) -> None:
    """Cookie joins what the app varies on, once."""
    assert vary_on_cookie(given) == merged


@pytest.mark.parametrize(
    ("given", "merged"),
    [
        (None, "no-store"),
        ("no-store", "no-store"),
        ("private, max-age=0", "private, max-age=0, no-store"),
        ("Public, max-age=60", "max-age=60, no-store"),
        (" , ", "no-store"),
    ],
)
def test_cache_control(given: str | None, merged: str) -> None:
    """no-store joins what the app says, without what contradicts it."""
    assert never_stored(given) == merged


def test_several_fields_of_one_name_are_merged_into_the_first() -> None:
    """They mean the same as one (RFC 9110, 5.3)."""
    headers = [("Vary", "A"), ("X", "1"), ("vary", "B")]
    assert joined(headers, SessionHeaders(vary=True)) == [("Vary", "A, B, Cookie"), ("X", "1")]
    assert joined([("Vary", "A, Cookie")], SessionHeaders(vary=True)) == [("Vary", "A, Cookie")]


@given(st.lists(st.tuples(st.sampled_from(["Vary", "Set-Cookie", "X"]), st.text("abc, *", max_size=8))))
def test_nothing_of_the_apps_is_lost(headers: list[tuple[str, str]]) -> None:
    """Every other header stays, in order, and every cookie too."""
    after = joined(headers, SessionHeaders(("cs=1", "old="), vary=True))
    others = [each for each in headers if each[0] != "Vary"]
    assert [each for each in after if each[0] not in ("Vary", "Cache-Control")] == [
        *others,
        ("Set-Cookie", "cs=1"),
        ("Set-Cookie", "old="),
    ]
    assert joined(headers, NOTHING) == headers


def test_refusals() -> None:
    """Both are to be repeated and name nobody; what must go out with them does."""
    unavailable = refusal(SessionUnavailable("b: timeout", retry_after_s=3), SessionHeaders(("cs=; Max-Age=0",), vary=True))
    assert (unavailable.status, dict(unavailable.headers)["Retry-After"]) == (503, "3")
    assert ("Set-Cookie", "cs=; Max-Age=0") in unavailable.headers
    assert b"timeout" not in unavailable.body
    late = refusal(LateWrite("logout"), NOTHING)
    assert (late.status, dict(late.headers)["Retry-After"], dict(late.headers)["Vary"]) == (409, "0", "Cookie")
    assert dict(late.headers)["Content-Length"] == str(len(late.body))


def test_counters_lose_nothing_between_threads() -> None:
    """Four threads that count the same event."""
    counters = Counters()

    def count() -> None:
        for _ in range(5000):
            counters.count("x")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.of("x") == 20_000
    assert counters.drained() == {"x": 20_000}
    assert counters.snapshot() == {}
    assert counters.of("x") == 0


def test_a_budget_counts_waits_only() -> None:
    """What the app itself takes is its own."""
    budget = Budget(10.0)
    assert not budget.spent
    with budget:
        deadline = budget.deadline()
    assert 9.0 < budget.left < 10.0
    assert budget.deadline() > deadline - 1.0


def test_an_outage_is_not_for_ever() -> None:
    """After a minute of silence a session that is asked for again and again may be called lost."""
    outages = Outages()
    assert not outages.patience_over(KEY, 0.0)
    for second in range(0, int(PATIENCE_S), 5):
        outages.silent(KEY, float(second))
        assert not outages.patience_over(KEY, second + 1.0)
    assert outages.patience_over(KEY, PATIENCE_S)
    assert not outages.patience_over(b"o" * 16, PATIENCE_S)
    outages.answered(KEY)
    assert not outages.patience_over(KEY, PATIENCE_S)


def test_a_new_outage_begins_anew() -> None:
    """Two bad moments, long apart, are not one long outage."""
    outages = Outages()
    outages.silent(KEY, 0.0)
    assert not outages.patience_over(KEY, FORGOTTEN_S + 1)
    outages.silent(KEY, FORGOTTEN_S + 1)
    assert not outages.patience_over(KEY, FORGOTTEN_S + 2)


def test_lost_is_remembered_for_a_moment() -> None:
    """So that a browser's twenty requests don't each ask the whole cluster."""
    outages = Outages()
    outages.lost(KEY, 100.0)
    assert outages.is_lost(KEY, 100.0 + LOST_KEPT_S - 1)
    assert not outages.is_lost(KEY, 100.0 + LOST_KEPT_S)


def test_a_manual_clock_only_goes_on() -> None:
    """It stands still until it is moved; a step back is a mistake of the test."""
    clock = ManualClock(5.0)
    clock.advance(2.5)
    assert (clock(), repr(clock)) == (7.5, "<ManualClock at 7.500 s>")
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="only goes on"):
            clock.advance(wrong)
    assert clock() == 7.5
