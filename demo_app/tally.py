"""What the check counts, and what each number means. `Tally.report` is the one JSON line of `make demo-check`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

REQUESTS_MIN, WRITES_MIN, LOGOUTS_MIN, FAILOVERS_MIN = 5000, 2000, 100, 50
WINDOW_S = 3.0  # how long after a fault a request that begins still counts as one after that fault
_DETAILS_MAX = 20


@dataclass
class Tally:
    """Counters of one run.

    requests: what the users asked for; one that had to be repeated counts once.
    writes: items put into a cart and acked with 200.
    logins, logouts: acked ones.
    indeterminate: attempts that were cut in the middle (502 with `X-Indeterminate`, or the connection ended) and repeated.
    conflicts: writes refused with 409 because the same user logged in or out meanwhile, and repeated.
    errors: requests whose last answer was not the expected one, or that had none after the allowed repeats. Any 503 is one, so is
        the page of another user.
    logged_out_unexpectedly: a request with the cookie of a login that nobody had ended was answered as nobody's.
    lost_cart_items: an item acked before a request was sent, in the same login (or in the anonymous cart taken into it), was
        missing from the answer. Counted once an item. Not expected: the anonymous cart when the login itself was cut.
    replays: requests with an old cookie of a session that was logged out, or of the anonymous one a login replaced.
    resurrected_logouts: replays that were answered as somebody's, or with the cart of a session that was logged out.
    kills: hosts whose every process was killed with -9.
    sessions_mastered_by_killed: logged-in sessions whose master was the killed host in the last answer before the kill.
    sessions_mastered_by_silent: the same for the host that fell silent.
    failovers: those of both whose next answers, in the same login, came with another master and a higher epoch.
    """

    requests: int = 0
    writes: int = 0
    logins: int = 0
    logouts: int = 0
    indeterminate: int = 0
    conflicts: int = 0
    errors: int = 0
    logged_out_unexpectedly: int = 0
    lost_cart_items: int = 0
    replays: int = 0
    resurrected_logouts: int = 0
    kills: int = 0
    sessions_mastered_by_killed: int = 0
    sessions_mastered_by_silent: int = 0
    failovers: int = 0
    spans: list[tuple[float, float]] = field(default_factory=list)  # begin and end of each request, with its repeats
    details: list[str] = field(default_factory=list)

    def wrong(self, kind: str, text: str) -> None:
        """Count one of the numbers that must stay 0, and say on standard error what happened."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.details) < _DETAILS_MAX:
            self.details.append(f"{kind}: {text}")
            print(f"! {kind}: {text}", file=sys.stderr, flush=True)

    def slowest_ms(self, fault_at: float) -> float:
        """The slowest request that was under way at `fault_at` or began within `WINDOW_S` of it."""
        spans = (end - begin for begin, end in self.spans if begin <= fault_at + WINDOW_S and end >= fault_at)
        return _ms(max(spans, default=0.0))

    def percentile_ms(self, share: float) -> float:
        """Of all requests, as the users saw them."""
        times = sorted(end - begin for begin, end in self.spans)
        return _ms(times[min(len(times) - 1, int(share * len(times)))]) if times else 0.0

    def shortcomings(self) -> list[str]:
        """Why this run does not pass; empty when it does."""
        zeros = ("errors", "logged_out_unexpectedly", "lost_cart_items", "resurrected_logouts")
        least = {"requests": REQUESTS_MIN, "writes": WRITES_MIN, "logouts": LOGOUTS_MIN, "failovers": FAILOVERS_MIN}
        broken = [f"{name} is {getattr(self, name)}, must be 0" for name in zeros if getattr(self, name)]
        return broken + [
            f"{name} is {getattr(self, name)}, must be at least {n}" for name, n in least.items() if getattr(self, name) < n
        ]

    def counters(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
