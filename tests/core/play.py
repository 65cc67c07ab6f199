"""A driver that plays the other nodes from a script: for each node and type of call its reply, or a list of them in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import pytest

from clustersession.core.calls import Call, Reply, Unreachable
from clustersession.core.effects import Ask, AskAll, Effect, Hedge, Operation, Tell, Wait

T = TypeVar("T")
C = TypeVar("C")

SILENT: Final = Unreachable("timeout")
REFUSED: Final = Unreachable("refused")


class Late:
    """In a hedge: no answer yet when the next one is asked, nor when the hedge is over."""


LATE: Final = Late()
Scripted: TypeAlias = Reply | Late
Script: TypeAlias = Mapping[tuple[str, type[Any]], Scripted | Sequence[Scripted]]


class Played(NamedTuple, Generic[T]):
    """How an operation ended; `log` has one line for each effect, `sent` every call with the node it went to, `waited` the
    seconds of every pause."""

    outcome: T
    log: list[str]
    sent: list[tuple[str, Call]]
    waited: list[float]

    def calls(self, kind: type[C]) -> list[tuple[str, C]]:
        return [(node, call) for node, call in self.sent if isinstance(call, kind)]


def play(operation: Operation[T], script: Script) -> Played[T]:
    """Run `operation`. A call that is not in the script fails the test, and so does a list that is not used up."""
    player = _Player(script)
    answer: Any = None
    try:
        while True:
            answer = player.perform(operation.send(answer))
    except StopIteration as stop:
        player.finish()
        return Played(stop.value, player.log, player.sent, player.waited)


class _Player:
    def __init__(self, script: Script) -> None:
        self.waited: list[float] = []
        self._script = {key: list(value) if isinstance(value, Sequence) else value for key, value in script.items()}
        self.log: list[str] = []
        self.sent: list[tuple[str, Call]] = []

    def perform(self, effect: Effect) -> Any:
        match effect:
            case Ask():
                self.log.append(_line(effect))
                return self._reply(effect)
            case AskAll():
                self.log.append("all " + ", ".join(map(_line, effect.asks)))
                return tuple(self._reply(ask) for ask in effect.asks)
            case Hedge():
                return self._hedged(effect)
            case Tell():
                self.log.append(f"tell {_line(effect)}")
                self.sent.append((effect.node, effect.call))
            case Wait():
                self.log.append("wait")
                self.waited.append(effect.seconds)
        return None

    def _hedged(self, effect: Hedge) -> tuple[Reply | None, ...]:
        replies: list[Reply | None] = [None] * len(effect.asks)
        asked = []
        for place, ask in enumerate(effect.asks):
            asked.append(_line(ask))
            reply = self._scripted(ask)
            if not isinstance(reply, Late):
                replies[place] = reply
                if effect.good(reply):
                    break
        self.log.append("hedge " + ", ".join(asked))
        return tuple(replies)

    def _reply(self, ask: Ask) -> Reply:
        reply = self._scripted(ask)
        assert not isinstance(reply, Late), f"{ask} is no part of a hedge"
        return reply

    def _scripted(self, ask: Ask) -> Scripted:
        self.sent.append((ask.node, ask.call))
        key = (ask.node, type(ask.call))
        if key not in self._script:
            pytest.fail(f"not in the script: {ask}; so far {self.log}")
        found = self._script[key]
        if not isinstance(found, list):
            return found
        if not found:
            pytest.fail(f"asked once more than the script has replies: {ask}; so far {self.log}")
        return found.pop(0)

    def finish(self) -> None:
        left = [key for key, replies in self._script.items() if isinstance(replies, list) and replies]
        assert not left, f"never asked: {left}; but {self.log}"


def _line(effect: Ask | Tell) -> str:
    return f"{effect.node} {type(effect.call).__name__}"
