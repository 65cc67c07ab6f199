"""Where a session lives, or why it is gone: one verdict, in words, from what every member has said of it.

It follows what a request would come to (`operations.search`): a tombstone anywhere is final, a copy decides before a pointer, and
as long as somebody who may hold it gave no answer, a session that nobody has is not known to be gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from .holdings import Answer, EndFacts, Facts, Holding, Report
from .record import Record, rank


class Fate(StrEnum):
    ALIVE = "alive"
    GONE = "gone"
    UNKNOWN = "unknown"


class Code(StrEnum):
    """One word for each verdict, for machines."""

    HELD = "held"
    BEHIND = "behind"
    MOVING = "moving"
    SINGLE = "single"
    ALONE = "alone"
    RETAINED = "retained"
    OLDER = "older"
    LOGOUT = "logout"
    EMPTIED = "emptied"
    ROTATED = "rotated"
    WITHDRAWN = "withdrawn"
    EXPIRED_IDLE = "expired_idle"
    EXPIRED_ABSOLUTE = "expired_absolute"
    ENDED = "ended"
    LOST = "lost"
    NOTHING = "nothing"
    UNANSWERED = "unanswered"

    @property
    def fate(self) -> Fate:
        if self is Code.UNANSWERED:
            return Fate.UNKNOWN
        return Fate.ALIVE if self in _ALIVE else Fate.GONE


_ALIVE: Final = (Code.HELD, Code.BEHIND, Code.MOVING, Code.SINGLE, Code.ALONE, Code.RETAINED, Code.OLDER)
_ENDED: Final[Mapping[str, tuple[Code, str]]] = {
    "logout": (Code.LOGOUT, "it was logged out {ago} ago"),
    "emptied": (Code.EMPTIED, "a request left nothing in it {ago} ago, which ends it"),
    "rotated": (Code.ROTATED, "it got a new ID {ago} ago, as at each login; whoever still has the old one must log in again"),
    "withdrawn": (Code.WITHDRAWN, "its ID was made for a rotation that was given up {ago} ago, and no browser ever got it"),
    "expired: idle": (Code.EXPIRED_IDLE, "nobody used it for longer than it may idle; it was ended {ago} ago"),
    "expired: absolute": (Code.EXPIRED_ABSOLUTE, "it reached its absolute limit; it was ended {ago} ago"),
}
_OVER: Final[Mapping[str, tuple[Code, str]]] = {
    "expired: idle": (Code.EXPIRED_IDLE, "nobody used it for longer than it may idle"),
    "expired: absolute": (Code.EXPIRED_ABSOLUTE, "it has reached its absolute limit"),
}


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified cookie says. `owners`: as identities, None for a tag that no member has. `floor`: the epoch and version
    that its browser has seen. `outlived`: it is older than the absolute limit of the settings."""

    owners: tuple[str | None, ...]
    floor: tuple[int, int]
    age_s: float
    outlived: bool = False


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`words`: a sentence without its full stop. `notes`: what else is worth knowing, whole sentences."""

    fate: Fate
    code: Code
    words: str
    notes: tuple[str, ...] = ()


def verdict(report: Report, named: Named | None = None) -> Verdict:
    """What becomes of a request with this session. `named`: what its cookie says, if that is known."""
    code, words = _ended(report) or _held(report, named) or _pointed(report) or _nowhere(report, named)
    return Verdict(fate=code.fate, code=code, words=words, notes=tuple(_notes(report)))


Found = tuple[Code, str]


def _ended(report: Report) -> Found | None:
    endings = [each.facts.ended for each in report.holdings if each.facts is not None and each.facts.ended is not None]
    if not endings:
        return None
    first: EndFacts = max(endings, key=lambda each: each.ago_s)
    code, words = _ENDED.get(first.reason, (Code.ENDED, f"it was ended {{ago}} ago: {first.reason}"))
    words = words.format(ago=age(first.ago_s))
    if first.grace_left_s is not None:
        words += f"; for {age(first.grace_left_s)} parallel requests may still read it"
    return code, words


# --- somebody has a copy -------------------------------------------------------------------------------------------------


def _held(report: Report, named: Named | None) -> Found | None:
    copies = [(each, each.facts) for each in report.holdings if each.answer is Answer.COPY and each.facts is not None]
    if not copies:
        return None
    holder, best = max(copies, key=lambda each: (_rank(each[1]), each[1].version))
    pointer = _latest_pointer(report)
    if pointer is not None and pointer.epoch > best.epoch:
        return _older(report, holder, [owner for owner in pointer.owners if owner])
    if named is not None and (best.epoch, best.version) < named.floor:
        return _older(report, holder, [each.node for each in report.holdings if each.node != holder.node])
    other = _other(best, holder)
    if best.expired is not None and (over := _over(report, best.expired, other)):
        return over
    if other is None:
        words = f"{holder.node} has the only copy: if that host is lost, so is the session"
        return Code.SINGLE, f"{words}; with another host up, repair makes a second one"
    return _with_other(report, holder, best, other)


def _with_other(report: Report, holder: Holding, best: Facts, other: str) -> Found:
    theirs = _of(report, other)
    facts = None if theirs is None else theirs.facts
    if theirs is None or facts is None:
        why = "is no member any more" if theirs is None else _said(theirs)
        words = f"only {holder.node} has a copy, version {best.version} of epoch {best.epoch}; {other}, its other owner, {why}"
        silent = _silent(report, without=(other,))
        if silent and (theirs is None or theirs.answer is Answer.NONE):
            words += f", and {names(silent)} gave no answer either, so requests get a 503 until one of them does"
        return Code.ALONE, words
    both = names([holder.node, other])
    if theirs.answer is not Answer.COPY or (facts.epoch, facts.owners) != (best.epoch, best.owners):
        return Code.MOVING, f"its owners change: {holder.node} has epoch {best.epoch}, {other} still has epoch {facts.epoch}"
    if facts.version != best.version or best.unheld or facts.unheld:
        words = f"{holder.node} has version {best.version}, {other} has {facts.version}"
        return Code.BEHIND, f"a write is not known to be held by both: {words}; the next request delivers it"
    if not (best.accepted and facts.accepted):
        return Code.MOVING, f"both {both} have version {best.version}, and the change of owners to them is not confirmed yet"
    return Code.HELD, f"both owners, {both}, have version {best.version} of epoch {best.epoch}"


def _older(report: Report, holder: Holding, newer: Iterable[str]) -> Found:
    """There was a newer copy, which `newer` may have."""
    silent = [node for node in newer if _is_open(report, node)]
    words = f"{holder.node} has a copy, but there was a newer one"
    if silent:
        return Code.UNANSWERED, f"{words}, and {names(silent)} gave no answer"
    return Code.OLDER, f"{words}, and nobody has it any more: the last writes are lost, the rest is served"


def _over(report: Report, word: str, other: str | None) -> Found | None:
    """The other owner may have heard of a later use."""
    code, words = _OVER[word]
    theirs = None if other is None else _of(report, other)
    if other is None or (theirs is None and report.converged) or (theirs is not None and _agrees(theirs)):
        return code, words
    if _is_open(report, other):
        return Code.UNANSWERED, f"{words}, unless {other} knows of a later use, and that gave no answer"
    return None


def _agrees(theirs: Holding) -> bool:
    expired = theirs.facts is not None and theirs.facts.expired is not None
    return expired or theirs.away or theirs.answer is Answer.NOTHING


# --- nobody has a copy ---------------------------------------------------------------------------------------------------


def _pointed(report: Report) -> Found | None:
    pointer = _latest_pointer(report)
    if pointer is None:
        return None
    owners = [owner for owner in pointer.owners if owner]
    silent = [owner for owner in owners if _is_open(report, owner)] or _silent(report)
    if silent:
        return Code.UNANSWERED, f"it was handed over to {names(owners)}, and {names(silent)} gave no answer"
    retaining = [each.node for each in report.holdings if each.facts is not None and each.facts.retained]
    if retaining:
        words = f"it was handed over to {names(owners)}, which do not have it, and {names(retaining)} kept the last copy"
        return Code.RETAINED, f"{words}: the next request with its cookie brings it back"
    perhaps = "" if pointer.principal else "; or it made room in a full store there, as nobody was logged in"
    return Code.LOST, f"both copies are lost: it was handed over to {_fates(report, owners, None)}{perhaps}"


def _nowhere(report: Report, named: Named | None) -> Found:
    silent = _silent(report)
    if silent:
        return Code.UNANSWERED, f"nobody who answered has anything of it, but {names(silent)} gave no answer and may have it"
    away = [each.node for each in report.holdings if each.away and each.state == "dead"]
    if not report.converged:
        return Code.UNANSWERED, f"nobody who answered has anything of it, but {_unsettled(report, away)}"
    if named is None and away:
        words = f"nobody who answered has anything of it; {names(away)} cannot be asked"
        return Code.UNANSWERED, f"{words}. If its owners are among them it is lost; its cookie would tell who they are"
    if named is None:
        return Code.NOTHING, f"no member has anything of it: {_NEVER}, {_FORGOTTEN}"
    if named.outlived:
        return Code.EXPIRED_ABSOLUTE, "its cookie is older than the absolute limit of the settings"
    if all(_may_have_lost(report, owner, named.age_s) for owner in named.owners):
        copies = "both copies are" if len(named.owners) > 1 else "its only copy is"
        return Code.LOST, f"{copies} lost: its cookie names {_fates(report, named.owners, named.age_s)}"
    return Code.NOTHING, f"its ID is genuine, so it existed, and no member has anything of it any more: {_FORGOTTEN}"


def _unsettled(report: Report, dead: list[str]) -> str:
    """Why nobody may conclude anything from the member table."""
    if len(dead) > len(report.holdings) / 2:
        return f"{names(dead)} are dead for {report.asked}, which may itself be the one that is cut off: requests get a 503"
    return "the member table is not settled: ask again in a moment"


_NEVER: Final = "it never existed"
_FORGOTTEN: Final = (
    "it ended or moved more than 25 hours ago, or it was anonymous and made room in a full store (nothing is kept of those)"
)


def _may_have_lost(report: Report, owner: str | None, age_s: float) -> bool:
    theirs = None if owner is None else _of(report, owner)
    return theirs is None or theirs.away or theirs.started_ago_s < age_s


def _fates(report: Report, owners: Iterable[str | None], age_s: float | None) -> str:
    return " and ".join(_fate(report, owner, age_s) for owner in owners)


def _fate(report: Report, owner: str | None, age_s: float | None) -> str:
    theirs = None if owner is None else _of(report, owner)
    if theirs is None:
        return f"{owner} (no member any more)" if owner else "a host that is no member"
    if theirs.away:
        return f"{owner} ({theirs.state})"
    if age_s is None or theirs.started_ago_s < age_s:
        return f"{owner} (started {age(theirs.started_ago_s)} ago, has nothing of it)"
    return f"{owner} (has nothing of it)"


# --- words ---------------------------------------------------------------------------------------------------------------


def _notes(report: Report) -> Iterable[str]:
    known = [each.facts for each in report.holdings if each.facts is not None]
    if any(facts.adoption for facts in known):
        yield "This is no user's session: it remembers that a session of another system was adopted, or logged out."
    if any(facts.mirrored for facts in known):
        yield "A session of another system has the same values (mode mirror)."
    if any(facts.frozen for facts in known):
        yield "It is being rotated at this moment: writes wait."
    if report.hints:
        yield f"{report.asked} still has to tell {names(report.hints)} of a change to it."


def age(seconds: float) -> str:
    """A span of time for people, in its largest unit that counts."""
    for name, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def said_by(holding: Holding) -> str:
    """What a member has said, in a few words."""
    return "has a copy" if holding.answer is Answer.COPY else _said(holding)


def _said(holding: Holding) -> str:
    match holding.answer:
        case Answer.NONE:
            return f"is {holding.state}" if holding.away else f"gave no answer ({holding.why})"
        case Answer.SYNCING:
            return "has nothing of it, and is still in its sync"
        case Answer.ENDED:
            return "knows that it ended"
        case Answer.MOVED:
            return "has handed it over"
    return "has nothing of it"


def names(nodes: Iterable[str]) -> str:
    """`a, b and c`; there is at least one."""
    *before, last = nodes
    return f"{', '.join(before)} and {last}" if before else last


# --- looking things up -----------------------------------------------------------------------------------------------------


def _of(report: Report, node: str) -> Holding | None:
    return next((each for each in report.holdings if each.node == node), None)


def _other(facts: Facts, holder: Holding) -> str | None:
    return facts.owners[1] if facts.owners[0] == holder.node else facts.owners[0]


def _is_open(report: Report, node: str) -> bool:
    theirs = _of(report, node)
    return not report.converged if theirs is None else theirs.open


def _silent(report: Report, without: tuple[str, ...] = ()) -> list[str]:
    return [each.node for each in report.holdings if each.open and each.node not in without]


def _latest_pointer(report: Report) -> Facts | None:
    pointers = [each.facts for each in report.holdings if each.answer is Answer.MOVED and each.facts is not None]
    return max(pointers, key=lambda facts: facts.epoch, default=None)


def _rank(facts: Facts) -> tuple[float, int, str, str]:
    return rank(Record(facts.epoch, facts.version, facts.owners, accepted=facts.accepted, base=facts.base))
