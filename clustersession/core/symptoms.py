"""What the requests of users show: whether browsers bring back what they are given, what is refused to them soon after, and how
many of them have cookies of before. All from counts of the last hour, of all hosts together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from .facts import NodeFacts
from .findings import Finding, Gravity
from .history import LATELY, added, since_min, trend
from .reasons import REASONS
from .verdict import names

ENOUGH_SENT: Final = 20  # new IDs of which one at least should have come back
YOUNG_LATELY: Final = 3  # minutes
YOUNG_MIN: Final = 3  # sessions
YOUNG_SHARE: Final = 0.05  # of the new IDs
CLASH_SHARE: Final = 0.5  # of the new IDs, in requests that came with something else under their name
TOO_SOON: Final = "young"
_CLASHES: Final = ("not_ours", "oversized", "tampered", "duplicate")
_OLD: Final = tuple(code for code in REASONS if code not in ("lost", "unavailable", "late_write"))
_TOO_SOON: Final[Mapping[str, tuple[str, str]]] = {
    "lost": ("no host has anything of them any more", "Look whether hosts restart without their files or run out of room."),
    "unavailable": ("the hosts that have them give no answer", "Look at the ways between the hosts and at those that are down."),
    "expired_idle": (
        "nobody had used them for longer than they may idle",
        "Raise CLUSTERSESSION_IDLE_TIMEOUT or the framework's.",
    ),
    "expired_absolute": ("they had reached their absolute limit", "Raise CLUSTERSESSION_ABSOLUTE_TIMEOUT or the framework's."),
}


class OldCookies(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions that were refused in the last hour though nothing is wrong: how many at most (each process counts for itself),
    `by` reason, the first of them `since_min` minutes ago (59: or earlier). `trend`: `rising`, `falling`, `steady`, or `new`,
    where there is nothing to compare with yet."""

    sessions: int
    since_min: int
    trend: str
    by: dict[str, int]


def rows_of(nodes: Mapping[str, NodeFacts]) -> dict[str, tuple[int, ...]]:
    """All hosts' counts, added up."""
    seen = sorted({name for facts in nodes.values() for name in facts.counts})
    return {name: added([facts.counts[name] for facts in nodes.values() if name in facts.counts]) for name in seen}


def old_cookies(rows: Mapping[str, tuple[int, ...]]) -> OldCookies | None:
    """None: there are none."""
    found = {code: row for code in _OLD if sum(row := rows.get(f"refused_session_{code}", ()))}
    if not found:
        return None
    total = added(list(found.values()))
    by = {code: sum(row) for code, row in sorted(found.items(), key=lambda each: -sum(each[1]))}
    return OldCookies(sessions=sum(total), since_min=since_min(total) or 0, trend=trend(total), by=by)


def of_users(nodes: Mapping[str, NodeFacts], rows: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    """What is wrong with new sessions, as their users see it."""
    yield from _never_back(nodes, rows)
    yield from _too_soon(rows)
    full = _lately(rows, "store_full")
    if full:
        words = f"{full} writes were refused in the last {LATELY} minutes because a store was full."
        advice = "Raise CLUSTERSESSION_MAX_BYTES and the memory of its place, or add a host."
        yield Finding(code="full", gravity=Gravity.BREAKS, where=(), words=words, advice=advice)


def _lately(rows: Mapping[str, tuple[int, ...]], name: str, minutes: int = LATELY) -> int:
    return sum(rows.get(name, ())[:minutes])


def _never_back(nodes: Mapping[str, NodeFacts], rows: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    sent, returned, plain = (_lately(rows, name) for name in ("id_sent", "id_returned", "id_sent_plain"))
    if sent < ENOUGH_SENT or returned:
        return
    cookie = names(sorted({facts.cookie for facts in nodes.values()}))
    begin = f"{sent} new sessions were given a cookie in the last {LATELY} minutes, and none of them has come back"
    others = sum(_lately(rows, f"refused_{code}") for code in _CLASHES)
    if others >= CLASH_SHARE * sent:
        words = f"{begin}: {others} requests came with something else under its name."
        advice = (
            f"Something else sets a cookie {cookie}, or changes ours on its way: another app of the domain, or a proxy. "
            "Give ours a name of its own in CLUSTERSESSION_COOKIE_NAME, or mend the other."
        )
        yield Finding(code="clash", gravity=Gravity.BREAKS, where=(), words=words, advice=advice)
    elif plain >= CLASH_SHARE * sent:
        words = f"{begin}: the cookie is Secure, and {plain} of them were sent over plain HTTP, where browsers do not keep it."
        advice = (
            "Serve the site over HTTPS. Behind a proxy that ends TLS, let it say so in X-Forwarded-Proto: if it does already, "
            "look whether it drops Set-Cookie. Only for a test without TLS: CLUSTERSESSION_COOKIE_SECURE=0."
        )
        yield Finding(code="secure", gravity=Gravity.BREAKS, where=(), words=words, advice=advice)
    else:
        words = f"{begin}: browsers do not get it, or do not send it back. (Programs that keep no cookies look the same.)"
        advice = (
            "Look at an answer as a browser gets it: is Set-Cookie there? A proxy may strip it, or Cookie from the request; "
            "CLUSTERSESSION_COOKIE_DOMAIN or _PATH may be of another site; in a frame of another site SameSite keeps it back."
        )
        yield Finding(code="stripped", gravity=Gravity.BREAKS, where=(), words=words, advice=advice)


def _too_soon(rows: Mapping[str, tuple[int, ...]]) -> Iterator[Finding]:
    young = {code: _lately(rows, f"refused_young_{code}", YOUNG_LATELY) for code in _TOO_SOON}
    total, new = sum(young.values()), max(_lately(rows, "id_sent", YOUNG_LATELY), _lately(rows, "id_returned", YOUNG_LATELY))
    if total < YOUNG_MIN or total < YOUNG_SHARE * new:
        return
    code = max(young, key=lambda each: young[each])
    why, advice = _TOO_SOON[code]
    words = f"{total} sessions whose cookies were minutes old were refused in the last {YOUNG_LATELY} minutes: {why}."
    yield Finding(code=TOO_SOON, gravity=Gravity.BREAKS, where=(), words=words, advice=advice)
