"""How a simulated host runs an operation: each effect becomes events of the world's queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.calls import Promote, Reply, Unreachable
from ..core.effects import Ask, AskAll, Effect, Hedge, Operation, Outside, Tell, Wait

if TYPE_CHECKING:
    from .simulated import SimulatedNode

HEDGE_S = 0.05


class Run:
    """One operation under way."""

    def __init__(
        self, node: SimulatedNode, operation: Operation[Any], done: Callable[[Any], None], deadline: float | None
    ) -> None:
        self.node, self._operation, self._done, self._deadline = node, operation, done, deadline

    def resume(self, value: Any) -> None:
        try:
            effect = self._operation.send(value)
        except StopIteration as stop:
            self._done(stop.value)
            return
        if type(effect) is Ask:  # as nearly all are
            self.ask(effect, self.later)
        else:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        node, world = self.node, self.node.world
        match effect:
            case AskAll():
                self._gather(effect.asks)
            case Hedge():
                _Hedged(self, effect).start()
            case Tell():
                self.ask(Ask(effect.node, effect.call), _ignored)
                self.later(None)
            case Wait():
                world.at(effect.seconds, lambda: self.resume(None), node)
            case Outside():
                self.later(effect.work())

    def later(self, value: Any) -> None:
        self.node.world.step(self.node, self.resume, value)

    def ask(self, ask: Ask, answered: Callable[[Reply], None]) -> None:
        node, world = self.node, self.node.world
        overspent = self._deadline is not None and world.now >= self._deadline
        if overspent and (ask.node != node.name or isinstance(ask.call, Promote)):  # as in `runtime.routing`
            answered(Unreachable("budget"))
        elif ask.node == node.name:
            reply = node.host.handle(ask.call)
            if world.overheard is not None:
                world.overheard(node.name, node.name, ask.call, reply)
            answered(reply)
        else:
            world.call(node, ask.node, ask.call, answered)

    def _gather(self, asks: tuple[Ask, ...]) -> None:
        replies: list[Reply | None] = [None] * len(asks)
        missing = len(asks)
        if not asks:
            self.later(())

        def answered(index: int, reply: Reply) -> None:
            nonlocal missing
            replies[index], missing = reply, missing - 1
            if not missing:
                self.later(tuple(replies))

        for index, ask in enumerate(asks):
            self.ask(ask, lambda reply, index=index: answered(index, reply))  # type: ignore[misc]


def _ignored(_: Reply) -> None:
    """Of who is only told something no answer is awaited."""


class _Hedged:
    """The asks of a hedge: the next one when the one before failed, was not good or is late."""

    def __init__(self, run: Run, effect: Hedge) -> None:
        self._run, self._effect = run, effect
        self._replies: list[Reply | None] = [None] * len(effect.asks)
        self._asked = 0
        self._over = False

    def start(self) -> None:
        if self._asked < len(self._effect.asks) and not self._over:
            index = self._asked
            self._asked += 1
            self._run.ask(self._effect.asks[index], lambda reply: self._answered(index, reply))
            node = self._run.node
            node.world.at(HEDGE_S, lambda: self._late(index), node)

    def _late(self, index: int) -> None:
        if self._replies[index] is None and self._asked == index + 1:
            self.start()

    def _answered(self, index: int, reply: Reply) -> None:
        if self._over:
            return
        self._replies[index] = reply
        waiting = any(r is None for r in self._replies[: self._asked])
        if self._effect.good(reply) or (self._asked == len(self._replies) and not waiting):
            self._over = True
            self._run.later(tuple(self._replies))
        elif self._asked == index + 1:
            self.start()
