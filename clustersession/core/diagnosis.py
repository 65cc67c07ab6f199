"""The doctor's verdict, in words, from all that was found. Its first question is that of the operator whose users are logged out:
is it a few with old cookies, which passes, or do new sessions not stick?"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from .facts import Examination, NodeFacts
from .findings import Finding, Gravity, answering, of_hosts
from .reasons import REASONS
from .symptoms import TOO_SOON, OldCookies, of_users, old_cookies, rows_of
from .verdict import names


class Health(StrEnum):
    """HEALTHY and OLD_COOKIES are no trouble; IMPAIRED: new sessions stick, but something should be mended."""

    HEALTHY = "healthy"
    OLD_COOKIES = "old_cookies"
    IMPAIRED = "impaired"
    NOT_STICKING = "not_sticking"

    @property
    def harmless(self) -> bool:
        return self in (Health.HEALTHY, Health.OLD_COOKIES)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """`words`, `advice`: whole sentences. `cause`: the code of the gravest finding. `step_back`: the mode to go back to, None: no
    reason to. `findings`: the gravest first. `pairs`: of how many ordered pairs of hosts the canary came back, of how many."""

    verdict: Health
    words: str
    advice: str
    cause: str | None
    step_back: str | None
    pairs: tuple[int, int]
    old_cookies: OldCookies | None
    findings: tuple[Finding, ...]


_BEFORE: Final[Mapping[str, str]] = {"on": "mirror", "mirror": "off"}  # in shadow nothing of ours decides
_CUTS: Final[Mapping[str, str]] = {"link": "link", "down": "cut_off", "cut_off": "cut_off"}
_CUTS_OF_ONE: Final[Mapping[str, str]] = {**_CUTS, "unmet": "unmet"}  # where the host that was asked knows no other
_ORDER: Final = (Gravity.BREAKS, Gravity.TROUBLE, Gravity.NOTE)
_TRENDS: Final[Mapping[str, str]] = {
    "rising": "there are more of them lately",
    "falling": "there are fewer of them lately",
    "steady": "there are as many as before",
    "new": "it has just begun, so whether it falls will show in ten minutes",
}


def diagnosis(examination: Examination) -> Diagnosis:
    """What to tell the operator."""
    nodes = answering(examination)
    rows = rows_of(nodes)
    cuts = _CUTS if len(examination.members) > 1 else _CUTS_OF_ONE
    found = _joined([*of_hosts(examination), *of_users(nodes, rows)], cuts)
    old = old_cookies(rows)
    canaries = [each for facts in nodes.values() for each in facts.canaries]
    pairs = sum(each.step is None for each in canaries), len(canaries)
    first = found[0] if found and found[0].gravity is not Gravity.NOTE else None
    health = _health(first, old)
    words, advice, step_back = _told(health, first, nodes, old, pairs)
    return Diagnosis(
        verdict=health,
        words=words,
        advice=advice,
        cause=None if first is None else first.code,
        step_back=step_back,
        pairs=pairs,
        old_cookies=old,
        findings=tuple(found),
    )


def _joined(found: list[Finding], cuts: Mapping[str, str]) -> list[Finding]:
    """The gravest first. A way that is cut hurts nobody as long as every session has an owner that can be asked: only what is
    refused to users shows whether it does."""
    too_soon = next((each for each in found if each.code == TOO_SOON), None)
    cut = next((each for each in found if each.code in cuts), None)
    if too_soon is not None and cut is not None:
        code, words = cuts[cut.code], f"{cut.words} {too_soon.words}"
        graver = msgspec.structs.replace(cut, code=code, gravity=Gravity.BREAKS, words=words)
        found = [graver if each is cut else each for each in found if each is not too_soon]
    return sorted(found, key=lambda each: _ORDER.index(each.gravity))


def _health(first: Finding | None, old: OldCookies | None) -> Health:
    if first is not None:
        return Health.NOT_STICKING if first.gravity is Gravity.BREAKS else Health.IMPAIRED
    return Health.HEALTHY if old is None else Health.OLD_COOKIES


def _told(
    health: Health, first: Finding | None, nodes: Mapping[str, NodeFacts], old: OldCookies | None, pairs: tuple[int, int]
) -> tuple[str, str, str | None]:
    """Words, advice, and the mode to step back to."""
    if first is not None:
        begin = "New sessions do not stick. " if health is Health.NOT_STICKING else "New sessions stick, but something is wrong. "
        back, step = _stepping_back(first, nodes) if health is Health.NOT_STICKING else ("", None)
        return begin + first.words, f"{first.advice} {back}".strip(), step
    stick = _sticking(nodes, pairs)
    if old is None:
        return f"Healthy. {stick}", "", None
    advice = "Nothing has to be done: each of these users gets a new session, and it passes."
    if old.trend in ("rising", "steady"):
        advice += " If it does not, a host behind the balancer may have another secret, or another app uses the cookie's name."
    return f"A few users with old cookies, which is harmless. {_counted(old)} {stick}", advice, None


def _sticking(nodes: Mapping[str, NodeFacts], pairs: tuple[int, int]) -> str:
    if not pairs[1]:
        return f"{names(sorted(nodes))} is the only host, so every session has one copy."
    return f"{len(nodes)} hosts answer, and a new session went through {pairs[0]} of {pairs[1]} pairs of them and back."


def _counted(old: OldCookies) -> str:
    since = "an hour ago or earlier" if old.since_min >= 59 else f"{old.since_min} min ago"
    reasons = "; ".join(f"{count}: {REASONS[code].words}" for code, count in old.by.items())
    return f"Up to {old.sessions} sessions were refused in the last hour, the first {since}; {_TRENDS[old.trend]} ({reasons})."


def _stepping_back(first: Finding, nodes: Mapping[str, NodeFacts]) -> tuple[str, str | None]:
    """Whether to: not where a few hosts are to blame, which can be taken out of the balancer."""
    blamed = set(first.where) & nodes.keys()
    if first.where and 2 * len(first.where) <= len(nodes):
        out = names(sorted(first.where))
        return f"No need to step back: take {out} out of the balancer until it is mended, the others go on.", None
    mode = next(iter(sorted({facts.mode for name, facts in nodes.items() if not blamed or name in blamed})), "on")
    back = _BEFORE.get(mode)
    if back is None:
        return "", None
    words = "If that takes more than minutes, and this site was switched over from sessions of another kind, step back to"
    return f"{words} CLUSTERSESSION_MODE={back} on all hosts meanwhile.", back
