"""The benchmark still runs, and a limit that is broken breaks it."""

import json
import shutil
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from . import added, limits, measure, parts, report, scale, traffic
from .measure import Times

TOP = Path(__file__).parents[2]


def cheap(row: str) -> Times:
    """Times in which every limit holds."""
    cost = {added.REDIS: 100.0, added.REDIS_TWO: 100.0, added.SIGNED: 50.0, added.THIRD: 90.0}.get(row, 5.0)
    return Times(1, cost, cost)


def every_cell() -> dict[added.Cell, Times]:
    return {added.Cell(f, row, action): cheap(row) for f in added.FRAMEWORKS for row in added.ROWS for action in traffic.ACTIONS}


def of_parts() -> dict[str, Times]:
    return {parts.PEER: Times(1, 50.0, 50.0), parts.PEER_NODE: Times(1, 90.0, 90.0), parts.REDIS_SET: Times(1, 60.0, 60.0)}


def scaled(many_us: float = 10.0) -> list[scale.Scaled]:
    return [
        scale.Scaled(1000, Times(1, 10.0, 10.0), Times(1, 1.0, 1.0), 500.0),
        scale.Scaled(1_000_000, Times(1, many_us, many_us), Times(1, 1.0, 1.0), 500.0),
    ]


def broken(found: list[limits.Limit]) -> list[str]:
    return [each.what for each in found if not each.holds]


def test_what_is_cheap_enough_breaks_no_limit() -> None:
    """All limits hold for costs within them."""
    assert broken(limits.limits(every_cell(), of_parts(), scaled())) == []


@pytest.mark.parametrize(
    ("row", "action", "words"),
    [
        (added.OWNER, "read", {"signed cookie", "a tenth of Flask-Session"}),
        (added.THIRD, "read", {"third host"}),
        (added.OWNER, "write", {"two copies"}),
    ],
)
def test_a_row_that_costs_too_much_breaks_its_limits(row: str, action: str, words: set[str]) -> None:
    """A cost above what it is compared with is found, and nothing else is."""
    cells = every_cell() | {added.Cell("Flask", row, action): Times(1, 1000.0, 1000.0)}
    found = broken(limits.limits(cells, of_parts(), scaled()))
    assert len(found) == len(words)
    assert all(any(word in what for what in found) for word in words)
    assert all(what.startswith("Flask") for what in found)


def test_slow_peer_calls_and_reads_that_grow_break_their_limits() -> None:
    """A peer call slower than redis-py SET is found, and a read that costs more among a million sessions."""
    slow = of_parts() | {parts.PEER: Times(1, 61.0, 61.0)}
    found = broken(limits.limits(every_cell(), slow, scaled(many_us=13.0)))
    assert [("peer call" in what, "1,000,000" in what) for what in found] == [(True, False), (False, True)]


def test_rows_take_turns_and_every_counted_call_is_kept() -> None:
    """Each round begins with another row, and the calls that warm up are the only ones that do not count."""
    order: list[str] = []

    def block(name: str, value: int) -> measure.Block:
        def calls(times: int) -> list[int]:
            order.append(name)
            return [value] * times

        return calls

    taken = measure.interleaved({"a": block("a", 1000), "b": block("b", 3000)}, rounds=3, block=4)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert {name: (len(times), set(times)) for name, times in taken.items()} == {"a": (12, {1000}), "b": (12, {3000})}


def test_percentiles_are_of_all_calls() -> None:
    """Median and 99th percentile in microseconds; what a row adds is counted from the baseline's median."""
    number = count(1)
    times = measure.times_of(next(number) * 1000 for _ in range(1000))
    assert times == Times(1000, 501.0, 991.0)
    assert times.added_to(Times(10, 100.0, 400.0)) == Times(1000, 401.0, 891.0)


def test_an_app_that_answers_wrongly_is_not_timed() -> None:
    """An answer that is not the sum of the cart ends the run: an error page may be fast."""

    def app(environ: object, start_response: object) -> list[bytes]:
        start_response("200 OK", [])  # type: ignore[operator]
        return [b"0"]

    with pytest.raises(traffic.WrongAnswer, match="/read"):
        list(traffic.WsgiApp(app, [None]).block("read")(1))


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_the_whole_of_it_runs(tmp_path: Path) -> None:
    """A few calls of everything, against real nodes and Redis: every figure is there, and every limit is judged."""
    found = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.benchmark", "--tiny", "--json", str(found)]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=110, check=False)
    assert found.exists(), done.stderr  # so few calls on a busy machine say nothing about the limits, only that they are judged
    figures = json.loads(found.read_text(encoding="utf-8"))
    assert all(
        figures["added"][framework][row][action]["calls"] > 0
        for framework in added.FRAMEWORKS
        for row in added.ROWS
        for action in traffic.ACTIONS
    )
    assert figures["added"]["Starlette"][added.THIRD]["read"]["p50"] > figures["parts"][parts.STORE_READ]["p50"]
    assert [each["what"] for each in figures["limits"] if each["what"] not in done.stdout] == []
    assert (f"all {len(figures['limits'])} limits hold" in done.stdout) == (done.returncode == 0)


def test_tables_say_which_limits_hold() -> None:
    """PASS and FAIL stand before each limit, with both figures and their ratio."""
    found = limits.limits(every_cell(), of_parts(), scaled(many_us=20.0))
    lines = report.limits_table(found, ("PASS", "FAIL")).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["PASS"] * (len(found) - 1) + ["FAIL"]
    assert "2.00" in lines[-1]
