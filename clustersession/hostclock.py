"""The host's clock: seconds since boot, the same for every process of the host, never stepped, running on through a suspend.

All times that are stored on a host are times of this clock. They mean nothing after a reboot and nothing on another host.
"""

from __future__ import annotations

import time

# CLOCK_MONOTONIC stands still during a suspend, so ages would come out too small; other systems (dev mode) have no other.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds since the host booted."""
    return time.clock_gettime(_CLOCK)
