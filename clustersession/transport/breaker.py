"""When to stop asking a peer that does not answer, so that what it owes costs nobody else any time."""

from __future__ import annotations

from collections import deque
from typing import Final

FAILURES_IN_A_ROW: Final = 3
WINDOW: Final = 20  # outcomes; half of them failures opens it too
OPEN_S: Final = 1.0
OPEN_S_MAX: Final = 2.0  # heartbeats say within 3 s whether a peer is dead; a longer pause would keep one out that is back
PROBE_S: Final = 1.0  # a probe without outcome by then was abandoned: the next call is one


class Breaker:
    """Closed: all calls pass. Open: none, for 1 s, then 2 s, with full jitter. Then one call passes as a probe.

    While it is not `troubled`, successes need not be told. Times are seconds of one monotonic clock; `chance` is a random
    number in [0, 1).
    """

    __slots__ = ("_failures", "_open_until", "_opened", "_outcomes", "_probed_at", "_row", "troubled")

    def __init__(self) -> None:
        self.reset()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"open until {self._open_until:.3f}"
        return f"<Breaker: {state}, {self._failures} of {len(self._outcomes)} failed>"

    @property
    def closed(self) -> bool:
        return self._opened == 0

    def reset(self) -> None:
        """Somebody knows that the peer is well."""
        self._outcomes: deque[bool] = deque(maxlen=WINDOW)
        self._failures = self._row = self._opened = 0
        self._open_until = 0.0
        self._probed_at: float | None = None
        self.troubled = False  # open, or with a failure among the last outcomes

    def allows(self, now: float) -> bool:
        """Whether a call may be made now. After the open time the first one that asks is the probe."""
        if self._opened == 0:
            return True
        if now < self._open_until or (self._probed_at is not None and now < self._probed_at + PROBE_S):
            return False
        self._probed_at = now
        return True

    def succeeded(self) -> None:
        if self._opened:
            self.reset()
        self._row = 0
        self._note(failed=False)
        self.troubled = self._failures > 0

    def failed(self, now: float, chance: float) -> None:
        """A call failed. The first failure of an open breaker is that of its probe: it opens anew, for longer."""
        self.troubled = True
        self._row += 1
        self._note(failed=True)
        half = len(self._outcomes) == WINDOW and self._failures * 2 >= WINDOW
        if (self._row >= FAILURES_IN_A_ROW or half) if self._opened == 0 else (self._probed_at is not None):
            self._open(now, chance)

    def _open(self, now: float, chance: float) -> None:
        self._open_until = now + chance * min(OPEN_S * 2**self._opened, OPEN_S_MAX)
        self._opened = min(self._opened + 1, 16)
        self._probed_at = None

    def _note(self, *, failed: bool) -> None:
        if len(self._outcomes) == WINDOW:
            self._failures -= self._outcomes[0]
        self._outcomes.append(failed)
        self._failures += failed
