"""The shop's interface for programs, with sessions in memory of one process: what the checker must find no fault with.

Each defect is one that a session system can have, and that the checker must find.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from demo_app.balancer import INDETERMINATE
from demo_app.http1 import Answering, Connection, Request, Response, Server, request_bytes
from demo_app.shop.core import CART, USER, Owners, View, as_json, log_in, parse_form, set_quantity


class Defect(Enum):
    LOSES_ITEMS = "every seventh item put into a cart is acked and not kept"
    FORGETS_LOGOUTS = "a logout takes the cookie away and keeps the session"
    FORGETS_LOGINS = "every fortieth request finds its session gone"
    MIXES_USERS = "every fortieth request is answered from another session"
    FAILS = "every fortieth request is answered with 503"
    CUTS = "every tenth request is carried out, and the balancer says that its connection was cut"


@dataclass
class PlainShop:
    """Answers as one app host that has everything in memory."""

    defects: frozenset[Defect] = frozenset()
    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: int = 0
    items: int = 0
    healthy: bool = True
    owners: Owners | None = None

    async def answer(self, request: Request) -> Response:
        if request.target == b"/healthz":
            return Response(200 if self.healthy else 500, [], b"")
        self.requests += 1
        nth = self.requests % 40 == 0
        if nth and Defect.FAILS in self.defects:
            return Response(503, [(b"retry-after", b"1")], b"")
        key = self._key(request)
        if nth and Defect.FORGETS_LOGINS in self.defects:
            self.sessions.pop(key, None)
        if nth and Defect.MIXES_USERS in self.defects and self.sessions:
            key = next(iter(self.sessions))
        page = self._page(request, key)
        if Defect.CUTS in self.defects and self.requests % 10 == 0:
            return Response(502, [(INDETERMINATE, b"1")], b"")
        return page

    def _page(self, request: Request, key: str) -> Response:
        session = self.sessions.get(key, {})
        headers: list[tuple[bytes, bytes]] = []
        if request.target == b"/login":
            session = dict(session)
            log_in(session, parse_form(request.body))
            self.sessions.pop(key, None)
            headers.append(self._keep(session))
        elif request.target == b"/logout":
            if Defect.FORGETS_LOGOUTS not in self.defects:
                self.sessions.pop(key, None)
            session = {}
            headers.append((b"set-cookie", b"plain=; Max-Age=0"))
        elif request.target == b"/cart":
            self.items += 1
            kept = {} if Defect.LOSES_ITEMS in self.defects and self.items % 7 == 0 else session
            if key not in self.sessions:
                headers.append(self._keep(session))
            set_quantity(kept, parse_form(request.body))
        return Response(200, headers, json.dumps(as_json(View("plain", session.get(USER), _cart(session), self.owners))).encode())

    def _keep(self, session: dict[str, Any]) -> tuple[bytes, bytes]:
        key = secrets.token_hex(8)
        self.sessions[key] = session
        return b"set-cookie", f"plain={key}; HttpOnly; Path=/".encode()

    def _key(self, request: Request) -> str:
        cookie = next((value for name, value in request.headers if name == b"cookie"), b"")
        return cookie.partition(b"plain=")[2].partition(b";")[0].decode()


def _cart(session: dict[str, Any]) -> dict[str, int]:
    return {key.removeprefix(CART): quantity for key, quantity in session.items() if key.startswith(CART)}


@contextlib.asynccontextmanager
async def serving(answer: Answering, address: str = "127.0.0.1") -> AsyncIterator[tuple[str, int]]:
    """A server on a free port."""
    server, listening = Server(answer), socket.create_server((address, 0))
    await server.start(listening)
    try:
        yield listening.getsockname()
    finally:
        await server.stop()


async def ask(address: tuple[str, int], target: bytes, form: bytes | None = None) -> Response:
    """One request on a connection of its own."""
    connection = await Connection.open(*address, timeout_s=5.0)
    try:
        method = b"GET" if form is None else b"POST"
        return await connection.ask(request_bytes(Request(method, target, [(b"host", b"test")], form or b""), close=True), 5.0)
    finally:
        connection.close()
