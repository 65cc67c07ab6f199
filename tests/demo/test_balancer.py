"""The balancer of the demo: in turn, without stickiness, and never twice what a host may have accepted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

from demo_app.balancer import INDETERMINATE, SERVED_BY, Balancer, Host, Node
from demo_app.http1 import Request, Response

from .plain_shop import PlainShop, ask, serving

TIMEOUT_S = 5.0


@contextlib.asynccontextmanager
async def balancing(**places: tuple[str, int]) -> AsyncIterator[tuple[Balancer, tuple[str, int]]]:
    """A balancer on a free port, started."""
    balancer = Balancer([Host(name, *place) for name, place in places.items()])
    listening = socket.create_server(("127.0.0.1", 0))
    await balancer.start(listening)
    try:
        yield balancer, listening.getsockname()
    finally:
        await balancer.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


def free_place() -> tuple[str, int]:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host, port = probe.getsockname()
        return host, port


class Stuck:
    """A host that answers checks until told otherwise and keeps every other request waiting."""

    def __init__(self) -> None:
        self.healthy = True
        self.accepted = 0

    async def answer(self, request: Request) -> Response:
        if request.target == b"/healthz":
            return Response(200 if self.healthy else 500, [], b"")
        self.accepted += 1
        await asyncio.Event().wait()
        raise AssertionError


def test_requests_go_to_the_hosts_in_turn() -> None:
    """Six requests of one client reach three hosts twice each, and every answer names its host."""

    async def scenario() -> None:
        shop = PlainShop()
        async with (
            serving(shop.answer) as one,
            serving(shop.answer) as two,
            serving(shop.answer) as three,
            balancing(one=one, two=two, three=three) as (balancer, place),
        ):
            await until(lambda: all(host.up for host in balancer.hosts.values()))
            served = [(await ask(place, b"/")).header(SERVED_BY) for _ in range(6)]
        assert served[:3] == served[3:]
        assert set(served) == {b"one", b"two", b"three"}

    asyncio.run(scenario())


def test_a_host_that_refuses_is_passed_over_and_marked_down() -> None:
    """While a host refuses connections no client notices, and after two refusals it gets no request any more."""

    async def scenario() -> None:
        async with serving(PlainShop().answer) as alive, balancing(alive=alive, dead=free_place()) as (balancer, place):
            await until(lambda: balancer.hosts["alive"].up)
            dead = balancer.hosts["dead"]
            dead.up = True
            answers = [await ask(place, b"/") for _ in range(6)]
            assert {(answer.status, answer.header(SERVED_BY)) for answer in answers} == {(200, b"alive")}
            assert not dead.up
            assert dead.marked_down == 1

    asyncio.run(scenario())


def test_a_request_that_a_host_may_have_accepted_is_not_tried_elsewhere() -> None:
    """A host is marked down while it works on a request: the client learns that nobody knows, and no other host is asked."""

    async def scenario() -> None:
        stuck, other = Stuck(), PlainShop()
        async with (
            serving(stuck.answer) as first,
            serving(other.answer) as second,
            balancing(stuck=first, other=second) as (balancer, place),
        ):
            await until(lambda: all(host.up for host in balancer.hosts.values()))
            asked = [asyncio.create_task(ask(place, b"/cart", b"item=tea")) for _ in range(2)]
            await until(lambda: stuck.accepted == 1 and other.requests == 1)
            stuck.healthy = False
            answers = sorted(await asyncio.gather(*asked))
            assert [answer.status for answer in answers] == [200, 502]
            assert answers[1].header(INDETERMINATE) == b"1"
            assert other.requests == 1

    asyncio.run(scenario())


def test_a_host_comes_back_after_two_good_checks() -> None:
    """A host that answers its checks again is served again."""

    async def scenario() -> None:
        stuck = Stuck()
        async with serving(stuck.answer) as only, balancing(only=only) as (balancer, _):
            host = balancer.hosts["only"]
            await until(lambda: host.up)
            stuck.healthy = False
            await until(lambda: not host.up)
            stuck.healthy = True
            await until(lambda: host.up)

    asyncio.run(scenario())


class NodeOfHost:
    """The control listener of a host's node."""

    def __init__(self) -> None:
        self.ready = False
        self.asked: set[tuple[bytes, bytes | None]] = set()

    async def answer(self, request: Request) -> Response:
        self.asked.add((request.target, dict(request.headers).get(b"authorization")))
        return Response(200 if self.ready else 503, [], b"")


def test_a_host_gets_requests_only_when_its_node_is_ready_too() -> None:
    """An app that answers is not enough: copies of a host that was away may be out of date."""

    async def scenario() -> None:
        app, node = PlainShop(), NodeOfHost()
        async with serving(app.answer) as (address, port), serving(node.answer) as (_, node_port):
            host = Host("only", address, port, Node(node_port, "secret"))
            for _ in range(5):
                await host.check()
            assert not host.up
            node.ready = True
            await host.check()
            await host.check()
            assert host.up
            node.ready = False
            await host.check()
            await host.check()
            assert not host.up
            assert node.asked == {(b"/readyz", b"Bearer secret")}

    asyncio.run(scenario())


def test_when_every_host_is_out_all_get_their_turn() -> None:
    """Hosts that serve but fail their checks are better than none."""

    async def scenario() -> None:
        shop = PlainShop(healthy=False)
        async with serving(shop.answer) as one, serving(shop.answer) as two, balancing(one=one, two=two) as (balancer, place):
            served = {(await ask(place, b"/")).header(SERVED_BY) for _ in range(4)}
            assert not any(host.up for host in balancer.hosts.values())
            assert served == {b"one", b"two"}

    asyncio.run(scenario())


def test_without_a_host_the_answer_says_so() -> None:
    """With no host up a client gets 503 with Retry-After and no claim that anything is unknown."""

    async def scenario() -> None:
        async with balancing(dead=free_place()) as (_, place):
            answer = await ask(place, b"/")
            assert (answer.status, answer.header(b"retry-after")) == (503, b"1")
            assert answer.header(INDETERMINATE) is None

    asyncio.run(scenario())
