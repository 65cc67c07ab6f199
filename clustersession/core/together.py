"""Many operations at once: what they ask one node at the same step travels in one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from .calls import Call, Confirm, Confirmed, Each, Many, Reply, SessionCall, Unreachable
from .effects import Ask, AskAll, Effect, Hedge, Operation, Tell
from .record import size_of

T = TypeVar("T")

CALLS_MAX: Final = 128  # of one message: each message costs as much as several calls
BYTES_MAX: Final = 256 * 1024
PIECE_MAX: Final = 16  # of these calls, or of digests, at one go: so long the node that carries them out answers nobody else
NOT_TOGETHER: Final = Unreachable("garbage")


class Crew(Generic[T]):
    """Operations under way, each about a session of its own, each at a step of its own.

    They may ask, ask all, hedge (which then asks all) and tell. A node that gives no answer gives none to any of them.
    """

    def __init__(self) -> None:
        self._started = 0
        self._running: list[tuple[int, Operation[T], Any]] = []

    def __len__(self) -> int:
        return len(self._running)

    def start(self, operations: Iterable[Operation[T]]) -> None:
        """They take their first step with the next round."""
        for operation in operations:
            self._running.append((self._started, operation, None))
            self._started += 1

    def round(self) -> Operation[list[tuple[int, T]]]:
        """Everybody's next step. Which have come to their end, counted in the order of their start, and in what."""
        over: list[tuple[int, T]] = []
        waiting: list[tuple[int, Operation[T], Effect]] = []
        asks: list[Ask] = []
        for number, operation, value in self._running:
            try:
                effect = operation.send(value)
            except StopIteration as stop:
                over.append((number, stop.value))
                continue
            waiting.append((number, operation, effect))
            asks += asks_of(effect)
        replies = iter((yield from _asked(asks)))
        self._running = [(number, operation, _input_of(effect, replies)) for number, operation, effect in waiting]
        return over


def together(operations: Sequence[Operation[T]]) -> Operation[list[T]]:
    """Run `operations` in step; their results in the same order."""
    crew = Crew[T]()
    crew.start(operations)
    results: dict[int, T] = {}
    while crew:
        results.update((yield from crew.round()))
    return [results[number] for number in range(len(operations))]


def asks_of(effect: Effect) -> tuple[Ask, ...]:
    match effect:
        case Ask():
            return (effect,)
        case AskAll() | Hedge():
            return effect.asks
        case Tell():
            return (Ask(effect.node, effect.call),)
    raise TypeError(f"{type(effect).__name__} cannot be done together with others")


def _input_of(effect: Effect, replies: Iterator[Reply]) -> Any:
    """What `effect` is sent back, of the replies to everybody's asks in their order."""
    match effect:
        case Ask():
            return next(replies)
        case Tell():
            next(replies)
            return None
    return tuple(next(replies) for _ in asks_of(effect))


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
    open_parcels: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for place, ask in enumerate(asks):
        node, call = ask.node, ask.call
        weight = _weight(call)
        places = open_parcels.get(node)
        if places is None or len(places) >= CALLS_MAX or sizes[node] + weight > BYTES_MAX:
            if places:
                yield node, places
            places = open_parcels[node] = []
            sizes[node] = 0
        places.append(place)
        sizes[node] += weight
    yield from open_parcels.items()


def _weight(call: Call) -> int:
    record = getattr(call, "record", None)
    return 256 if record is None else 256 + size_of(record)


def pieces_of(call: Call) -> Sequence[Call]:
    """What a node carries out one by one instead of `call`, so that others get their turn in between."""
    match call:
        case Many(calls) if len(calls) > PIECE_MAX:
            return [Many(calls[first : first + PIECE_MAX]) for first in range(0, len(calls), PIECE_MAX)]
        case Confirm(digests, only_ask) if len(digests) > PIECE_MAX:
            return [Confirm(digests[first : first + PIECE_MAX], only_ask) for first in range(0, len(digests), PIECE_MAX)]
    return (call,)


def joined(replies: Sequence[Reply]) -> Reply:
    """The reply to a call, of those to its pieces."""
    if len(replies) == 1:
        return replies[0]
    each = [reply for reply in replies if isinstance(reply, Each)]
    confirmed = [reply for reply in replies if isinstance(reply, Confirmed)]
    if len(each) == len(replies):
        return Each(tuple(reply for piece in each for reply in piece.replies))
    if len(confirmed) == len(replies):
        return Confirmed(tuple(pair for piece in confirmed for pair in piece.differing))
    return next(reply for reply in replies if not isinstance(reply, Each | Confirmed))
