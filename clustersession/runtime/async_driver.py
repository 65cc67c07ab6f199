"""Runs operations in asyncio code. Never blocks the loop on a peer."""

from __future__ import annotations

from asyncio import CancelledError, create_task, sleep, to_thread, wait
from collections.abc import Coroutine
from typing import Any, TypeVar

from ..core.calls import Reply
from ..core.effects import Ask, Operation, Outside, Wait
from ..core.together import joined, pieces_of
from ..ports import AsyncTransport, Outgoing
from .budget import Budget
from .host import Host
from .routing import Exchange, HedgeDelay, Notice, Router, Step

T = TypeVar("T")


class AsyncDriver:
    """`run` an operation of `core.operations` to its end, awaiting the calls to peers. For one event loop."""

    __slots__ = ("_handle", "_me", "_router", "transport")

    def __init__(self, host: Host, transport: AsyncTransport, hedge_delay: HedgeDelay) -> None:
        self.transport = transport
        self._me = host.me
        self._handle = host.handle
        self._router = Router(host, hedge_delay)

    async def run(self, operation: Operation[T], budget: Budget) -> T:
        reply: Any = None
        try:
            while True:
                effect = operation.send(reply)
                if type(effect) is Ask and effect.node == self._me and budget.left > 0:  # nearly every one: no detour
                    reply = self._handle(effect.call)
                else:
                    reply = await self._waited(self._router.step(effect, budget), budget)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    async def complete(self, operation: Operation[T], budget: Budget) -> T:
        """`run` for what writes: a cancellation waits until it is over, at most as long as the budget, and is raised then, with
        what has failed as its cause. Of a write that was cut short nobody knew whether it counts, and whoever goes on after
        the cancellation would write it once more."""
        task, cancelled = create_task(self.run(operation, budget)), None
        while not task.done():
            try:
                await wait((task,))
            except CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled from (None if task.cancelled() else task.exception())
        return task.result()

    async def _waited(self, step: Step, budget: Budget) -> object:
        match step:
            case Outgoing():
                with budget:
                    return await self.transport.ask(step.member, step.call, budget.deadline())
            case Exchange():
                with budget:
                    exchanged = self.transport.exchange(step.batch, budget.deadline(), step.enough)
                    return step.answered(await (self._meanwhile(exchanged, step) if step.own else exchanged))
            case Notice():
                self.transport.tell(step.member, step.call)
                return None
            case Wait():
                with budget:
                    await sleep(step.seconds)
                return None
            case Outside():
                return await to_thread(step.work)
        return step

    async def _meanwhile(self, exchanged: Coroutine[Any, Any, list[Reply | None]], step: Exchange) -> list[Reply | None]:
        """What this host has to do itself, piece by piece: in between others get their turn."""
        peers = create_task(exchanged)
        try:
            for place, call in step.own:
                replies = []
                for piece in pieces_of(call):
                    await sleep(0)
                    await sleep(0)  # the loop looks for requests after the first, and answers them before the second is over
                    replies.append(self._handle(piece))
                step.replies[place] = joined(replies)
            return await peers
        finally:
            peers.cancel()
