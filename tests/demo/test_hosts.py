"""Real app hosts of the demo: each framework's shop behind `clustersession run`, started and ended as the demo does it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from demo_app.cluster import Cluster
from demo_app.commands import APP_PORT, FRAMEWORKS
from demo_app.http1 import Connection, Request, Response, request_bytes
from demo_app.network import Loopback
from demo_app.panel import Panel
from demo_app.tally import Tally
from demo_app.visitors import Shop, Thief, Visitor

TIMEOUT_S = 30.0
NAME = "only"


@asynccontextmanager
async def one_host(framework: str) -> AsyncIterator[tuple[Cluster, Shop]]:
    """A cluster of one host, ready."""
    cluster = Cluster(framework, Loopback([NAME]), [NAME])
    try:
        cluster.start(NAME)
        await cluster.ready(NAME, TIMEOUT_S)
        yield cluster, Shop(cluster.address(NAME), APP_PORT)
    finally:
        cluster.close()


async def browse(shop: Shop, method: bytes, path: bytes, body: bytes = b"") -> Response:
    """As a browser without cookies."""
    connection = await Connection.open(shop.host, shop.port, TIMEOUT_S)
    try:
        headers = [(b"host", b"shop"), (b"accept", b"text/html")]
        return await connection.ask(request_bytes(Request(method, path, headers, body), close=True), TIMEOUT_S)
    finally:
        connection.close()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_visitor_finds_the_shop_in_order(framework: str) -> None:
    """Log in with something in the cart, add, look, log out: nothing is lost, old cookies are dead, the page names its host."""

    async def scenario() -> None:
        async with one_host(framework) as (cluster, shop):
            await _visit(shop)
            page = await browse(shop, b"GET", b"/")
            assert (page.status, NAME.encode() in page.body) == (200, True)
            assert (await browse(shop, b"POST", b"/cart", b"item=tea")).status == 303
            assert (await browse(shop, b"POST", b"/cart", b"item=../tea")).status == 400
            assert await cluster.stop(NAME) == 0
            assert cluster.processes(NAME) == []

    asyncio.run(scenario())


async def _visit(shop: Shop) -> None:
    tally = Tally()
    visitor, thief = Visitor("ann", shop, tally, random.Random(1)), Thief(shop, tally)
    first, second = visitor.tabs
    for _ in range(4):  # with and without something in the cart at the login
        await visitor.log_in(first)
        await asyncio.gather(visitor.add(first), visitor.add(second))
        await visitor.look(second)
        assert visitor.owners == {"master": NAME, "backup": None, "epoch": 1}
        await visitor.log_out(first)
    for retired in visitor.retired:
        await thief.replay(retired)
    visitor.close()
    thief.close()
    assert tally.details == []
    assert tally.replays >= 4
    assert (tally.logins, tally.logouts, tally.indeterminate) == (4, 4, 0)


def test_the_panel_does_what_its_buttons_say() -> None:
    """Each order is carried out, proves it in words, and shows in the state of the host; an unknown one is refused."""

    async def scenario() -> None:
        async with one_host("flask") as (cluster, _):
            panel = Panel(cluster, lambda: {NAME: {"up": True}})
            steps = [
                ("pause", "paused, 5 processes", "paused"),
                ("resume", "runs again", "running"),
                ("restart", "exit code 0, started again", "running"),
                ("kill", "killed with -9", "dead"),
                ("pause", "is not running", "dead"),
                ("start", "started", "running"),
                ("silence", "nothing like silence", "running"),  # it needs network namespaces
            ]
            for action, said, state in steps:
                assert said in await panel.order(NAME, action)
                hosts = json.loads((await panel.answer(Request(b"GET", b"/_demo/hosts", [], b""))).body)
                assert hosts[NAME]["state"] == state
                if state == "running":
                    await cluster.ready(NAME, TIMEOUT_S)
            page = await panel.answer(Request(b"GET", b"/_demo/", [], b""))
            assert b"in Flask on" in page.body
            assert b"silence" not in page.body
            form = Request(b"POST", b"/_demo/order", [], b"host=other&action=kill")
            assert b"no host other" in (await panel.answer(form)).body

    asyncio.run(scenario())
