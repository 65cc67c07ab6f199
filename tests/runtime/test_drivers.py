"""The blocking and the asyncio driver: the same operation, the same answers, and what each effect turns into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from clustersession.core.calls import (
    Call,
    Done,
    Each,
    Fetch,
    Found,
    Gone,
    Later,
    Many,
    NotMine,
    Promote,
    Reply,
    Touch,
    Unreachable,
)
from clustersession.core.effects import Ask, AskAll, Hedge, Operation, Tell, Wait
from clustersession.core.node import Member, View
from clustersession.core.replica import key_of
from clustersession.core.together import PIECE_MAX
from clustersession.ports import Outgoing
from clustersession.runtime.async_driver import AsyncDriver
from clustersession.runtime.budget import Budget
from clustersession.runtime.sync_driver import SyncDriver

KEY = b"k" * 16
FETCH = Fetch(KEY, 0.0)
MEMBERS = tuple(Member(name, name, 10060, 1) for name in ("a", "b", "c"))


class HostOfA:
    """Answers what is asked of this host."""

    me = "a"

    def __init__(self, reply: Reply) -> None:
        self.answer: Callable[[Call], Reply] = lambda call: reply
        self.handled: list[Call] = []
        self.view = View("a", MEMBERS)

    def handle(self, call: Call) -> Reply:
        self.handled.append(call)
        return self.answer(call)


class Peers:
    """Both transports: what was sent, and replies by name."""

    def __init__(self, replies: dict[str, Reply]) -> None:
        self.replies = replies
        self.sent: list[tuple[Any, ...]] = []

    def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        self.sent.append(("ask", member.identity))
        return self.replies[member.identity]

    def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        self.sent.append(("exchange", [(each.member.identity, each.after) for each in batch], enough is not None))
        return [self.replies[each.member.identity] for each in batch]

    def tell(self, member: Member, call: Call) -> None:
        self.sent.append(("tell", member.identity))

    def close(self) -> None:
        """Nothing is open."""


class AsyncPeers(Peers):
    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:  # type: ignore[override]
        return Peers.ask(self, member, call, deadline)

    async def exchange(self, *args: Any) -> list[Reply | None]:  # type: ignore[override]
        return Peers.exchange(self, *args)

    async def close(self) -> None:  # type: ignore[override]
        """Nothing is open."""


class Driven:
    """One of the two drivers on host a."""

    def __init__(self, kind: str) -> None:
        self.host = HostOfA(NotMine())
        replies: dict[str, Reply] = {"b": Later(), "c": Done()}
        self.peers: Peers = Peers(replies) if kind == "blocking" else AsyncPeers(replies)
        self.kind = kind

    def run(self, operation: Operation[Any], budget: Budget | None = None) -> Any:
        budget = budget or Budget(1.0)
        if isinstance(self.peers, AsyncPeers):
            driver = AsyncDriver(self.host, self.peers, lambda identity: 0.03)  # type: ignore[arg-type]
            return asyncio.run(driver.run(operation, budget))
        return SyncDriver(self.host, self.peers, lambda identity: 0.03).run(operation, budget)  # type: ignore[arg-type]


@pytest.fixture(params=["blocking", "asyncio"])
def driven(request: pytest.FixtureRequest) -> Driven:
    return Driven(request.param)


def of(*effects: Any) -> Operation[list[Any]]:
    """An operation that yields these and ends in what it was sent back."""
    replies = []
    for effect in effects:
        replies.append((yield effect))  # noqa: PERF401  (no yield inside a comprehension)
    return replies


def test_calls_to_this_host_need_no_network(driven: Driven) -> None:
    """Asked, told, in a batch or in a hedge."""
    batch = (Ask("a", FETCH),)
    found = driven.run(of(Ask("a", FETCH), AskAll(batch), Hedge(batch, lambda reply: False), Tell("a", Touch(KEY))))
    assert found == [NotMine(), (NotMine(),), (NotMine(),), None]
    assert driven.host.handled == [FETCH, FETCH, FETCH, Touch(KEY)]
    assert driven.peers.sent == []


def test_replies_come_in_the_order_of_the_calls(driven: Driven) -> None:
    """Also where this host is in the middle of a batch."""
    found = driven.run(of(AskAll((Ask("c", FETCH), Ask("a", FETCH), Ask("b", FETCH))), Ask("b", FETCH)))
    assert found == [(Done(), NotMine(), Later()), Later()]
    assert driven.peers.sent == [("exchange", [("c", 0.0), ("b", 0.0)], False), ("ask", "b")]


def many(count: int) -> Many:
    return Many(tuple(Fetch(number.to_bytes(16), 0.0) for number in range(count)))


def each_gone(call: Call) -> Reply:
    """One reply for each call of a `Many`, which says whose it is."""
    assert isinstance(call, Many)
    return Each(tuple(Gone(key_of(each).hex(), 0.0, 1, ("a", None)) for each in call.calls))


def test_much_to_do_here_is_done_while_peers_do_their_part(driven: Driven) -> None:
    """In asyncio code piece by piece, so that others get their turn; the replies are where they belong."""
    driven.host.answer = each_gone
    much, little = many(2 * PIECE_MAX + 1), many(1)
    found, alone = driven.run(
        of(AskAll((Ask("c", FETCH), Ask("a", much), Ask("z", FETCH), Ask("a", little))), AskAll((Ask("a", little),)))
    )
    assert found == (Done(), each_gone(much), Unreachable("unknown"), each_gone(little))
    assert alone == (each_gone(little),)
    assert driven.peers.sent == [("exchange", [("c", 0.0)], False), ("exchange", [], False)]
    sizes = [len(call.calls) for call in driven.host.handled if isinstance(call, Many)]
    assert sizes == ([PIECE_MAX, PIECE_MAX, 1, 1, 1] if driven.kind == "asyncio" else [2 * PIECE_MAX + 1, 1, 1])


def test_peers_are_asked_before_this_host_does_its_part() -> None:
    """So that both are at work at the same time."""
    driven, order = Driven("asyncio"), list[str]()
    exchange = driven.peers.exchange

    async def noted(*args: Any) -> Any:
        order.append("peers")
        return await exchange(*args)  # type: ignore[misc]

    def answer(call: Call) -> Reply:
        order.append("here")
        return Each((Done(),))

    driven.peers.exchange, driven.host.answer = noted, answer  # type: ignore[method-assign,assignment]
    driven.run(of(AskAll((Ask("a", many(1)), Ask("b", FETCH)))))
    assert order == ["peers", "here"]


def test_who_is_no_member_is_never_called(driven: Driven) -> None:
    """Whatever an ID or a record names."""
    unknown = Unreachable("unknown")
    found = driven.run(of(Ask("z", FETCH), AskAll((Ask("z", FETCH), Ask("y", FETCH))), Tell("z", FETCH)))
    assert found == [unknown, (unknown, unknown), None]
    assert driven.peers.sent == []


def test_a_hedge_asks_this_host_first_and_peers_one_after_the_other(driven: Driven) -> None:
    """Its own copy costs microseconds; a later peer waits as long as the ones before usually take."""
    asks = (Ask("b", FETCH), Ask("z", FETCH), Ask("a", FETCH), Ask("c", FETCH))
    (found,) = driven.run(of(Hedge(asks, lambda reply: isinstance(reply, Found))))
    assert found == (Later(), Unreachable("unknown"), NotMine(), Done())
    assert driven.peers.sent == [("exchange", [("b", 0.0), ("c", 0.03)], True)]
    driven.peers.sent.clear()
    (found,) = driven.run(of(Hedge(asks, lambda reply: isinstance(reply, NotMine))))
    assert found == (None, None, NotMine(), None)
    assert driven.peers.sent == []


def test_telling_a_peer_waits_for_nothing(driven: Driven) -> None:
    """It is handed to the transport, and the operation goes on."""
    assert driven.run(of(Tell("b", Touch(KEY)))) == [None]
    assert driven.peers.sent == [("tell", "b")]


def test_waiting_is_charged_to_the_budget(driven: Driven) -> None:
    """So that an operation that waits for a rotation ends in time too."""
    budget = Budget(0.005)
    found = driven.run(of(Wait(0.01), Ask("b", FETCH), Ask("a", FETCH)), budget)
    assert found == [None, Unreachable("budget"), NotMine()]
    assert budget.spent
    assert driven.peers.sent == []


def test_a_request_without_time_takes_nothing_over(driven: Driven) -> None:
    """It could not hear whether the other owner is there. With time left this host does as it is asked."""
    budget, promote = Budget(0.005), Promote(KEY, 1, ("a", "b"), "b")
    found = driven.run(of(Ask("a", promote), Wait(0.01), Ask("a", promote)), budget)
    assert found == [NotMine(), None, Unreachable("budget")]
    assert driven.host.handled == [promote]


def test_an_error_of_the_operation_reaches_the_caller(driven: Driven) -> None:
    """As it is."""

    def failing() -> Operation[None]:
        yield Ask("a", FETCH)
        raise KeyError("x")

    with pytest.raises(KeyError):
        driven.run(failing())
