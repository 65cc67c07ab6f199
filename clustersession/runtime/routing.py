"""Which part of an effect this host answers at once, and for which part a driver must wait.

Shared by the blocking and the asyncio driver, so that the two differ in nothing but how they wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from ..core.calls import Call, Many, Promote, Reply, Unreachable
from ..core.effects import Ask, AskAll, Effect, Hedge, Outside, Tell, Wait
from ..core.node import Member
from ..ports import Outgoing
from .budget import Budget
from .host import Host

HedgeDelay: TypeAlias = Callable[[str], float]
"""Seconds to wait for the peer of that identity before the next one is asked too."""

UNKNOWN: Final = Unreachable("unknown")
OVERSPENT: Final = Unreachable("budget")


class Exchange(NamedTuple):
    """Calls to make before the effect is answered; their replies go to `places` of `replies`. `own`: what is much to do on
    this host, best done while the peers do their part."""

    batch: tuple[Outgoing, ...]
    places: tuple[int, ...]
    replies: list[Reply | None]
    enough: Callable[[Reply], bool] | None = None
    own: tuple[tuple[int, Many], ...] = ()

    def answered(self, received: Iterable[Reply | None]) -> tuple[Reply | None, ...]:
        for place, reply in zip(self.places, received, strict=True):
            self.replies[place] = reply
        return tuple(self.replies)


class Notice(NamedTuple):
    """A call to send without waiting."""

    member: Member
    call: Call


Step: TypeAlias = Reply | tuple[Reply | None, ...] | Outgoing | Exchange | Notice | Wait | Outside | None
"""`Outgoing`, `Exchange`, `Notice`, `Wait` and `Outside` are left to the driver; anything else is the answer itself."""


class Router:
    """Answers what this host can answer. A node that is no member is never called: nothing a client sends names a peer.

    A request without time left takes nothing over, not even on this host: that it did not hear from the other owner says
    nothing about that owner, which may be taking writes.
    """

    __slots__ = ("_hedge_delay", "_host")

    def __init__(self, host: Host, hedge_delay: HedgeDelay) -> None:
        self._host = host
        self._hedge_delay = hedge_delay

    def step(self, effect: Effect, budget: Budget) -> Step:
        match effect:
            case Ask():
                return self._ask(effect, budget)
            case AskAll():
                return self._all(effect.asks, budget)
            case Hedge():
                return self._hedge(effect, budget)
            case Tell():
                return self._tell(effect)
        return effect

    def _ask(self, ask: Ask, budget: Budget) -> Reply | Outgoing:
        if ask.node == self._host.me:
            return OVERSPENT if budget.spent and isinstance(ask.call, Promote) else self._host.handle(ask.call)
        member = self._host.view.get(ask.node)
        if member is None:
            return UNKNOWN
        return OVERSPENT if budget.spent else Outgoing(member, ask.call)

    def _all(self, asks: tuple[Ask, ...], budget: Budget) -> Step:
        me = self._host.me
        own = tuple((place, ask.call) for place, ask in enumerate(asks) if ask.node == me and isinstance(ask.call, Many))
        if not own:
            return _sorted([self._ask(ask, budget) for ask in asks])
        kept = {place for place, _ in own}
        step = _sorted([None if place in kept else self._ask(ask, budget) for place, ask in enumerate(asks)])
        return step._replace(own=own) if isinstance(step, Exchange) else Exchange((), (), list(step), own=own)

    def _hedge(self, hedge: Hedge, budget: Budget) -> Step:
        """This host first: it costs microseconds, whatever its place in the order."""
        me = self._host.me
        steps: list[Reply | Outgoing | None] = [None] * len(hedge.asks)
        for place, ask in enumerate(hedge.asks):
            if ask.node == me:
                reply = steps[place] = self._host.handle(ask.call)
                if hedge.good(reply):
                    return tuple(steps)  # type: ignore[arg-type]
        after, before = 0.0, ""
        for place, ask in enumerate(hedge.asks):
            if ask.node == me:
                continue
            step = steps[place] = self._ask(ask, budget)
            if isinstance(step, Outgoing):
                after += self._hedge_delay(before) if before else 0.0
                before = ask.node
                steps[place] = step if after == 0.0 else step._replace(after=after)
        return _sorted(steps, hedge.good)

    def _tell(self, tell: Tell) -> Step:
        if tell.node == self._host.me:
            self._host.handle(tell.call)
            return None
        member = self._host.view.get(tell.node)
        return None if member is None else Notice(member, tell.call)


def _sorted(
    steps: list[Reply | Outgoing | None], enough: Callable[[Reply], bool] | None = None
) -> Exchange | tuple[Reply | None, ...]:
    waiting = [(place, step) for place, step in enumerate(steps) if isinstance(step, Outgoing)]
    replies = [None if isinstance(step, Outgoing) else step for step in steps]
    if not waiting:
        return tuple(replies)
    places, batch = zip(*waiting, strict=True)
    return Exchange(batch, places, replies, enough)
