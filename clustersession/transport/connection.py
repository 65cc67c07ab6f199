"""One connection to a peer: a non-blocking socket and the `Initiator` on it.

What must wait is a generator that yields a `Want` and is sent whether it was fulfilled in time. So connecting, TLS, the hello
and a call are written once, and run from blocking and from asyncio code (`blocking`, `asynchronous`).
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Generator
from select import POLLIN, POLLOUT
from time import monotonic
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from ..core.calls import Call, Reply
from ..core.keyring import KeyRing
from ..core.node import Member
from ..errors import PeerRefused, WireError
from .link import Initiator, TooLong
from .resolver import Resolver, SockAddr
from .tls import certified, client_context
from .wiring import Report, Wiring

T = TypeVar("T")

OWED_MAX: Final = 8  # replies that a connection may wait for on behalf of nobody
RESOLVE_STEP_S: Final = 0.005
_RECEIVE_BYTES: Final = 16 * 1024
_BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Watch(Protocol):
    """How a driver watches a socket between two calls."""

    def busy_elsewhere(self) -> bool: ...

    def close(self, sock: socket.socket) -> None: ...


class Want:
    """Wait until `sock` is ready for `events` (POLLIN, POLLOUT), but not longer than `until` (monotonic).

    A `lasting` one comes again and again for the same socket. `poller` and `watch` are for the drivers to keep what they made
    for it.
    """

    __slots__ = ("events", "lasting", "poller", "sock", "until", "watch")

    def __init__(self, sock: socket.socket | None, events: int, until: float = 0.0, *, lasting: bool = False) -> None:
        self.sock, self.events, self.until, self.lasting = sock, events, until, lasting
        self.poller: Any = None
        self.watch: Any = None

    def __repr__(self) -> str:
        return f"<Want {self.sock}, events {self.events}, until {self.until:.3f}>"


Steps: TypeAlias = Generator[Want, bool, T]


class Failed(Exception):
    """The call has no answer; `why` as in `Unreachable`."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(why)


class Closed(Exception):
    """The peer has closed the connection, before any byte of a reply."""


class Connection:
    """A connection whose peer has proven itself. One call uses it at a time.

    `asked_at`: when the last one was sent; `heard_at`: when a reply came last that nobody waited for any more.
    """

    IDLE_S: Final = 60.0
    AGE_S: Final = 300.0  # in which clocks drift apart by at most 0.3 s (500 ppm each): the offset of the hello still holds

    __slots__ = ("_ends_at", "_readable", "_sock", "asked_at", "broken", "heard_at", "link")

    def __init__(self, sock: socket.socket, link: Initiator) -> None:
        self._sock, self.link = sock, link
        self._readable = Want(sock, POLLIN, lasting=True)
        self.asked_at = self.heard_at = monotonic()
        self._ends_at = self.asked_at + self.AGE_S
        self.broken = False  # part of a request was sent, or a reply failed: of no more use

    def __repr__(self) -> str:
        return f"<Connection to {self.link.peer and self.link.peer.identity!r}, {len(self.link.asked)} replies pending>"

    def usable(self, ring: KeyRing, now: float, patience_s: float) -> bool:
        """Whether an idle one is good for another call: not old, its key still in the ring, and no reply overdue."""
        link, watch = self.link, self._readable.watch
        if watch is not None and watch.busy_elsewhere():
            return False
        if now - self.asked_at >= self.IDLE_S or now >= self._ends_at or not (ring is link.ring or link.stands_on(ring)):
            return False
        if link.asked:
            self.drain()
            if link.asked and now - self.asked_at >= patience_s:
                return False
        return not self.broken

    def ask(self, call: Call, until: float) -> Steps[Reply]:
        """One call and its reply. Raises `Closed`, `Failed`, `WireError`, `PeerRefused`."""
        try:
            data = self.link.ask(call)
        except TooLong as refusal:
            return refusal.reply
        self.asked_at = monotonic()
        sent = self._send(data)
        if sent < len(data):
            yield from self._send_rest(data, sent, until)
        readable = self._readable
        readable.until = until
        while True:
            if not (yield readable):
                self.broken = True
                raise Failed("timeout")
            replies = self.receive()
            if replies:
                if not self.link.asked:
                    return replies[-1]
                self.heard_at = monotonic()

    def greet(self, until: float) -> Steps[None]:
        """The hello, and the peer's answer to it."""
        yield from self._send_rest(self.link.hello(), 0, until)
        self._readable.until = until
        while self.link.peer is None:
            if not (yield self._readable):
                raise Failed("timeout")
            self.receive()

    def tell(self, call: Call) -> bool:
        """Send a call whose reply nobody awaits, if that is possible at once."""
        if len(self.link.asked) >= OWED_MAX:
            return False
        try:
            data = self.link.ask(call)
        except TooLong:
            return False
        self.asked_at = monotonic()
        try:
            return self._send(data) == len(data)
        except Closed:
            return False

    def _send_rest(self, data: bytes, sent: int, until: float) -> Steps[None]:
        self.broken = True
        rest = memoryview(data)[sent:]
        while rest:
            if not (yield Want(self._sock, POLLOUT, until)):
                raise Failed("timeout")
            rest = rest[self._send(rest) :]
        self.broken = False

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except _BLOCKED:
            return 0
        except OSError:
            self.broken = True
            raise Closed from None

    def receive(self) -> list[Reply]:
        """The replies that are here now, maybe none. Raises as `ask` does."""
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except _BLOCKED:
            return []
        except OSError as error:
            self.broken = True
            raise self._closed(error) from None
        if not data:
            self.broken = True
            raise self._closed(None)
        try:
            return self.link.feed(data)
        except (WireError, PeerRefused):
            self.broken = True
            raise

    def drain(self) -> None:
        """Read what is here, for nobody; `broken` says whether the connection still stands."""
        try:
            if self.receive():
                self.heard_at = monotonic()
        except (Closed, Failed, WireError, PeerRefused):
            self.broken = True

    def _closed(self, error: OSError | None) -> Exception:
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            return Failed("auth" if self.link.peer is None else "garbage")  # TLS 1.3: the peer judges us after our handshake
        return Failed("garbage") if self.link.mid_reply else Closed()

    def close(self) -> None:
        watch: Watch | None = self._readable.watch
        if watch is None:
            self._sock.close()
        else:
            watch.close(self._sock)


class Dialer:
    """Opens connections: TCP, TLS where it is configured, and the hello."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._context = client_context(wiring.tls) if wiring.tls else None
        self._resolver = Resolver()
        self._report = Report(wiring)

    def open(self, member: Member, until: float) -> Steps[Connection]:
        """A connection to exactly this member ("" as identity: to whoever of the cluster is there). Raises `Failed`."""
        sock = yield from self._connected(member, min(until, monotonic() + self._wiring.timeouts.connect_s))
        try:
            if self._context is not None:
                sock = yield from self._secured(self._context, sock, member, until)
            return (yield from self._greeted(sock, member, until))
        except BaseException:  # also where the caller lost interest: nobody else knows this socket
            sock.close()
            raise

    def _connected(self, member: Member, until: float) -> Steps[socket.socket]:
        while (addresses := self._resolver.addresses(member.host, member.port)) is None:
            yield Want(None, 0, min(until, monotonic() + RESOLVE_STEP_S))
            if monotonic() >= until:
                raise Failed("timeout")
        for address in addresses:
            sock = yield from self._attempted(address, until)
            if sock is not None:
                return sock
        raise Failed("refused")

    def _attempted(self, address: SockAddr, until: float) -> Steps[socket.socket | None]:
        family, where = address
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:  # no such family here, or no descriptor left
            return None
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (yield from self._reached(sock, where, until)):
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
        return None

    def _reached(self, sock: socket.socket, where: Any, until: float) -> Steps[bool]:
        try:
            problem = sock.connect_ex(where)
        except (OSError, OverflowError):  # an address that this socket does not take, a port that is none
            return False
        if problem == errno.EINPROGRESS:
            if not (yield Want(sock, POLLOUT, until)):
                raise Failed("timeout")
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return problem == 0

    def _secured(self, context: ssl.SSLContext, sock: socket.socket, member: Member, until: float) -> Steps[socket.socket]:
        secure = context.wrap_socket(sock, server_hostname=member.host, do_handshake_on_connect=False)
        try:
            yield from self._shaken(secure, until)
            _check_certificate(secure, member)
        except OSError as error:  # of which SSLError and CertificateError are kinds
            secure.close()
            self._report.warn("peer.tls", f"{member.identity} at {member.host}:{member.port}", error)
            raise Failed("auth") from None
        except BaseException:
            secure.close()
            raise
        return secure

    def _shaken(self, secure: ssl.SSLSocket, until: float) -> Steps[None]:
        while True:
            try:
                return secure.do_handshake()
            except ssl.SSLWantReadError:
                events = POLLIN
            except ssl.SSLWantWriteError:
                events = POLLOUT
            if not (yield Want(secure, events, until)):
                raise Failed("timeout")

    def _greeted(self, sock: socket.socket, member: Member, until: float) -> Steps[Connection]:
        connection = Connection(sock, Initiator(self._wiring, member.identity))
        try:
            yield from connection.greet(until)
        except Closed:  # over TLS 1.3 this is how a server judges our certificate, where its alert got lost
            connection.close()
            raise Failed("refused" if self._context is None else "auth") from None
        except (WireError, PeerRefused) as error:
            connection.close()
            self._report.warn("peer.hello", f"{member.identity} at {member.host}:{member.port}", error)
            raise Failed("auth" if isinstance(error, PeerRefused) else "garbage") from None
        except BaseException:
            connection.close()
            raise
        return connection


def _check_certificate(secure: ssl.SSLSocket, member: Member) -> None:
    if not certified(secure.getpeercert(), member.identity, member.host):
        raise ssl.CertificateError(f"the certificate names neither {member.identity!r} nor {member.host!r}")
