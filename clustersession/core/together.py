"""Many operations at once: what they ask one node at the same step travels in one message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from .calls import Call, Each, Many, Reply, SessionCall, Unreachable
from .effects import Ask, AskAll, Effect, Hedge, Operation, Tell
from .record import size_of

T = TypeVar("T")

CALLS_MAX: Final = 32  # of one message: so long the node that carries it out answers nobody else
BYTES_MAX: Final = 256 * 1024
NOT_TOGETHER: Final = Unreachable("garbage")


def together(operations: Sequence[Operation[T]]) -> Operation[list[T]]:
    """Run `operations`, each about a session of its own, in step; their results in the same order.

    They may ask, ask all, hedge (which then asks all) and tell. A node that gives no answer gives none to any of them.
    """
    running = dict(enumerate(operations))
    inputs: dict[int, Any] = dict.fromkeys(running)
    results: dict[int, T] = {}
    while running:
        effects: dict[int, Effect] = {}
        for index, operation in list(running.items()):
            try:
                effects[index] = operation.send(inputs[index])
            except StopIteration as stop:
                results[index] = stop.value
                del running[index]
        asks = {index: asks_of(effect) for index, effect in effects.items()}
        replies = yield from _asked([ask for each in asks.values() for ask in each])
        answers = iter(replies)
        for index, effect in effects.items():
            own = tuple(next(answers) for _ in asks[index])
            inputs[index] = _input_of(effect, own)
    return [results[index] for index in range(len(operations))]


def asks_of(effect: Effect) -> tuple[Ask, ...]:
    match effect:
        case Ask():
            return (effect,)
        case AskAll() | Hedge():
            return effect.asks
        case Tell():
            return (Ask(effect.node, effect.call),)
    raise TypeError(f"{type(effect).__name__} cannot be done together with others")


def _input_of(effect: Effect, replies: tuple[Reply, ...]) -> Any:
    match effect:
        case Ask():
            return replies[0]
        case Tell():
            return None
    return replies


def _asked(asks: Sequence[Ask]) -> Operation[list[Reply]]:
    """The replies to `asks`, in their order."""
    if not asks:
        return []
    parcels = list(_parcels(asks))
    answers = yield AskAll(tuple(Ask(node, Many(_calls(asks, places))) for node, places in parcels))
    replies: list[Reply] = [NOT_TOGETHER] * len(asks)
    for (_, places), answer in zip(parcels, answers, strict=True):
        for place, reply in zip(places, _unpacked(answer, len(places)), strict=True):
            replies[place] = reply
    return replies


def _unpacked(answer: Reply, count: int) -> Sequence[Reply]:
    if not isinstance(answer, Each):
        return (answer,) * count
    return answer.replies if len(answer.replies) == count else (NOT_TOGETHER,) * count


def _calls(asks: Sequence[Ask], places: list[int]) -> tuple[SessionCall, ...]:
    # a call of another kind does not encode, and is answered as one that nobody took
    return tuple(asks[place].call for place in places)  # type: ignore[misc]


def _parcels(asks: Sequence[Ask]) -> Iterable[tuple[str, list[int]]]:
    """Places in `asks` by node, no more in one than fit into a message."""
    open_parcels: dict[str, tuple[list[int], int]] = {}
    for place, ask in enumerate(asks):
        node, call = ask.node, ask.call
        places, size = open_parcels.get(node, ([], 0))
        weight = _weight(call)
        if places and (len(places) >= CALLS_MAX or size + weight > BYTES_MAX):
            yield node, places
            places, size = [], 0
        open_parcels[node] = ([*places, place], size + weight)
    for node, (places, _) in open_parcels.items():
        yield node, places


def _weight(call: Call) -> int:
    record = getattr(call, "record", None)
    return 256 if record is None else 256 + size_of(record)
