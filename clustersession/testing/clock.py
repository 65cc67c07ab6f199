"""A clock that a test moves."""

from __future__ import annotations


class ManualClock:
    """The time of all hosts of a cluster in a test: stands still until `advance`. Not for threads that wait for it."""

    def __init__(self, start_s: float = 1_000.0) -> None:
        self.now = start_s

    def __call__(self) -> float:
        return self.now

    def __repr__(self) -> str:
        return f"<ManualClock at {self.now:.3f} s>"

    def advance(self, seconds: float) -> None:
        """Raises `ValueError` for a step back: the clock of a host never goes back."""
        if not seconds >= 0:
            raise ValueError(f"a host's clock only goes on, not by {seconds!r} s")
        self.now += seconds
