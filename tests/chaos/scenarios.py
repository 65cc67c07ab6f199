"""The scenarios by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from . import beside, crowd, elsewhere, flood, kills, moving, replayed
from .report import Row
from .sizes import Sizes

Scenario = Callable[[Sizes, Path], list[Row]]
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "rolling-restart": moving.rolling_restart,
    "replaced": moving.replaced,
    "stopped-together": moving.stopped_together,
    "crowd": crowd.crowd,
    "kills": kills.kills,
    "beside-stopped": beside.stopped,
    "beside-slow": beside.slow,
    "strangers": flood.of_strangers,
    "visitors": flood.of_visitors,
    "replayed": replayed.replayed,
    "elsewhere": elsewhere.elsewhere,
}
