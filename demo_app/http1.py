"""HTTP/1.1 for the demo's balancer and its clients: messages of bounded size, parsed by httptools.

It is small on purpose: three app servers, a balancer and 200 users share the cores of one machine, and what the balancer and the
users cost would be counted as the sessions' cost.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar

import httptools

BODY_BYTES_MAX = 1024 * 1024
HEADER_BYTES_MAX = 32 * 1024
LATE_S = 0.02  # a timer that comes later than that was kept waiting by the machine
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te", b"trailer", b"upgrade"})

T = TypeVar("T")
Answering = Callable[["Request"], Awaitable["Response"]]
Headers = list[tuple[bytes, bytes]]


class Cut(Exception):
    """The connection ended before the whole answer was there: what happened to the request is not known."""


class Request(NamedTuple):
    """`target` is the path with its query."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


class Response(NamedTuple):
    """Header names are lower-case."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns, or `TimeoutError`. A timer that comes late itself says nothing about the other side: the machine was
    too busy to look, and what came in meanwhile still waits to be seen. So `work` gets its time once more."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    due = loop.time() + timeout_s
    try:
        await asyncio.wait({task}, timeout=timeout_s)
        if not task.done() and loop.time() > due + LATE_S:
            await asyncio.wait({task}, timeout=timeout_s)
    finally:
        if not task.done():
            task.cancel()
    if not task.done():
        raise TimeoutError
    return task.result()


def request_bytes(request: Request, *, close: bool) -> bytes:
    """As it goes over the wire; hop-by-hop fields are ours."""
    lines = [b"%s %s HTTP/1.1\r\n" % (request.method, request.target), *_fields(request.headers)]
    if request.body or request.method != b"GET":
        lines.append(b"content-length: %d\r\n" % len(request.body))
    lines.append(b"connection: close\r\n\r\n" if close else b"\r\n")
    return b"".join(lines) + request.body


def response_bytes(response: Response) -> bytes:
    """As it goes over the wire, with a length."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (response.status, _phrase(response.status)), *_fields(response.headers)]
    return b"".join(lines) + b"content-length: %d\r\n\r\n" % len(response.body) + response.body


def _fields(headers: Headers) -> list[bytes]:
    return [b"%s: %s\r\n" % field for field in headers if field[0].lower() not in HOP_BY_HOP]


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        return b"Unknown"


class _Message(asyncio.Protocol):
    """What both directions share: collecting one message at a time within the limits."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.headers: Headers = []
        self.chunks: list[bytes] = []
        self.size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
        self._grow(len(name) + len(value), HEADER_BYTES_MAX)

    def on_body(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self._grow(len(chunk), BODY_BYTES_MAX)

    def _grow(self, by: int, limit: int) -> None:
        self.size += by
        if self.size > limit:
            self.transport.abort()


class Connection(_Message):
    """The asking side: one connection, one request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[Response] | None = None
        self.usable = False

    @classmethod
    async def open(cls, host: str, port: int, timeout_s: float) -> Connection:
        """Raises `OSError` (also `TimeoutError`): nothing was sent then."""
        loop = asyncio.get_running_loop()
        _, connection = await within(timeout_s, loop.create_connection(cls, host, port))
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.usable = True

    async def ask(self, data: bytes, timeout_s: float | None = None) -> Response:
        """Raises `Cut`, or `TimeoutError`; after both the connection is of no use any more."""
        if not self.usable:
            raise Cut("the connection had ended before")
        self._waiter = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._waiter
        except (TimeoutError, asyncio.CancelledError):
            self.cut()
            raise
        finally:
            self._waiter = None

    def cut(self) -> None:
        """End it now; whoever waits gets `Cut`."""
        self.usable = False
        self.transport.abort()

    def close(self) -> None:
        self.usable = False
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Cut(str(exc or "closed by the other side")))

    def on_message_complete(self) -> None:
        response = Response(self._parser.get_status_code(), self.headers, b"".join(self.chunks))
        self.usable = self.usable and self._parser.should_keep_alive()
        self._clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)


class Serving(_Message):
    """The answering side: requests of one connection one after the other."""

    def __init__(self, answer: Answering, connections: set[Serving]) -> None:
        super().__init__()
        self._answer, self._connections = answer, connections
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._queue: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def end(self) -> None:
        """Close it and give up what it is working on."""
        self.transport.abort()
        if self._task is not None:
            self._task.cancel()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._grow(len(url), HEADER_BYTES_MAX)

    def on_message_complete(self) -> None:
        request = Request(self._parser.get_method(), self._target, self.headers, b"".join(self.chunks))
        self._clear()
        self._target = b""
        self._queue.append((request, self._parser.should_keep_alive()))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        self.transport.pause_reading()
        while self._queue:
            request, keep_alive = self._queue.popleft()
            response = await self._answer(request)
            if self.transport.is_closing():
                return
            self.transport.write(response_bytes(response))
            if not keep_alive:
                self.transport.close()
                return
        self._task = None
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()


class Server:
    """Serves `answer` on a listening socket until it is stopped."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._connections: set[Serving] = set()
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._serving, sock=listening)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.end()
        await asyncio.sleep(0)  # the loop closes the sockets

    def _serving(self) -> Serving:
        return Serving(self._answer, self._connections)
