"""Virtual time: events that stand in several lines happen in the order of one queue."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clustersession.testing.events import STEP_S, Event, Events, TimeOut

TIME_OUT_S = 0.25
END_S = 20.0


class Node:
    """A process, as the queue sees it."""

    def __init__(self) -> None:
        self.up, self.paused, self.process = True, False, 1
        self.waiting: list[tuple[int, Event]] = []


class Late:
    """A time-out that notes that it struck."""

    def __init__(self, strike: Callable[[], None]) -> None:
        self.over, self._strike = False, strike

    def strike(self) -> None:
        self._strike()


class OneQueue(Events):
    """All events in one heap: slow, and plainly in order."""

    def __init__(self, time_out_s: float) -> None:
        super().__init__(time_out_s)
        self.heap: list[tuple[float, int, Any, int, Event, TimeOut | None]] = []
        self.made = 0

    def at(self, delay: float, event: Event, node: Any = None, *, what: TimeOut | None = None) -> None:
        self.made += 1
        heapq.heappush(self.heap, (self.now + delay, self.made, node, node.process if node else 0, event, what))

    def step(self, node: Any, go_on: Callable[[Any], None], value: Any) -> None:
        self.at(STEP_S, lambda: go_on(value), node)

    def time_out(self, node: Any, what: TimeOut) -> None:
        self.at(self._time_out_s, what.strike, node, what=what)

    def run(self, until: float) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.now, _, node, process, event, what = heapq.heappop(self.heap)
            if (node is not None and (node.process != process or not node.up)) or (what is not None and what.over):
                continue
            if node is not None and node.paused:
                node.waiting.append((process, event))
            else:
                event()
        self.now = until


class Play:
    """Events that make further ones by chance, pause and kill the process, and end time-outs before they strike."""

    def __init__(self, seed: int, events: Events) -> None:
        self.chance, self.events, self.node = random.Random(seed), events, Node()
        self.told: list[tuple[float, str]] = []
        self.late: list[Late] = []
        for number in range(3):
            events.at(self.chance.random(), lambda number=number: self.happens(f"at {number}"))  # type: ignore[misc]
        events.at(0.5, self.pause)
        events.at(0.8, self.resume)
        events.at(1.0, self.restart)
        events.run(END_S)

    def happens(self, name: str) -> None:
        self.told.append((self.events.now, name))
        number = len(self.told)
        if number < 250:
            for node in (None, self.node)[: self.chance.randint(1, 2)]:
                delay = self.chance.choice((self.chance.uniform(0.001, 0.4), TIME_OUT_S, STEP_S))  # often two at the same time
                self.events.at(delay, lambda: self.happens(f"at {number}"), node)
        if self.chance.random() < 0.5:
            self.events.step(self.node, lambda value: self.told.append((self.events.now, value)), f"step {number}")
        if self.chance.random() < 0.5:
            self.late.append(Late(lambda: self.happens(f"time-out {number}")))
            self.events.time_out(self.node, self.late[-1])
        for late in self.late[-3:]:
            late.over = late.over or self.chance.random() < 0.4

    def pause(self) -> None:
        self.node.paused = True

    def resume(self) -> None:
        self.node.paused = False
        waiting, self.node.waiting = self.node.waiting, []
        self.told.append((self.events.now, f"{len(waiting)} have waited"))
        for _, event in waiting:
            self.events.at(self.chance.random() * 1e-6, event, self.node)

    def restart(self) -> None:
        self.node.process += 1


@given(st.integers(0, 2**32))
def test_events_happen_in_the_order_of_one_queue(seed: int) -> None:
    """Whatever line they stand in, at one time in the order in which they were made, also around a pause and a restart."""
    found, expected = Play(seed, Events(TIME_OUT_S)), Play(seed, OneQueue(TIME_OUT_S))
    assert found.told == expected.told


def test_such_a_play_has_everything_in_it() -> None:
    """Or the comparison would say nothing."""
    told = [name.split()[0] for seed in range(20) for _, name in Play(seed, Events(TIME_OUT_S)).told]
    assert min(told.count(what) for what in ("at", "step", "time-out")) > 20


def test_a_time_out_strikes_only_where_it_is_not_over() -> None:
    """At its time exactly; what is over before does not, and holds up nothing that comes after it."""
    events, node, struck = Events(TIME_OUT_S), Node(), list[tuple[str, float]]()
    over, late = (Late(lambda name=name: struck.append((name, events.now))) for name in ("over", "late"))  # type: ignore[misc]
    events.time_out(node, over)
    events.run(0.1)
    events.time_out(node, late)
    over.over = True
    events.run(0.1 + TIME_OUT_S - 0.001)
    assert struck == []
    events.run(1.0)
    assert struck == [("late", 0.1 + TIME_OUT_S)]


def test_steps_and_time_outs_of_a_dead_process_do_not_happen() -> None:
    """Neither those of one that is started again in its place."""
    events, node, happened = Events(TIME_OUT_S), Node(), list[str]()
    events.step(node, happened.append, "step")
    events.time_out(node, Late(lambda: happened.append("time-out")))
    node.process += 1
    events.run(1.0)
    assert happened == []
