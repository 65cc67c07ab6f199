"""What may happen in a seed: the arguments of `run_seed`, under a name. A mass run takes them in turn, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from clustersession.config import Timeouts

from .faults import ALONE, AWAY, CUTS, DRAINS, HALVES, LONG, LOSSY, MORE_THAN_ONE, ONE_AT_A_TIME, PAIRS, RELAY, SLOW, SWIZZLE
from .workload import SHORT_IDLE_S

Schedule: TypeAlias = Mapping[str, Any]

NEVER_DEAD_S: Final = 60.0
ZONES_IN_TURN: Final = (0, 2, 0, 0, 3, 0)
SCHEDULES: Final[Mapping[str, Schedule]] = {
    "one at a time": {"kinds": ONE_AT_A_TIME},
    "drains": {"kinds": DRAINS},
    "cuts": {"kinds": CUTS},
    "swizzle": {"kinds": SWIZZLE},
    "one host alone": {"kinds": (*ALONE, *LOSSY)},
    "many links at once": {"kinds": (*HALVES, *PAIRS)},
    "one after another": {"kinds": RELAY},
    "others leave meanwhile": {"kinds": AWAY},
    "sessions that nobody uses": {"kinds": (*ONE_AT_A_TIME, *DRAINS), "users": 2, "sleepers": 20},
    "short sessions": {"idle_s": SHORT_IDLE_S},
    "long faults, short sessions": {"kinds": LONG, "idle_s": SHORT_IDLE_S},
    "everything": {"kinds": (*ONE_AT_A_TIME, *DRAINS, *CUTS, *SWIZZLE, *ALONE, *LOSSY, *RELAY, *HALVES, *PAIRS)},
}
# not in the mix: those that show one rule only, one that is not promised, and zones, in which a third of the mix is anyway
APART: Final[Mapping[str, Schedule]] = {
    "many calls fail at once": {"kinds": MORE_THAN_ONE, "settled": False},
    "cuts that nobody takes for a death": {"kinds": CUTS, "nodes": 3, "timeouts": Timeouts(dead_s=NEVER_DEAD_S)},
    "a lossy heal, and then only read": {"kinds": LOSSY, "write_below": 0.25},
    "cuts, in zones": {"kinds": CUTS, "zones": 2},
    "swizzle, in zones": {"kinds": SWIZZLE, "zones": 2},
    "half done, and then only read": {"kinds": SLOW, "users": 20, "write_below": 0.25},
}


def mixed(seed: int) -> tuple[str, int]:
    """The schedule of this seed in a mass run, and in how many zones its nodes are. After so many seeds each schedule has had its
    turn with each number of nodes, and after six times as many with each number of zones."""
    names = list(SCHEDULES)
    turn, nodes = divmod(seed, 3)
    again, place = divmod(turn, len(names))
    return names[place], ZONES_IN_TURN[(again + place + nodes) % len(ZONES_IN_TURN)]


def schedule_of(name: str) -> Schedule:
    """Raises `KeyError`."""
    return SCHEDULES[name] if name in SCHEDULES else APART[name]
