"""Virtual time: events in the order of their times, and at one time of their making.

Half of them are of two kinds whose delay is always the same, so that they stand in order by themselves: steps of operations, and
time-outs, of which hardly one strikes. They have lines of their own; they happen as if all stood in one queue.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, Final, Protocol

Event = Callable[[], None]

STEP_S: Final = 0.00002  # an operation goes on so long after it has what it asked for


class Process(Protocol):
    """Whose events wait while it is paused, and die with it: `process` is another number after a restart."""

    up: bool
    paused: bool
    process: int
    waiting: list[tuple[int, Event]]


class TimeOut(Protocol):
    """What is to happen unless it is `over` by then."""

    over: bool

    def strike(self) -> None: ...


class Events:
    """`now`: virtual seconds since the beginning. All time-outs take `time_out_s`."""

    def __init__(self, time_out_s: float) -> None:
        self.now = 0.0
        self._number = 0
        self._time_out_s = time_out_s
        self._queue: list[tuple[float, int, Process | None, int, Event]] = [(inf, 0, None, 0, _never)]
        self._steps: deque[tuple[float, int, Process, int, Callable[[Any], None], Any]] = deque()
        self._time_outs: deque[tuple[float, int, Process, int, TimeOut]] = deque()

    def at(self, delay: float, event: Event, node: Process | None = None) -> None:
        """Run `event` after `delay`; as a part of `node` it dies with its process and waits while it is paused."""
        self._number += 1
        process = 0 if node is None else node.process
        heapq.heappush(self._queue, (self.now + delay, self._number, node, process, event))

    def step(self, node: Process, go_on: Callable[[Any], None], value: Any) -> None:
        """The same with `go_on(value)`, in a moment."""
        self._number += 1
        self._steps.append((self.now + STEP_S, self._number, node, node.process, go_on, value))

    def time_out(self, node: Process, what: TimeOut) -> None:
        """The same with `what`, unless it is over by then."""
        self._number += 1
        self._time_outs.append((self.now + self._time_out_s, self._number, node, node.process, what))
        if len(self._time_outs) == 1:
            self._strike_next()

    def _strike_next(self) -> None:
        """Only the first time-out in line has an event of its own."""
        due, number, *_ = self._time_outs[0]
        heapq.heappush(self._queue, (due, number, None, 0, self._strike))

    def _strike(self) -> None:
        """The first one is due. The next one is the first that is not over."""
        waiting = self._time_outs
        _, _, node, process, what = waiting.popleft()
        while waiting and waiting[0][4].over:
            waiting.popleft()
        if waiting:
            self._strike_next()
        if not what.over and node.process == process and node.up:
            if node.paused:
                node.waiting.append((process, what.strike))
            else:
                what.strike()

    def run(self, until: float) -> None:
        """Let time pass."""
        queue, steps, pop = self._queue, self._steps, heapq.heappop  # the loop of the simulation: 500 times a simulated second
        while True:
            if steps and steps[0] < queue[0]:  # of one time the one that was made first: numbers differ, so no more is compared
                if steps[0][0] > until:
                    break
                self.now, _, whose, process, go_on, value = steps.popleft()
                if whose.process == process and whose.up:
                    if whose.paused:
                        whose.waiting.append((process, partial(go_on, value)))
                    else:
                        go_on(value)
                continue
            if queue[0][0] > until:
                break
            self.now, _, node, process, event = pop(queue)
            if node is None:
                event()
            elif node.process == process and node.up:
                if node.paused:
                    node.waiting.append((process, event))
                else:
                    event()
        self.now = until


def _never() -> None:
    """Stands at the end of the queue, which so is never empty."""
