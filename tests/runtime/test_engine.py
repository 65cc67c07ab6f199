"""The engine of a worker: what it shares, and how it looks after the host's node."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping

import pytest

from clustersession.errors import ConfigError, StoreFull
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.counters import Counters
from clustersession.runtime.engine import NODE_SILENT_S, Engine, SystemEntropy
from clustersession.store.memory import MemoryStore
from clustersession.testing.in_process import InProcessCluster


class Clock:
    """The host's time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Starter:
    """What starts a node: counts, and waits until it may return."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.may_return = threading.Event()
        self.error = error

    def __call__(self) -> None:
        self.calls += 1
        self.may_return.wait(10.0)
        if self.error is not None:
            raise self.error


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def engine(clock: Clock, starter: Starter) -> Engine:
    node = InProcessCluster(clock=clock)["a"]
    return Engine(node.config, node.engine_shared._replace(start_node=starter))


def silent_since(engine: Engine, tick: float) -> None:
    write_board(engine.host.store, Board((), {}, True, tick, True, 1, None))


def test_a_node_that_has_gone_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    """By one thread at a time, in nobody's way; a failure is logged and tried again."""
    clock, starter = Clock(), Starter(ConfigError("X", "does not start", "Look."))
    made = engine(clock, starter)
    silent_since(made, clock.now - NODE_SILENT_S + 1)
    made.visit((), blocking=True)
    assert starter.calls == 0
    clock.now += 2.0
    for _ in range(5):
        made.visit((), blocking=True)
        clock.now += 2.0
    assert starter.calls == 1
    starter.may_return.set()
    eventually(lambda: "cannot be started" in caplog.text)

    def started_again() -> bool:
        clock.now += 2.0
        made.visit((), blocking=True)
        return starter.calls == 2

    eventually(started_again)


def test_a_running_node_is_left_alone() -> None:
    """As long as it ticks."""
    clock, starter = Clock(), Starter()
    made = engine(clock, starter)
    for _ in range(10):
        clock.now += 2.0
        silent_since(made, clock.now)
        made.visit((), blocking=True)
    assert starter.calls == 0


def test_random_bytes_are_never_the_same() -> None:
    """Tokens are 16 bytes of the system's own source."""
    entropy = SystemEntropy()
    assert len({entropy.bytes(16) for _ in range(1000)}) == 1000
    assert len(entropy.bytes(8)) == 8


def test_the_view_of_the_members_is_renewed() -> None:
    """Each operation gets the members as they are then."""
    cluster = InProcessCluster()
    made = cluster["a"].engine
    before = made.cluster()
    assert made.cluster() is before
    cluster.dead("b")
    after = made.cluster()
    assert not after.view.reachable("b")
    assert before.view.reachable("b")


def test_what_a_worker_counts_reaches_the_host() -> None:
    """Soon, also if no other request comes to this worker, and at its end at once."""
    store, counters = MemoryStore(now=Clock()), Counters()
    counters.count("late_write", 3)
    counters.hand_in_to(store)
    counters.count("late_write")
    eventually(lambda: store.counts() == {"late_write": 4})
    counters.count("late_write")
    counters.close()
    assert store.counts() == {"late_write": 5}
    eventually(lambda: counters.snapshot() == {})


def test_a_forked_worker_hands_in_nothing_of_its_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process that forks has counted at that moment is in both, and counts once."""
    store, counters = MemoryStore(now=Clock()), Counters()
    counters.hand_in_to(store)
    monkeypatch.setattr(os, "getpid", lambda: -2)
    counters.count("late_write")
    counters.close()
    assert store.counts() == {}
    monkeypatch.undo()
    counters.close()
    assert store.counts() == {"late_write": 1}


def test_what_could_not_be_handed_in_is_kept() -> None:
    """A host whose store takes nothing at the moment loses no count."""

    class Full(MemoryStore):
        def add_counts(self, counts: Mapping[str, int]) -> None:
            raise StoreFull("no room")

    counters = Counters()
    counters.count("late_write", 2)
    counters.hand_in(Full(now=Clock()))
    assert counters.snapshot() == {"late_write": 2}
