"""For tests of apps and of this package: a cluster in one process, and a simulated one in virtual time."""

from .clock import ManualClock
from .in_process import InProcessCluster

__all__ = ["InProcessCluster", "ManualClock"]
