"""What each member holds of one session, told without any of its values: for people who ask where a session is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from .calls import Each, Export, Exported, Fetch, Found, Later, Many, Reply, Unreachable
from .effects import Ask, AskAll, Operation
from .node import View
from .record import Ending, Key, Owners, Record, expired, live_items, size_of, touch_interval
from .values import HIDDEN

MIRROR: Final = f"{HIDDEN}mirror"


class Answer(StrEnum):
    """What a member's answer amounts to. SYNCING: it holds nothing, and has not heard everything yet. NONE: no answer."""

    COPY = "copy"
    ENDED = "ended"
    MOVED = "moved"
    NOTHING = "nothing"
    SYNCING = "syncing"
    NONE = "none"


class EndFacts(msgspec.Struct, frozen=True, kw_only=True):
    """`grace_left_s`: for so long parallel requests may still read what it held."""

    reason: str
    ago_s: float
    grace_left_s: float | None = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """A copy, a tombstone or a pointer, in counts and ages (seconds). No value, no name of a key, no name of a user.

    `serving`: its holder answers requests from it. `unheld`: as far as its holder knows the other owner may lack its last
    change. `expired`: the limit it has passed. `retained`: a pointer that still has the last copy. `mirrored`: a session of
    another system has it too. `adoption`: no user's session, but what keeps an adopted one from coming back.
    """

    epoch: int
    version: int
    owners: Owners
    accepted: bool
    base: int
    keys: int
    bytes: int
    created_ago_s: float
    auth_ago_s: float | None
    last_seen_ago_s: float
    idle_left_s: float | None
    absolute_left_s: float | None
    principal: bool
    serving: bool = False
    unheld: bool = False
    frozen: bool = False
    retained: bool = False
    mirrored: bool = False
    adoption: bool = False
    expired: str | None = None
    ended: EndFacts | None = None


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """One member. `state`: as the node sees it that was asked; `started_ago_s`: by wall clocks; `why`: there is no answer."""

    node: str
    state: str
    started_ago_s: float
    answer: Answer
    why: str | None = None
    facts: Facts | None = None

    @property
    def away(self) -> bool:
        """Known to be gone: that it gives no answer is no news."""
        return self.answer is Answer.NONE and self.state in ("dead", "left")

    @property
    def open(self) -> bool:
        """It may hold something of the session, as far as its answer goes."""
        return self.answer is Answer.SYNCING or (self.answer is Answer.NONE and not self.away)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that `asked` found out. `converged`: nobody in its member table is undecided. `hints`: whom it still has to tell of a
    change to this session."""

    handle: str
    asked: str
    converged: bool
    hints: tuple[str, ...]
    holdings: tuple[Holding, ...]


def ask_members(view: View, key: Key) -> Operation[dict[str, Reply]]:
    """What every member says, the dead too: they may be back. Changes nothing anywhere."""
    question = Many((Export(key), Fetch(key, 0.0)))
    replies = yield AskAll(tuple(Ask(node, question) for node in view.members))
    return dict(zip(view.members, replies, strict=True))


def report(view: View, key: Key, replies: Mapping[str, Reply], hints: tuple[str, ...], *, now: float, wall_s: float) -> Report:
    """`now`: the clock of the host that asked, to which the times in `replies` are moved; `wall_s`: Unix time."""
    holdings = tuple(
        holding(node, str(member.state), wall_s - member.incarnation / 1000, replies[node], now)
        for node, member in sorted(view.members.items())
    )
    return Report(handle=key.hex(), asked=view.me, converged=view.converged, hints=hints, holdings=holdings)


def holding(node: str, state: str, started_ago_s: float, reply: Reply, now: float) -> Holding:
    """What the reply of `node` to the question amounts to."""
    answer, why, facts = _answer_of(node, reply, now)
    return Holding(node=node, state=state, started_ago_s=_rounded(started_ago_s), answer=answer, why=why, facts=facts)


def _answer_of(node: str, reply: Reply, now: float) -> tuple[Answer, str | None, Facts | None]:
    match reply:
        case Each(replies=(Exported(record=None), Later())):
            return Answer.SYNCING, None, None
        case Each(replies=(Exported(record=None), _)):
            return Answer.NOTHING, None, None
        case Each(replies=(Exported(record=Record() as record), said)):
            facts = facts_of(record, said, now)
            if record.ended is not None:
                return Answer.ENDED, None, facts
            is_copy = not record.pointer and node in record.owners
            return (Answer.COPY if is_copy else Answer.MOVED), None, facts
        case Each(replies=(failed, *_)):
            return Answer.NONE, _why(failed), None
    return Answer.NONE, _why(reply), None


def _why(reply: Reply) -> str:
    return reply.why if isinstance(reply, Unreachable) else type(reply).__name__.lower()


def facts_of(record: Record, said: Reply, now: float) -> Facts:
    """`said`: what its holder would have answered a reader."""
    ending, lifetime = record.ended, record.lifetime
    unused_until = None if lifetime.idle is None else record.last_seen + lifetime.idle + touch_interval(lifetime.idle)
    hidden = record.principal is not None and record.principal.startswith(HIDDEN)
    return Facts(
        epoch=record.epoch,
        version=record.version,
        owners=record.owners,
        accepted=record.accepted,
        base=record.base,
        keys=len(live_items(record)),
        bytes=size_of(record),
        created_ago_s=_rounded(now - record.created),
        auth_ago_s=None if record.auth_time is None else _rounded(now - record.auth_time),
        last_seen_ago_s=_rounded(now - record.last_seen),
        idle_left_s=None if unused_until is None else _rounded(unused_until - now),
        absolute_left_s=None if lifetime.deadline is None else _rounded(lifetime.deadline - now),
        principal=record.principal is not None and not hidden,
        serving=isinstance(said, Found) and said.serving,
        unheld=isinstance(said, Found) and said.unheld,
        frozen=record.frozen_until is not None and now < record.frozen_until,
        retained=record.pointer and bool(record.items),
        mirrored=MIRROR in record.items,
        adoption=hidden,
        expired=None if ending or record.pointer else expired(record, now),
        ended=None if ending is None else _end_facts(ending, now),
    )


def _end_facts(ending: Ending, now: float) -> EndFacts:
    until = ending.grace_until
    left = None if until is None or until <= now else _rounded(until - now)
    return EndFacts(reason=ending.reason, ago_s=_rounded(now - ending.at), grace_left_s=left)


def _rounded(seconds: float) -> float:
    return round(seconds, 3)
