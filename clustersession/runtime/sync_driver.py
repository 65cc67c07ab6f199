"""Runs operations in blocking code: WSGI servers with processes, threads or greenlets."""

from __future__ import annotations

import time
from typing import Any, TypeVar

from ..core.effects import Ask, Operation, Outside, Wait
from ..ports import Outgoing, Transport
from .budget import Budget
from .host import Host
from .routing import Exchange, HedgeDelay, Notice, Router, Step

T = TypeVar("T")


class SyncDriver:
    """`run` an operation of `core.operations` to its end, with blocking calls to peers."""

    __slots__ = ("_handle", "_me", "_router", "transport")

    def __init__(self, host: Host, transport: Transport, hedge_delay: HedgeDelay) -> None:
        self.transport = transport
        self._me = host.me
        self._handle = host.handle
        self._router = Router(host, hedge_delay)

    def run(self, operation: Operation[T], budget: Budget) -> T:
        reply: Any = None
        try:
            while True:
                effect = operation.send(reply)
                if type(effect) is Ask and effect.node == self._me and budget.left > 0:  # nearly every one: no detour
                    reply = self._handle(effect.call)
                else:
                    reply = self._waited(self._router.step(effect, budget), budget)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]

    def _waited(self, step: Step, budget: Budget) -> object:
        match step:
            case Outgoing():
                with budget:
                    return self.transport.ask(step.member, step.call, budget.deadline())
            case Exchange():
                for place, call in step.own:
                    step.replies[place] = self._handle(call)
                with budget:
                    return step.answered(self.transport.exchange(step.batch, budget.deadline(), step.enough))
            case Notice():
                self.transport.tell(step.member, step.call)
                return None
            case Wait():
                with budget:
                    time.sleep(step.seconds)  # looked up now: gevent may have patched it since this was loaded
                return None
            case Outside():
                return step.work()
        return step
