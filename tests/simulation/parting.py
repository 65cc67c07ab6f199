"""When one host was alone: which requests cannot know of each other, and which of two histories a read may find."""

from __future__ import annotations

from math import inf
from typing import Final, Protocol

LEASE_S: Final = 2.0  # a copy that nobody could reach may be stale for so long


class Sent(Protocol):
    """A request that changed something: when its ack arrived, and whether it went to the host that is alone."""

    acked: float | None
    alone: bool


class Parting:
    """The last time when one host was alone; `number` counts them."""

    def __init__(self) -> None:
        self._parted = self._healed = self._united = 0.0
        self.number = 0

    def parted(self, now: float) -> None:
        """From now on one host is alone."""
        self.number += 1
        self._parted, self._healed, self._united = now, inf, inf

    def healed(self, now: float) -> None:
        """It can be reached again."""
        self._healed = now

    def united(self, now: float) -> None:
        """It has learnt, and told, what happened."""
        self._united = now

    def is_parted(self, start: float) -> bool:
        """Whether a request at `start` was made before the heal."""
        return self._parted <= start < self._healed

    def apart(self, happened: float, start: float) -> bool:
        """Whether a request on one side at `start` cannot know what happened on the other."""
        return happened >= self._parted and start < self._united

    def meeting(self, sent: Sent, start: float, now: float) -> bool:
        """Whether a read in this time may find the history that the write is not in yet."""
        return self.apart(sent.acked or 0.0, start) and now >= self._healed

    def unseen(self, sent: Sent, start: float, now: float, *, alone: bool) -> bool:
        """Whether a read at `start`, by one who is `alone` or not, need not show it."""
        return self.meeting(sent, start, now) or (sent.alone != alone and self.apart(sent.acked or 0.0, start))

    def is_over(self, start: float) -> bool:
        """Whether a read at `start` finds one history."""
        return start >= self._united

    def one_sided(self, start: float, acked: float) -> bool:
        """Whether a request in this time was carried out on its own side for certain."""
        return start >= self._parted and acked < self._healed
