"""The examination of the whole cluster from this node: everybody is asked, each sends its canaries, and nothing stays of it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import msgspec

from ..core.calls import Examine, Examined, Reply, Unreachable
from ..core.facts import Checked, Examination, NodeFacts
from ..core.node import Member, State
from ..ports import AsyncTransport
from ..runtime.keeper import Keeper
from .examining import Examiner

PATH: Final = b"/doctor"
ASKED_S: Final = 3.5  # in all: the control listener gives no answer more time than a little above
POLLED_EVERY_S: Final = 0.1
MEMBERS_AT_ONCE: Final = 64


class Doctor:
    """Of one node. Whoever asks while an examination is under way gets its result."""

    def __init__(self, cluster: str, keeper: Keeper, examiner: Examiner, transport: AsyncTransport) -> None:
        self._cluster, self._keeper, self._examiner, self._transport = cluster, keeper, examiner, transport
        self._under_way: asyncio.Task[bytes] | None = None

    async def __call__(self) -> bytes:
        """An `Examination` as JSON."""
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._examined())
        return await asyncio.shield(self._under_way)

    async def _examined(self) -> bytes:
        began = time.monotonic()
        gate = asyncio.Semaphore(MEMBERS_AT_ONCE)
        members = [member for member in self._keeper.view().members.values() if member.state is not State.LEFT]
        checked = await asyncio.gather(*(self._checked(member, began + ASKED_S, gate) for member in members))
        found = Examination(
            asked=self._keeper.me.identity,
            cluster=self._cluster,
            seconds=round(time.monotonic() - began, 3),
            members=tuple(sorted(checked, key=lambda each: each.node)),
        )
        return msgspec.json.encode(found)

    async def _checked(self, member: Member, deadline: float, gate: asyncio.Semaphore) -> Checked:
        """Asked twice to measure its clock on a connection that is open, then until its canaries are back."""
        async with gate:
            answer = await self._timed(member, Examine(tour=True), deadline)
            if not isinstance(answer, _Answer):
                return _checked(member, why=answer)
            tour = answer.facts.tour
            best = last = answer
            while time.monotonic() < deadline:
                again = await self._timed(member, Examine(), deadline)
                if isinstance(again, _Answer):  # else it may be held up by a lock for a moment
                    last, best = again, min(best, again, key=lambda each: each.rtt_s)
                    if last.facts.toured >= tour:
                        break
                await asyncio.sleep(POLLED_EVERY_S)
        return _checked(member, answer=best, facts=last.facts)

    async def _timed(self, member: Member, call: Examine, deadline: float) -> _Answer | str:
        """Its answer, or why there is none."""
        sent_wall, sent = time.time(), time.monotonic()
        reply: Reply
        if member.identity == self._keeper.me.identity:
            reply = Examined(self._examiner.facts(tour=call.tour))
        else:
            reply = await self._transport.ask(member, call, deadline)
        rtt_s = time.monotonic() - sent
        if isinstance(reply, Examined):
            return _Answer(reply.facts, rtt_s, reply.facts.wall_s - (sent_wall + rtt_s / 2))
        return reply.why if isinstance(reply, Unreachable) else type(reply).__name__.lower()


class _Answer(msgspec.Struct, frozen=True):
    facts: NodeFacts
    rtt_s: float
    ahead_s: float


def _checked(member: Member, *, why: str | None = None, answer: _Answer | None = None, facts: NodeFacts | None = None) -> Checked:
    known = Checked(node=member.identity, state=str(member.state), address=f"{member.host}:{member.port}", why=why)
    if answer is None:
        return known
    half = answer.rtt_s / 2
    return msgspec.structs.replace(
        known,
        rtt_ms=round(answer.rtt_s * 1e3, 2),
        ahead_s=round(answer.ahead_s, 3),
        within_s=round(half, 4),
        facts=facts,
    )
