"""The multi-step rules of a request: load, save, create, end, rotate. The only home of failover order and copy count."""

from .ending import end, end_unwritten
from .loading import load, vouched
from .outcome import (
    Cluster,
    CreateOutcome,
    Ended,
    EndedBy,
    EndOutcome,
    Loaded,
    LoadOutcome,
    Lost,
    Placement,
    Rejected,
    Rotated,
    RotateOutcome,
    Saved,
    SaveOutcome,
    Target,
    Unavailable,
)
from .rotating import rotate
from .saving import create, new_record, save, touch

__all__ = [
    "Cluster",
    "CreateOutcome",
    "EndOutcome",
    "Ended",
    "EndedBy",
    "LoadOutcome",
    "Loaded",
    "Lost",
    "Placement",
    "Rejected",
    "RotateOutcome",
    "Rotated",
    "SaveOutcome",
    "Saved",
    "Target",
    "Unavailable",
    "create",
    "end",
    "end_unwritten",
    "load",
    "new_record",
    "rotate",
    "save",
    "touch",
    "vouched",
]
