"""Timing things against each other: small blocks of each in turn, so that whatever else the machine does meets all of them."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Final, NamedTuple, TypeAlias

WARM_UP: Final = 5
"""Calls before each block that are not counted: they bring code and data of this row back into the processor's caches (its own
and those of the processes it calls), where a server that runs one app has them."""

Block: TypeAlias = Callable[[int], Iterable[int]]
"""Makes that many calls, one after the other; the nanoseconds of each."""


class Times(NamedTuple):
    """Of single calls, in microseconds."""

    calls: int
    p50: float
    p99: float

    def added_to(self, base: Times) -> Times:
        """What this costs beyond `base`: its own percentiles less the median of `base`."""
        return Times(self.calls, self.p50 - base.p50, self.p99 - base.p50)


def times_of(nanoseconds: Iterable[int]) -> Times:
    """Raises `ValueError` for none."""
    ordered = sorted(nanoseconds)
    if not ordered:
        raise ValueError("nothing was timed")
    return Times(len(ordered), ordered[len(ordered) // 2] / 1e3, ordered[len(ordered) * 99 // 100] / 1e3)


def interleaved(rows: Mapping[str, Block], rounds: int, block: int) -> dict[str, array[int]]:
    """`rounds` blocks of `block` calls of every row, the nanoseconds of every counted call. Each round begins one row later."""
    names = list(rows)
    taken: dict[str, array[int]] = {name: array("Q") for name in names}
    with _quiet_collector():
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                taken[name].extend(list(rows[name](WARM_UP + block))[WARM_UP:])
                gc.collect()  # nobody pays for what another row has left
    return taken


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """The collector runs as in any program, over what has been made since: of the modules it knows that they stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def block_of(call: Callable[[], object]) -> Block:
    """Times `call` alone."""

    def block(count: int) -> list[int]:
        taken = []
        for _ in range(count):
            began = perf_counter_ns()
            call()
            taken.append(perf_counter_ns() - began)
        return taken

    return block
