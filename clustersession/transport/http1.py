"""The one form of HTTP/1.1 that nodes speak, as a sans-IO codec.

Used by both clients and the server. Each head has exactly one form, down to the case of its letters, so reading one is a
single match: whatever else arrives (chunks, a second length, an upgrade, a space too many) is a `WireError`, and the connection
is of no more use. No two readers can understand it differently. A head is matched before its body is kept, and both are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

from ..errors import WireError

HEAD_BYTES_MAX: Final = 256

Head: TypeAlias = Callable[[bytes, int], re.Match[bytes] | None]
"""Matches a whole head at a position: its first line, the length of the body, and when it was sent."""

_REQUEST: Final = b"%b HTTP/1.1\r\nhost: clustersession\r\ncontent-length: %d\r\ncs-sent: %b\r\n\r\n%b"
_RESPONSE: Final = b"%bcontent-length: %d\r\n\r\n%b"
_PHRASES: Final = {  # not those of the standard library, where they change with the version of Python
    200: b"OK",
    403: b"Forbidden",
    404: b"Not Found",
    409: b"Conflict",
    410: b"Gone",
    412: b"Precondition Failed",
    413: b"Content Too Large",
    421: b"Misdirected Request",
    422: b"Unprocessable Content",
    423: b"Locked",
    500: b"Internal Server Error",
    503: b"Service Unavailable",
    507: b"Insufficient Storage",
}
_STATUS_LINES: Final = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in _PHRASES.items()}
STATUSES: Final = {line: status for status, line in _STATUS_LINES.items()}
"""The status of each status line that a node sends."""

_LENGTH: Final = rb"(0|[1-9][0-9]{0,9})"
# Host is never an address: nothing is to be learnt or chosen by it.
REQUEST_HEAD: Final = re.compile(
    rb"((?:GET|PATCH|POST|PUT) /v1/[a-z]{1,16}(?:/[0-9a-f]{32})?) HTTP/1\.1\r\n"
    rb"host: clustersession\r\ncontent-length: " + _LENGTH + rb"\r\ncs-sent: ([0-9a-f]{1,16})\r\n\r\n"
).match
RESPONSE_HEAD: Final = re.compile(
    rb"(" + b"|".join(re.escape(line) for line in STATUSES) + rb")content-length: " + _LENGTH + rb"()\r\n\r\n"
).match


def request_bytes(line: bytes, sent: bytes, body: bytes) -> bytes:
    """`line`: method and path; `sent`: when it was sent, in microseconds of the sender's clock, in hexadecimal digits."""
    return _REQUEST % (line, len(body), sent, body)


def response_bytes(status: int, body: bytes) -> bytes:
    return _RESPONSE % (_STATUS_LINES[status], len(body), body)


class Reader:
    """Cuts the bytes of one connection into messages, and keeps the beginning of one until the rest has come.

    Each is handed to `arrived(first, sent, body)` before the next is looked at; `first` is the line of a request ("method path")
    or the status line of a response, which has no `sent`.
    """

    __slots__ = ("_arrived", "_head", "_kept", "_missing", "body_bytes_max")

    def __init__(self, head: Head, arrived: Callable[[bytes, bytes, bytes], None], body_bytes_max: int) -> None:
        self.body_bytes_max = body_bytes_max
        self._head, self._arrived = head, arrived
        self._kept: list[bytes] = []
        self._missing = 0  # bytes of a body whose head has come

    @property
    def idle(self) -> bool:
        """No byte of a further message has arrived."""
        return not self._kept

    @property
    def in_body(self) -> bool:
        """The head of a message has arrived, and not all of its body."""
        return self._missing > 0

    def feed(self, data: bytes) -> None:
        """Hand on each message that is complete. Raises `WireError`, after which the connection must be closed."""
        if self._kept:
            self._kept.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._kept)
            self._kept.clear()
        begin, size = 0, len(data)
        while begin < size:
            match = self._head(data, begin)
            if match is None:
                self._check_incomplete(data, begin)
                self._missing = 0
                break
            first, length, sent = match.groups()
            start = match.end()
            end = start + int(length)
            if end - start > self.body_bytes_max:
                raise WireError(f"a body of {end - start} bytes, the limit is {self.body_bytes_max}")
            if end > size:
                self._missing = end - size
                break
            begin = end
            self._arrived(first, sent, data[start:end])
        if begin < size:
            self._kept.append(data[begin:] if begin else data)

    @staticmethod
    def _check_incomplete(data: bytes, begin: int) -> None:
        if len(data) - begin > HEAD_BYTES_MAX or data.find(b"\r\n\r\n", begin) >= 0:
            raise WireError("a message head that no node sends")
