"""How much is done: `FULL` is what is claimed, `SMALL` shows within two minutes that the scenarios still work."""

from __future__ import annotations

from typing import Final, NamedTuple


class Sizes(NamedTuple):
    idle: int  # sessions that nobody asks for
    crowd: int  # sessions that are repaired and handed over
    crowd_bytes: int
    grown: int  # nodes at most
    stopping: int  # nodes that are told to end in the same second, half of all
    kills: int  # at least
    writes: int  # acked ones, at least
    logouts: int  # at least
    pause_s: float
    quiet_s: float  # of requests before a fault, to compare with
    rounds: int  # with and without a fault, in turn
    round_s: float
    strangers: int  # a second
    visitors: int


FULL: Final = Sizes(10_000, 100_000, 2000, 12, 5, 200, 100_000, 1000, 30.0, 20.0, 6, 8.0, 5000, 1_000_000)
SMALL: Final = Sizes(240, 2000, 2000, 6, 2, 5, 200, 10, 4.0, 3.0, 1, 4.0, 500, 3000)
