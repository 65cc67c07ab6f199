"""Counts as text for Prometheus: exposition format 0.0.4, one sample a line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SAMPLE: Final = re.compile(r"(?P<name>[^{]+)(?P<labels>\{.*\})?")


def exposition(samples: Mapping[str, int | float]) -> str:
    """One line for each sample, named `clustersession_<name>`; characters that a metric name cannot have become `_`.

    A name may carry labels as they are written (`calls_total{peer="b"}`). What ends in `_total` is a counter, the rest
    are gauges.
    """
    families: dict[str, list[str]] = {}
    for key, value in sorted(samples.items()):
        match = _SAMPLE.fullmatch(key)
        name, labels = (match["name"], match["labels"] or "") if match else (key, "")
        family = "clustersession_" + re.sub(r"[^a-zA-Z0-9_]", "_", name)
        families.setdefault(family, []).append(f"{family}{labels} {value}")
    lines: list[str] = []
    for family, members in families.items():
        lines.append(f"# TYPE {family} {'counter' if family.endswith('_total') else 'gauge'}")
        lines += members
    return "".join(f"{line}\n" for line in lines)
