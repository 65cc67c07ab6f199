"""What a drill has shown, as one page: modes, requests, adoptions and errors over time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT, LEFT = 900, 120, 70
MODES = ("off", "shadow", "mirror", "on")
COLOURS = {"off": "#bbb", "shadow": "#8ab", "mirror": "#e6a23c", "on": "#4a9"}


class Sample(NamedTuple):
    """One second of it. `requests`, `adopted` and `wrong` are counts since the beginning."""

    at_s: float
    modes: dict[str, str]
    requests: int
    adopted: int
    wrong: int


def page(title: str, samples: Sequence[Sample], summary: dict[str, Any]) -> str:
    """Self-contained HTML."""
    last = max(samples[-1].at_s, 1.0)
    hosts = sorted(samples[0].modes)
    rates = [
        (after.at_s, (after.requests - before.requests) / max(after.at_s - before.at_s, 0.001))
        for before, after in itertools.pairwise(samples)
    ]
    charts = [
        _bars(hosts, samples, last),
        _line("requests a second", rates, last, "#347"),
        _line("sessions adopted, in all", [(each.at_s, each.adopted) for each in samples], last, "#4a9"),
        _line("wrong answers, in all", [(each.at_s, each.wrong) for each in samples], last, "#c33"),
    ]
    legend = " ".join(f'<span style="background:{COLOURS[mode]};padding:0 .6em">{mode}</span>' for mode in MODES)
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>"
        f"<body style='font-family:sans-serif;max-width:{WIDTH + LEFT}px;margin:2em auto'><h1>{escape(title)}</h1>"
        f"<p>{legend}</p>{''.join(charts)}<pre>{escape(json.dumps(summary, indent=2))}</pre>"
    )


def _bars(hosts: Sequence[str], samples: Sequence[Sample], last: float) -> str:
    """A row for each host: the mode it was in."""
    parts = []
    ends = [each.at_s for each in samples[1:]] + [last]
    for row, host in enumerate(hosts):
        parts.append(f'<text x="0" y="{row * 24 + 16}" font-size="12">{escape(host)}</text>')
        for sample, end in zip(samples, ends, strict=True):
            x, width = _x(sample.at_s, last), _x(end, last) - _x(sample.at_s, last)
            parts.append(
                f'<rect x="{x:.1f}" y="{row * 24}" width="{width + 0.5:.1f}" height="20" fill="{COLOURS[sample.modes[host]]}"/>'
            )
    return f'<svg width="{WIDTH + LEFT}" height="{len(hosts) * 24}">{"".join(parts)}</svg>'


def _line(title: str, points: Sequence[tuple[float, float]], last: float, colour: str) -> str:
    top = max((value for _, value in points), default=0.0) or 1.0
    path = " ".join(f"{_x(at, last):.1f},{HEIGHT - 10 - value / top * (HEIGHT - 30):.1f}" for at, value in points)
    return (
        f'<h3>{escape(title)}</h3><svg width="{WIDTH + LEFT}" height="{HEIGHT}">'
        f'<text x="0" y="24" font-size="12">{top:.0f}</text><text x="0" y="{HEIGHT - 6}" font-size="12">0</text>'
        f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/></svg>'
    )


def _x(at_s: float, last: float) -> float:
    return LEFT + at_s / last * WIDTH
