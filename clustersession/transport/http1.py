"""The one form of HTTP/1.1 that nodes speak, as a sans-IO codec over httptools.

Used by the blocking and the asyncio client and by the server. There is one canonical form: three header fields in a request and
two in a response, in this order, in lower case; Content-Length is the only framing. Whatever else arrives (chunks, an
upgrade, a fourth field, other words for a status) is a `WireError`, and the connection is of no more use. Sizes are
checked before anything is buffered.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Generic, NamedTuple, TypeVar

import httptools

from ..errors import PeerError, WireError

P = TypeVar("P", httptools.HttpRequestParser, httptools.HttpResponseParser)

HEAD_BYTES_MAX: Final = 1024
AUTH_BYTES_MAX: Final = 64
NO_AUTH: Final = b"-"  # the hello exchange, which carries its proofs in the body

_HOST: Final = b"clustersession"  # never an address: nothing is to be learnt or chosen by Host
_REQUEST: Final = b"%b %b HTTP/1.1\r\nhost: clustersession\r\ncontent-length: %d\r\ncs-auth: %b\r\n\r\n%b"
_RESPONSE: Final = b"%bcontent-length: %d\r\ncs-auth: %b\r\n\r\n%b"
_PHRASES: Final = {int(status): status.phrase.encode() for status in HTTPStatus if status >= 200}
_STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()}


class Request(NamedTuple):
    """A request as it was framed; nothing in it is authenticated yet."""

    method: bytes
    path: bytes
    auth: bytes
    body: bytes


class Response(NamedTuple):
    """A response as it was framed; nothing in it is authenticated yet."""

    status: int
    auth: bytes
    body: bytes


def request_bytes(method: bytes, path: bytes, auth: bytes, body: bytes) -> bytes:
    return _REQUEST % (method, path, len(body), auth, body)


def response_bytes(status: int, auth: bytes, body: bytes) -> bytes:
    return _RESPONSE % (_STATUS_LINES[status], len(body), auth, body)


class _Reader(Generic[P]):
    """What requests and responses have in common: the callbacks of httptools, which may come in any number of pieces."""

    _names: tuple[bytes, ...]
    _parser: P

    def __init__(self, body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        self.in_body = False
        self._unfinished = 0  # bytes fed since the last whole message
        self._fields: list[bytes] = []  # names and values in turn
        self._pieces: list[bytes] = []
        self._problem = ""

    @property
    def in_head(self) -> bool:
        """A message has begun and its head is not complete."""
        return self._unfinished > 0 and not self.in_body

    @property
    def idle(self) -> bool:
        """No message is incomplete. (One that began in the same bytes as the one before it ended is seen with its next bytes.)"""
        return self._unfinished == 0

    def feed(self, data: bytes | memoryview) -> None:
        """Hand on each message that is complete. Raises `WireError`, after which the connection must be closed."""
        self._unfinished += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if isinstance(error.__context__, PeerError):  # raised where a message was handed on
                raise error.__context__ from None
            raise WireError(self._problem or f"not HTTP/1.1 as nodes speak it: {error}") from None
        if self._unfinished > HEAD_BYTES_MAX and not self.in_body:
            raise WireError(f"a message head is longer than {HEAD_BYTES_MAX} bytes")

    def _refuse(self, problem: str) -> None:
        self._problem = problem
        raise ValueError(problem)  # stops httptools, which wraps it; `feed` raises the WireError

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += (name, value)

    def _check_head(self) -> None:
        fields = self._fields
        if tuple(fields[::2]) != self._names:
            self._refuse("other header fields, or in another order or form")
        if not self._parser.should_keep_alive():  # without a Connection field this is the version
            self._refuse("another version than HTTP/1.1")
        length = int(fields[-3])
        if length > self.body_bytes_max or len(fields[-1]) > AUTH_BYTES_MAX:
            self._refuse(f"a body of {length} bytes, the limit is {self.body_bytes_max}; or an authentication that is too long")
        self.in_body = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def _finish(self) -> tuple[bytes, bytes]:
        pieces = self._pieces
        auth, body = self._fields[-1], pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._fields, self._pieces = [], []
        self._unfinished, self.in_body = 0, False
        return auth, body


class RequestReader(_Reader[httptools.HttpRequestParser]):
    """Turns the bytes of one connection into requests, each handed to `arrived` before the next one is looked at."""

    _names = (b"host", b"content-length", b"cs-auth")

    def __init__(self, arrived: Callable[[Request], None], body_bytes_max: int) -> None:
        super().__init__(body_bytes_max)
        self._arrived = arrived
        self._path = b""
        self._parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_headers_complete(self) -> None:
        self._check_head()
        if self._fields[1] != _HOST:
            self._refuse("another Host")

    def on_message_complete(self) -> None:
        auth, body = self._finish()
        path, self._path = self._path, b""
        self._arrived(Request(self._parser.get_method(), path, auth, body))


class ResponseReader(_Reader[httptools.HttpResponseParser]):
    """Turns the bytes of one connection into responses, each handed to `arrived` before the next one is looked at."""

    _names = (b"content-length", b"cs-auth")

    def __init__(self, arrived: Callable[[Response], None], body_bytes_max: int) -> None:
        super().__init__(body_bytes_max)
        self._arrived = arrived
        self._phrase = b""
        self._parser = httptools.HttpResponseParser(self)

    def on_status(self, phrase: bytes) -> None:
        self._phrase += phrase

    def on_headers_complete(self) -> None:
        self._check_head()
        if _PHRASES.get(self._parser.get_status_code()) != self._phrase:
            self._refuse("a status that no node sends")

    def on_message_complete(self) -> None:
        auth, body = self._finish()
        self._phrase = b""
        self._arrived(Response(self._parser.get_status_code(), auth, body))
