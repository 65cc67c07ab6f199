"""When the next one is asked too: how long a peer usually takes, and the order of a hedged exchange."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Final

from ..core.calls import Reply
from ..ports import Outgoing

SAMPLES: Final = 64


class Latency:
    """A peer's last 64 answers, of which the 95th percentile counts. Failures are none: a dead peer must not look patient."""

    __slots__ = ("_samples", "note")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self.note: Callable[[float], None] = self._samples.append  # seconds

    def hedge_delay(self, least: float, most: float) -> float:
        """Seconds to wait for this peer before the next one is asked too, within these bounds."""
        samples = sorted(self._samples.copy())
        return min(max(samples[-(len(samples) // 20 + 1)], least), most) if samples else least


class Schedule:
    """Which calls of an exchange are due, and when it is over. Times are seconds of one monotonic clock.

    Without `enough` all calls are due at once and all are awaited. With it a call is due when its `after` has passed since
    the start or all before it have failed, and the first reply that is enough ends the exchange.
    """

    __slots__ = ("_batch", "_enough", "_open", "_start", "_started", "done", "replies")

    def __init__(self, batch: Sequence[Outgoing], enough: Callable[[Reply], bool] | None, start: float) -> None:
        self._batch, self._enough, self._start = batch, enough, start
        self._started = 0
        self._open = 0  # asked and not answered
        self.replies: list[Reply | None] = [None] * len(batch)
        self.done = not batch

    @property
    def next_at(self) -> float:
        """When the next call is due even if nothing arrives."""
        return self._start + self._batch[self._started].after if self._started < len(self._batch) else inf

    def due(self, now: float) -> list[int]:
        """The calls to make now."""
        first = self._started
        while self._started < len(self._batch) and self._is_due(now):
            self._started += 1
            self._open += 1
        return list(range(first, self._started))

    def _is_due(self, now: float) -> bool:
        after = self._batch[self._started].after
        return self._enough is None or self._open == 0 or now >= self._start + after

    def answered(self, index: int, reply: Reply) -> None:
        self.replies[index] = reply
        self._open -= 1
        nothing_left = self._open == 0 and self._started == len(self._batch)
        self.done = self.done or nothing_left or (self._enough is not None and self._enough(reply))
