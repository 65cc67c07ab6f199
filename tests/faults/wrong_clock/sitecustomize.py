"""For the Python processes of a host whose clock is faked: libfaketime 0.9.10 breaks `clock_nanosleep`, which `time.sleep` is."""

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex, /) -> None:
    length = float(seconds)
    if length < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], length)


time.sleep = _sleep
