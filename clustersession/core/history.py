"""What was counted in each minute of the last hour: whether something rises or falls, and since when it is so.

Made from counters that only grow, looked at every few seconds by one process, so that those who count need not know of minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

MINUTES: Final = 60
LATELY: Final = 10  # minutes that are compared with the ten before them
KEPT: Final = frozenset({"id_sent", "id_sent_plain", "id_returned", "id_from_future", "write_unavailable", "store_full"})
KEPT_PREFIX: Final = "refused_"


class History(msgspec.Struct, frozen=True):
    """`minute`: the current one, of the host's clock. `counts`: for each name, newest minute first. `totals`: as last seen."""

    minute: int = 0
    counts: dict[str, tuple[int, ...]] = {}
    totals: dict[str, int] = {}


def is_kept(name: str) -> bool:
    return name in KEPT or name.startswith(KEPT_PREFIX)


def noted(history: History | None, totals: Mapping[str, int], minute: int) -> History:
    """`history` with what `totals` has grown by since, which counts for `minute`. With none, what was counted before is not known
    to have happened in any minute; a total that has shrunk has begun anew."""
    kept = {name: total for name, total in totals.items() if is_kept(name)}
    if history is None:
        return History(minute, {}, kept)
    moved = max(0, minute - history.minute)
    counts = {name: ((0,) * moved + row)[:MINUTES] for name, row in history.counts.items()}
    for name, total in kept.items():
        before = history.totals.get(name, 0)
        grown = total - before if total >= before else total
        if grown:
            row = counts.get(name) or (0,) * MINUTES
            counts[name] = (row[0] + grown, *row[1:])
    return History(max(minute, history.minute), {name: row for name, row in counts.items() if any(row)}, kept)


def added(rows: list[tuple[int, ...]]) -> tuple[int, ...]:
    """The sum of several hosts' rows, minute by minute, as far as the longest goes."""
    length = max(map(len, rows), default=0)
    return tuple(sum(row[minute] for row in rows if minute < len(row)) for minute in range(length))


def since_min(row: tuple[int, ...]) -> int | None:
    """How many minutes ago the oldest was counted that is still known; None: there is none."""
    return next((minute for minute in range(len(row) - 1, -1, -1) if row[minute]), None)


def trend(row: tuple[int, ...]) -> str:
    """`rising`, `falling`, `steady`, or `new`: all of it is of the last ten minutes, so there is nothing to compare with.

    A difference that chance alone makes (twice the root of the sum) is none.
    """
    late, before = sum(row[:LATELY]), sum(row[LATELY : 2 * LATELY])
    if not sum(row[LATELY:]):
        return "new"
    noise = 2.0 * (late + before) ** 0.5
    if late - before > noise:
        return "rising"
    return "falling" if before - late > noise or not late else "steady"
