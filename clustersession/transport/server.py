"""The asyncio server that peers talk to: who may connect, for how long, and how much of this node each may take."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from time import monotonic
from typing import Final

from ..config import Address
from ..core.handshake import Hello
from ..errors import PeerRefused
from .link import Handler
from .serving import PeerConnection
from .tls import server_context
from .wiring import Report, Wiring

BACKLOG: Final = 512
NEWCOMERS_SHARE: Final = 4  # a quarter of all connections may be of peers that have not proven themselves
PEER_SHARE: Final = 2  # half of them may be of one peer
IDLE_S: Final = 150.0  # clients give theirs up after 60 s
SWEEP_S: Final = 30.0
STOP_S: Final = 1.0
RECEIVE_BYTES: Final = 64 * 1024
NO_ROOM_PAUSE_S: Final = 0.1
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class PeerServer:
    """Answers the calls of peers by `handler`, which is given each call and the identity of the peer, on one event loop.

    `StoreFull`, `ShardDown` and `Corrupt` of the handler become replies; any other exception closes that connection. Strangers
    cannot fill the server: who has not proven itself within the header time-out is dropped, the oldest first where there
    are too many of them, and what they may send before that is small.
    """

    def __init__(self, handler: Handler, wiring: Wiring) -> None:
        self.report = Report(wiring)
        self.buffer = memoryview(bytearray(RECEIVE_BYTES))
        self._handler, self._wiring = handler, wiring
        self._context = server_context(wiring.tls) if wiring.tls else None
        self._newcomers: dict[PeerConnection, asyncio.Task[None]] = {}  # in the order of their arrival
        self._proven: dict[PeerConnection, str] = {}
        self._listener: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<PeerServer: {len(self._proven)} connections of peers, {len(self._newcomers)} newcomers>"

    @property
    def connections(self) -> int:
        """How many are open, proven or not."""
        return len(self._newcomers.keys() | self._proven.keys())

    async def start(self, address: Address) -> Address:
        """Listen there; port 0 takes a free one. Returns where it listens. Raises `OSError`."""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        dualstack = address.host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG, dualstack_ipv6=dualstack)
        listener.setblocking(False)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener, self._accept)
        self._sweep()
        return Address(host=address.host, port=listener.getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, let out what is answered, close."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        self._listener = None
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.sleep(0)  # the task of a connection accepted just now begins, so that it ends properly
        open_still = [*self._newcomers, *self._proven]
        for task in self._newcomers.values():
            task.cancel()
        for connection in open_still:
            connection.close()
        ends = [*self._newcomers.values(), *(connection.closed for connection in open_still)]
        if ends:
            await asyncio.wait(ends, timeout=STOP_S)
        for connection in open_still:
            connection.abort()

    # --- accepting -------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """One connection for each turn of the loop, so that a flood of them leaves the peers their turns."""
        if self._listener is None:
            return
        try:
            sock, address = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.report.warn("peer.accept_failed", "listener", error)
            if error.errno in _NO_ROOM:  # it stays readable: let others close theirs first
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(NO_ROOM_PAUSE_S, self._accept_again)
            return
        sock.setblocking(False)
        # asyncio sets it only for sockets that name TCP as their protocol; without it a call after a notice waits 40 ms
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._meet(sock, str(address[0]))

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _meet(self, sock: socket.socket, host: str) -> None:
        limit = self._wiring.limits.connections_max
        if self._newcomers and (len(self._newcomers) >= limit // NEWCOMERS_SHARE or self.connections >= limit):
            oldest, task = next(iter(self._newcomers.items()))
            self.report.warn("peer.crowded_out", oldest.host, "too many connections that have not proven themselves")
            del self._newcomers[oldest]
            task.cancel()
        if self.connections >= limit:
            self.report.warn("peer.too_many", host, f"{limit} connections are open")
            sock.close()
            return
        connection = PeerConnection(self._wiring, self._handler, self, host)
        self._newcomers[connection] = asyncio.create_task(self._welcome(sock, connection))

    async def _welcome(self, sock: socket.socket, connection: PeerConnection) -> None:
        """Watch over a connection until its peer has proven itself: the header time-out covers TLS, the hello and the proof."""
        header_s = self._wiring.timeouts.header_s
        try:
            async with asyncio.timeout(header_s):
                loop = asyncio.get_running_loop()
                await loop.connect_accepted_socket(lambda: connection, sock, ssl=self._context)  # closes it if it fails
                await connection.introduced.wait()
        except TimeoutError:
            self.report.warn("peer.slow", connection.host, f"no proof within {header_s} s")
        except OSError as error:  # of which SSLError is one
            self.report.warn("peer.tls" if isinstance(error, ssl.SSLError) else "peer.broken_off", connection.host, error)
        finally:
            self._newcomers.pop(connection, None)
            if connection not in self._proven:
                connection.abort()

    # --- what a connection tells its server --------------------------------------------------------------------------------

    def admit(self, connection: PeerConnection, hello: Hello) -> None:
        theirs = sum(identity == hello.identity for identity in self._proven.values())
        if theirs >= self._wiring.limits.connections_max // PEER_SHARE:
            raise PeerRefused(f"{hello.identity!r} has {theirs} connections already")

    def proven(self, connection: PeerConnection, identity: str) -> None:
        self._proven[connection] = identity

    def lost(self, connection: PeerConnection) -> None:
        self._proven.pop(connection, None)

    def _sweep(self) -> None:
        now = monotonic()
        for connection in list(self._proven):
            if now - connection.used_at >= IDLE_S:
                connection.close()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
