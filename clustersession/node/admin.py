"""The control listener: /healthz, /readyz, /metrics, /status, /doctor and /explain/HANDLE over plain HTTP, no value of any
session.

Open on loopback; anywhere else every request needs `Authorization: Bearer <token>`, and without a token it does not start.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import httptools

from ..config import Address
from ..core.record import Key
from ..core.switch import ALL, MODES
from ..errors import ConfigError
from ..settings import check_admin, is_loopback
from .explaining import PATH, key_in
from .exposition import CONTENT_TYPE, exposition

REQUEST_BYTES_MAX: Final = 8 * 1024
REQUEST_S_MAX: Final = 5.0
CONNECTIONS_MAX: Final = 32
ACCEPT_TURNS: Final = 4  # of the event loop, from a connection that is accepted until it is one of ours
MODE: Final = b"/mode/"
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


class Sources(NamedTuple):
    """Where the answers come from, asked for each request. `ready` gives the reason too; a counter is named `..._total`.
    `explain` and `doctor` give JSON."""

    status: Callable[[], Mapping[str, Any]]
    ready: Callable[[], tuple[bool, str]]
    counters: Callable[[], Mapping[str, int | float]]
    drain: Callable[[], object]
    explain: Callable[[Key], Awaitable[bytes]]
    doctor: Callable[[], Awaitable[bytes]]
    switch: Callable[[str, int], object]


class Answer(NamedTuple):
    """One response, before it is written."""

    status: HTTPStatus
    body: str
    content_type: str = _TEXT


class AdminListener:
    """Serves `sources` on `address`. Raises `ConfigError` at `start` if it must not or cannot listen there."""

    def __init__(self, address: Address, token: str | None, sources: Sources) -> None:
        self._address, self._sources = address, sources
        self._token = None if is_loopback(address.host) else token
        self._given_token = token
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def __repr__(self) -> str:
        return f"<AdminListener on {self._address}, {'open' if self._token is None else 'with token'}>"

    async def start(self) -> Address:
        """Listens; gives the address with the port it got."""
        check_admin(self._address, self._given_token)
        try:
            self._server = await asyncio.start_server(self._connected, self._address.host, self._address.port)
        except OSError as error:
            remedy = "Give this node a free port of its own, or set 'off'."
            raise ConfigError(
                "CLUSTERSESSION_ADMIN_LISTEN", f"cannot listen on {self._address} ({error.strerror})", remedy
            ) from error
        return Address(host=self._address.host, port=self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and cuts what is still connected."""
        if self._server is None:
            return
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(ACCEPT_TURNS):  # before 3.12 asyncio forgets to close what is accepted at the moment of the close
            await asyncio.sleep(0)
        self._server.close()
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                if len(self._connections) <= CONNECTIONS_MAX:
                    writer.write(_written(await self._answer(await _request(reader))))
                    await writer.drain()
        except (TimeoutError, ConnectionError):
            pass  # a slow or vanished client of the control listener is nobody's loss
        finally:
            del self._connections[task]
            writer.close()

    async def _answer(self, request: Request | None) -> Answer:
        if request is None:
            return Answer(HTTPStatus.BAD_REQUEST, "not a request that this listener takes\n")
        if self._token is not None and not hmac.compare_digest(request.token, self._token.encode()):
            return Answer(HTTPStatus.UNAUTHORIZED, "send Authorization: Bearer with the token of CLUSTERSESSION_ADMIN_TOKEN\n")
        if request.path == b"/drain" and request.method == b"POST":
            self._sources.drain()
            return Answer(HTTPStatus.ACCEPTED, "draining; /status says what is owed\n")
        if request.path.startswith(MODE) and request.method == b"POST":
            return self._switched(request.path.removeprefix(MODE))
        if request.method != b"GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is served here, POST /drain and POST /mode/MODE/PERCENT\n")
        if request.path.startswith(PATH):
            return await self._explained(key_in(request.path))
        match request.path:
            case b"/healthz":
                return Answer(HTTPStatus.OK, "ok\n")
            case b"/readyz":
                ready, why = self._sources.ready()
                return Answer(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n")
            case b"/metrics":
                samples = {**self._sources.counters(), "ready": int(self._sources.ready()[0])}
                return Answer(HTTPStatus.OK, exposition(samples), CONTENT_TYPE)
            case b"/status":
                return Answer(HTTPStatus.OK, json.dumps(self._sources.status()) + "\n", _JSON)
            case b"/doctor":
                return Answer(HTTPStatus.OK, (await self._sources.doctor()).decode() + "\n", _JSON)
        return Answer(HTTPStatus.NOT_FOUND, "there are /healthz, /readyz, /metrics, /status, /doctor and /explain/HANDLE\n")

    def _switched(self, words: bytes) -> Answer:
        """`words`: the mode, and the per cent of the sessions."""
        mode, _, percent = words.decode("ascii", "replace").partition("/")
        if mode not in MODES or not re.fullmatch(r"[0-9]{1,3}", percent) or int(percent) > ALL:
            return Answer(HTTPStatus.BAD_REQUEST, f"a mode is one of {', '.join(MODES)}, and per cent a number from 0 to {ALL}\n")
        self._sources.switch(mode, int(percent))
        return Answer(
            HTTPStatus.ACCEPTED, f"switched to {mode}, {percent} per cent; the other nodes hear of it with their heartbeats\n"
        )

    async def _explained(self, key: Key | None) -> Answer:
        if key is None:
            return Answer(HTTPStatus.BAD_REQUEST, "a handle has 32 digits of 0-9a-f, as session.id shows it\n")
        return Answer(HTTPStatus.OK, (await self._sources.explain(key)).decode() + "\n", _JSON)


class Request:
    """What httptools finds in the bytes of one request."""

    def __init__(self) -> None:
        self.method, self.path, self.token, self.complete = b"", b"", b"", False

    def on_url(self, url: bytes) -> None:
        self.path += url.partition(b"?")[0]

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization" and value[:7].lower() == b"bearer ":
            self.token = value[7:].strip()

    def on_message_complete(self) -> None:
        self.complete = True


async def _request(reader: asyncio.StreamReader) -> Request | None:
    """The request, or None if it does not parse or is too large."""
    request, left = Request(), REQUEST_BYTES_MAX
    parser = httptools.HttpRequestParser(request)
    try:
        while not request.complete:
            data = await reader.read(left)
            left -= len(data)
            if not data or not left:
                return None
            parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # asks for another protocol, and is answered in this one
    except httptools.HttpParserError:
        return None
    request.method = parser.get_method()
    return request


def _written(answer: Answer) -> bytes:
    body = answer.body.encode()
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
