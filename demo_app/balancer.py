"""A round-robin balancer without stickiness, as strict as HAProxy with the options of `haproxy.cfg`.

Every host is asked all the time: its app for `/healthz`, then its node for `/readyz`, so that a host that was away gets requests
only once its copies are in sync. Two failures in a row take it out and cut its connections (`on-marked-down shutdown-sessions`),
two good answers bring it back. A connection that cannot be made counts as a failure too
(`observe layer4`). Each request gets a new connection to its host, and a request is tried on another host only if no connection
could be made, so that no host can have accepted it. When a connection is cut in the middle nobody knows what the host has done:
the client gets 502 with `X-Indeterminate: 1` and decides itself whether to repeat. When the checks have taken every host out, all
of them get their turn: that is a machine too busy to answer checks in time, or nothing can be lost any more.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from .commands import ADMIN_PORT, APP_PORT
from .http1 import Answering, Connection, Cut, Request, Response, Server, request_bytes, within

INDETERMINATE = b"x-indeterminate"
SERVED_BY = b"x-served-by"
PANEL = b"/_demo/"
STATUS = b"/_demo/status"

CHECK_EVERY_S = 0.1
CHECK_TIMEOUT_S = 0.1
CONNECT_TIMEOUT_S = 0.1
ANSWER_TIMEOUT_S = 10.0
FALL = 2
RISE = 2

TOKEN = "CLUSTERSESSION_ADMIN_TOKEN"


class Node(NamedTuple):
    """How the node of a host is asked whether it is ready: its control listener."""

    port: int
    token: str


class Host:
    """One app host as the balancer sees it. It is down until it has answered. Without `node` only its app is asked."""

    def __init__(self, name: str, address: str, port: int, node: Node | None = None) -> None:
        self.name, self.address, self.port = name, address, port
        self._questions = [(port, _question(b"/healthz"))]
        if node is not None:
            self._questions.append((node.port, _question(b"/readyz", node.token)))
        self.up = False
        self.served = 0
        self.marked_down = 0
        self.busy: set[Connection] = set()
        self._row = 0  # answers in a row that speak against the present state

    def good(self) -> None:
        """It answered a check."""
        self._row = self._row + 1 if not self.up else 0
        if self._row >= RISE:
            self.up, self._row = True, 0

    def bad(self) -> None:
        """It did not answer a check, or no connection could be made."""
        self._row = self._row + 1 if self.up else 0
        if self._row >= FALL:
            self.up, self._row = False, 0
            self.marked_down += 1
            for connection in list(self.busy):
                connection.cut()

    async def connect(self) -> Connection:
        """Raises `OSError`: the host has accepted nothing."""
        return await Connection.open(self.address, self.port, CONNECT_TIMEOUT_S)

    async def check(self) -> None:
        """Ask each question once, until one is not answered with 200, and note the outcome."""
        for port, question in self._questions:
            try:
                well = await within(CHECK_TIMEOUT_S, self._says_ok(port, question))
            except (OSError, Cut):
                well = False
            if not well:
                self.bad()
                return
        self.good()

    async def _says_ok(self, port: int, question: bytes) -> bool:
        connection = await Connection.open(self.address, port, CHECK_TIMEOUT_S)
        try:
            return (await connection.ask(question)).status == 200
        finally:
            connection.close()


def _question(path: bytes, token: str | None = None) -> bytes:
    headers = [(b"host", b"balancer")]
    if token is not None:
        headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
    return request_bytes(Request(b"GET", path, headers, b""), close=True)


class Balancer:
    """Serves `hosts` in turn. `panel` answers what begins with `/_demo/`."""

    panel: Answering | None = None

    def __init__(self, hosts: Iterable[Host]) -> None:
        self.hosts = {host.name: host for host in hosts}
        self._turn = itertools.cycle(self.hosts.values())
        self._checks: list[asyncio.Task[None]] = []
        self._server = Server(self.answer)

    async def start(self, listening: socket.socket) -> None:
        """Serve `listening` and begin to check the hosts."""
        loop = asyncio.get_running_loop()
        await self._server.start(listening)
        self._checks = [loop.create_task(_keep_checking(host)) for host in self.hosts.values()]

    async def stop(self) -> None:
        """Close the port and the connections to the hosts."""
        for task in self._checks:
            task.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._server.stop()
        for host in self.hosts.values():
            for connection in list(host.busy):
                connection.cut()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def answer(self, request: Request) -> Response:
        """The response to one request of a client."""
        if request.target == STATUS:
            return Response(200, [(b"content-type", b"application/json")], json.dumps(self.status()).encode("ascii"))
        if self.panel is not None and request.target.startswith(PANEL):
            return await self.panel(request)
        if request.method not in (b"GET", b"POST"):
            return _said(405, b"Only GET and POST are served here.\n")
        tried: set[str] = set()
        while (host := self._next(tried)) is not None:
            try:
                connection = await host.connect()
            except OSError:
                tried.add(host.name)
                host.bad()
                continue
            return await _forward(host, connection, request)
        return _said(503, b"No app host answers at the moment.\n", (b"retry-after", b"1"))

    def status(self) -> dict[str, dict[str, Any]]:
        """Each host as the checks see it."""
        return {
            name: {"up": host.up, "served": host.served, "marked_down": host.marked_down} for name, host in self.hosts.items()
        }

    def _next(self, tried: set[str]) -> Host | None:
        panic = not any(host.up for host in self.hosts.values())
        for _ in self.hosts:
            host = next(self._turn)
            if (host.up or panic) and host.name not in tried:
                return host
        return None


async def _forward(host: Host, connection: Connection, request: Request) -> Response:
    host.busy.add(connection)
    try:
        response = await connection.ask(request_bytes(request, close=True), ANSWER_TIMEOUT_S)
    except (Cut, TimeoutError):
        return _said(502, b"The connection was cut; nobody knows what was done.\n", (INDETERMINATE, b"1"), _served_by(host))
    finally:
        host.busy.discard(connection)
        connection.close()
    host.served += 1
    return response._replace(headers=[*response.headers, _served_by(host)])


def _served_by(host: Host) -> tuple[bytes, bytes]:
    return SERVED_BY, host.name.encode("ascii")


def _said(status: int, text: bytes, *headers: tuple[bytes, bytes]) -> Response:
    return Response(status, [(b"content-type", b"text/plain"), *headers], text)


async def _keep_checking(host: Host) -> None:
    """Checks begin every `CHECK_EVERY_S`; a check that takes longer delays the next one."""
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        await host.check()
        await asyncio.sleep(max(0.0, begun + CHECK_EVERY_S - loop.time()))


async def _serve(listening: socket.socket, hosts: list[Host]) -> None:
    balancer = Balancer(hosts)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await balancer.start(listening)
    await ended.wait()
    await balancer.stop()


def main(arguments: list[str]) -> None:
    """`python -m demo_app.balancer DESCRIPTOR NAME=ADDRESS...`: serve the inherited listening socket until SIGTERM. The token of
    the nodes' control listeners is in the environment, as the nodes have it."""
    descriptor, *places = arguments
    node = Node(ADMIN_PORT, os.environ[TOKEN])
    hosts = [Host(name, address, APP_PORT, node) for name, _, address in (place.partition("=") for place in places)]
    asyncio.run(_serve(socket.socket(fileno=int(descriptor)), hosts))


if __name__ == "__main__":
    main(sys.argv[1:])
