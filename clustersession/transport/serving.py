"""One accepted connection of the server: the `Responder` on an asyncio transport, with time-outs and backpressure."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Final, Protocol, cast

from ..core.handshake import Hello
from ..errors import PeerError, PeerRefused
from .link import HELLO_REFUSED, Handler, Responder
from .tls import certified
from .wiring import Report, Wiring

WRITE_BYTES: Final = 64 * 1024  # replies that are joined into one write

_log = logging.getLogger("clustersession.peers")


class House(Protocol):
    """The server, as its connections see it."""

    report: Report
    buffer: memoryview  # what arrives is taken out of it at once, so one is enough for all connections

    def admit(self, connection: PeerConnection, hello: Hello) -> None:
        """A peer said who it is, with a proof that may be a replay. Raises `PeerRefused`."""
        ...

    def proven(self, connection: PeerConnection, identity: str) -> None:
        """Its first request was authentic."""
        ...

    def lost(self, connection: PeerConnection) -> None: ...


class PeerConnection(asyncio.BufferedProtocol):
    """Answers one peer, in order. `introduced`: the peer is proven, or gone; `closed`: it is gone."""

    def __init__(self, wiring: Wiring, handler: Handler, house: House, host: str) -> None:
        self.host = host
        self.used_at = monotonic()
        self.introduced = asyncio.Event()
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._times, self._secure, self._house = wiring.timeouts, wiring.tls is not None, house
        self._responder = Responder(wiring, handler, self._admit)
        self._transport: asyncio.Transport | None = None
        self._certificate: dict[str, object] | None = None
        self._known = self._full = self._over = self._resting = False
        self._stage: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        peer = self._responder.peer
        return f"<PeerConnection from {self.host}: {peer and peer.identity!r}, {'proven' if self._known else 'unproven'}>"

    def close(self) -> None:
        """Close when what is written has gone out."""
        self._over = True
        if self._transport is not None:
            self._transport.close()
        else:
            self._ended()

    def abort(self) -> None:
        self._over = True
        if self._transport is not None:
            self._transport.abort()
        else:
            self._ended()

    def _ended(self) -> None:
        self.introduced.set()
        if not self.closed.done():
            self.closed.set_result(None)

    # --- asyncio.BufferedProtocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._certificate = transport.get_extra_info("peercert")
        if self._over:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._house.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._over or self._transport is None:
            return
        self.used_at = monotonic()
        try:
            hello = self._responder.feed(bytes(self._house.buffer[:nbytes]))
        except PeerError as error:
            self._reject(error)
            return
        if hello:
            self._transport.write(hello)
        if self._responder.asked:
            self._answer(self._transport)
        self._watch()

    def pause_writing(self) -> None:
        self._full = True
        if self._transport is not None:
            self._transport.pause_reading()
        self._watch()

    def resume_writing(self) -> None:
        self._full = False
        if self._transport is not None and not self._over:
            self._transport.resume_reading()
            self._answer(self._transport)
        self._watch()

    def connection_lost(self, error: Exception | None) -> None:
        self._over = True
        self._watch()
        self._house.lost(self)
        self._ended()

    # --- what it does ----------------------------------------------------------------------------------------------------

    def _admit(self, hello: Hello) -> None:
        if self._secure and not certified(self._certificate, hello.identity, self.host):
            raise PeerRefused(f"its certificate names neither {hello.identity!r} nor {self.host!r}")
        self._house.admit(self, hello)

    def _answer(self, transport: asyncio.Transport) -> None:
        responder = self._responder
        if not self._known and responder.peer is not None:
            self._known = True
            self._house.proven(self, responder.peer.identity)
            self.introduced.set()
        while responder.busy() and not (self._full or self._over or self._resting or transport.is_closing()):
            replies, size = [], 0
            try:
                while responder.busy() and size < WRITE_BYTES:
                    reply = responder.step()
                    if reply is None:
                        self._rest()
                        break
                    replies.append(reply)
                    size += len(reply)
            except PeerError as error:
                self._reject(error)
                return
            except Exception:  # noqa: BLE001  (the edge of the process: a fault in the handler ends one connection, not the node)
                self._house.report.warn("peer.handler_failed", self.host, "see the traceback")
                _log.exception("the answer to %r failed; its connection is closed", responder.peer and responder.peer.identity)
                self.abort()
                return
            if replies:
                transport.write(replies[0] if len(replies) == 1 else b"".join(replies))

    def _rest(self) -> None:
        """Much is to be done for this peer: before it goes on, all others have their turn."""
        self._resting = True
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._go_on)  # what the next look finds comes before the next but one

    def _go_on(self) -> None:
        self._resting = False
        if self._transport is not None and not self._over:
            self._answer(self._transport)

    def _reject(self, error: PeerError) -> None:
        self._house.report.warn("peer.rejected", self.host, error)
        if self._transport is not None and isinstance(error, PeerRefused) and not self._known:
            self._transport.write(HELLO_REFUSED)
            self.close()
        else:
            self.abort()

    def _watch(self) -> None:
        """Bound how long a message may be incomplete, and how long replies may stay unread. The server watches newcomers."""
        if self._stage is None and self._responder.reader.idle and not self._full:  # nearly always
            return
        stage = None
        if self._known and not self._over:
            if self._full or self._responder.reader.in_body:
                stage = self._times.body_s
            elif not self._responder.reader.idle:
                stage = self._times.header_s
        if stage == self._stage:
            return
        self._stage = stage
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if stage is not None:
            self._timer = asyncio.get_running_loop().call_later(stage, self._too_slow)

    def _too_slow(self) -> None:
        self._house.report.warn("peer.slow", self.host, f"a message or its answer was incomplete for {self._stage} s")
        self.abort()
