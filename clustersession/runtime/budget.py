"""How long one request of the app may wait for peers, over all its calls together."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Self


class Budget:
    """Seconds left for waiting on peers. Only waits count (`with budget:`), not the time the app itself takes."""

    __slots__ = ("_began", "left")

    def __init__(self, seconds: float) -> None:
        self.left = seconds
        self._began = 0.0

    def __repr__(self) -> str:
        return f"<Budget: {self.left:.3f} s left>"

    @property
    def spent(self) -> bool:
        return self.left <= 0.0

    def deadline(self) -> float:
        """When the wait that begins now must end, in monotonic seconds."""
        return monotonic() + self.left

    def __enter__(self) -> Self:
        self._began = monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.left -= monotonic() - self._began
