"""Both ends of a connection between nodes, without the socket: bytes in, bytes out.

`Initiator` is shared by the blocking and the asyncio client, `Responder` is the server's. What fails a check raises
`WireError` or `PeerRefused`; the connection must then be closed, and nothing of the message has been acted on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from ..core.calls import Broken, Call, Confirm, Full, Reply, TooLarge, Unreachable
from ..core.channel import NONCE_BYTES, OVERHEAD_BYTES
from ..core.handshake import HELLO_BYTES_MAX, HELLO_NONCE_BYTES, Channel, Greeting, Hello, accept
from ..core.keyring import KeyRing
from ..core.together import joined, pieces_of
from ..core.wire import HELLO, decode_call, decode_reply, encode, line_of, status_of
from ..errors import Corrupt, PeerRefused, ShardDown, StoreFull, WireError
from .http1 import REQUEST_HEAD, RESPONSE_HEAD, STATUSES, Reader, request_bytes, response_bytes
from .wiring import Wiring

PROVING_BYTES_MAX: Final = 128 * 1024
"""Largest body of a first request. Until then the initiator may be a replay, which shall not fill the memory."""

HELLO_REFUSED: Final = response_bytes(403, b"")
"""The same for every reason: whoever cannot prove itself learns nothing."""

Handler: TypeAlias = Callable[[Call, str], Reply]
"""Answers a call of the authenticated peer of that identity. Quick, never waits."""


class TooLong(Exception):
    """A call that does not fit into a message; nothing was sent."""

    def __init__(self, reply: TooLarge) -> None:
        self.reply = reply
        super().__init__(reply)


class Initiator:
    """The end that asks. Replies come in the order of the requests; several requests may be on their way."""

    __slots__ = ("_channel", "_greeting", "_limit", "_reader", "_replies", "_unproven", "_wiring", "asked", "ring")

    def __init__(self, wiring: Wiring, wanted: str) -> None:
        self._wiring = wiring
        self.ring = wiring.ring()  # as it was when this connection began
        self._limit = wiring.limits.message_bytes_max - OVERHEAD_BYTES
        self._greeting = Greeting(wiring.party(), self.ring, wanted, wiring.entropy.bytes(HELLO_NONCE_BYTES), wiring.clock())
        self._reader = Reader(RESPONSE_HEAD, self._arrived, HELLO_BYTES_MAX)
        self._channel: Channel | None = None
        self.asked: deque[bytes] = deque()  # the lines of the requests without a reply
        self._replies: list[Reply] = []
        self._unproven = True

    @property
    def peer(self) -> Hello | None:
        """Whom this leads to, once that is proven."""
        return self._channel.peer if self._channel else None

    @property
    def mid_reply(self) -> bool:
        """Some of a reply has arrived, and not all of it."""
        return not self._reader.idle

    def stands_on(self, ring: KeyRing) -> bool:
        """Whether the key of this connection is in `ring`, the one that holds now."""
        return self._channel is not None and self._channel.stands_on(ring)

    def hello(self) -> bytes:
        return request_bytes(HELLO, b"0", self._greeting.data)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete with `data`, each verified. Raises `WireError`, `PeerRefused`."""
        self._reader.feed(data)
        replies, self._replies = self._replies, []
        return replies

    def ask(self, call: Call) -> bytes:
        """The bytes of a request, to be sent next on this connection. Raises `TooLong`."""
        now = self._wiring.clock()
        data = encode(call, now)
        if len(data) > self._limit:
            raise TooLong(TooLarge("a message between nodes", len(data), self._limit))
        if self._unproven:
            self._unproven = False
            if len(data) > PROVING_BYTES_MAX - OVERHEAD_BYTES:
                proof = Confirm(())  # something small that asks for nothing
                return self._framed(proof, encode(proof, now), now) + self._framed(call, data, now)
        return self._framed(call, data, now)

    def _framed(self, call: Call, data: bytes, now: float) -> bytes:
        if self._channel is None:
            raise WireError("a request before the hello was answered")
        line, sent = line_of(call), b"%x" % int(now * 1e6)
        body = self._channel.requests.seal(b"%b %b" % (line, sent), data, self._wiring.entropy.bytes(NONCE_BYTES))
        self.asked.append(line)
        return request_bytes(line, sent, body)

    def _arrived(self, first: bytes, _: bytes, body: bytes) -> None:
        status = STATUSES[first]
        if self._channel is None:
            self._conclude(status, body)
            return
        if not self.asked:
            raise WireError("a reply that nobody asked for")
        data = self._channel.replies.open(b"%b %d" % (self.asked.popleft(), status), body)
        self._replies.append(decode_reply(status, data, self._wiring.clock()))

    def _conclude(self, status: int, body: bytes) -> None:
        if status != 200:
            raise PeerRefused(f"it refused our hello ({status}); its log says why")
        self._channel = self._greeting.conclude(body, self.ring)
        self._reader.body_bytes_max = self._wiring.limits.message_bytes_max


class _UnderWay(NamedTuple):
    """A request of which some is carried out."""

    line: bytes
    pieces: deque[Call]
    replies: list[Reply]


class Responder:
    """The end that answers. `admit` may refuse a peer whose hello is in order, by `PeerRefused`."""

    __slots__ = (
        "_admit",
        "_channel",
        "_handler",
        "_hello",
        "_limit",
        "_ring",
        "_stale_s",
        "_under_way",
        "_wiring",
        "asked",
        "proven",
        "reader",
    )

    def __init__(self, wiring: Wiring, handler: Handler, admit: Callable[[Hello], None]) -> None:
        self._wiring, self._handler, self._admit = wiring, handler, admit
        self._ring = wiring.ring()
        self._limit = wiring.limits.message_bytes_max - OVERHEAD_BYTES
        self._stale_s = wiring.timeouts.stale_request_s
        self.reader = Reader(REQUEST_HEAD, self._arrived, HELLO_BYTES_MAX)
        self._channel: Channel | None = None
        self.asked: deque[tuple[bytes, float, bytes]] = deque()  # not answered yet: line, when sent by its sender's clock, data
        self._under_way: _UnderWay | None = None
        self._hello = b""
        self.proven = False  # an authenticated request has arrived: the peer is no replay

    def busy(self) -> bool:
        """Whether there is a request to carry out, or the rest of one."""
        return bool(self.asked) or self._under_way is not None

    @property
    def peer(self) -> Hello | None:
        """Who says to be at the other end. To be believed once `proven`."""
        return self._channel.peer if self._channel else None

    def feed(self, data: bytes) -> bytes:
        """Take what arrived. What comes back must be sent at once (the answer to a hello). Raises `WireError`, `PeerRefused`."""
        self.reader.feed(data)
        hello, self._hello = self._hello, b""
        return hello

    def answer(self) -> bytes:
        """Carry out the oldest request. Raises `WireError`, and whatever the handler raises that is no reply."""
        while (reply := self.step()) is None:
            pass
        return reply

    def step(self) -> bytes | None:
        """As `answer`, but of a request that is much to do only a piece: None until that was the last one."""
        assert self._channel is not None
        now = self._wiring.clock()
        if self._under_way is None:
            line, sent, data = self.asked.popleft()
            # Also one from the future: then the offset of the clocks does not hold any more, and must be measured anew.
            if not -self._stale_s <= self._channel.age(sent, now) <= self._stale_s:
                self._wiring.observer.count("peer.stale_request")
                return self._framed(line, Unreachable("stale"), now)
            self._under_way = _UnderWay(line, deque(pieces_of(decode_call(line, data, now))), [])
        line, pieces, replies = self._under_way
        replies.append(self._handled(pieces.popleft(), self._channel.peer.identity))
        if pieces:
            return None
        self._under_way = None
        return self._framed(line, joined(replies), now)

    def _handled(self, call: Call, source: str) -> Reply:
        try:
            return self._handler(call, source)
        except StoreFull:
            return Full()
        except ShardDown:
            return Unreachable("down")
        except Corrupt:
            return Broken()

    def _framed(self, line: bytes, reply: Reply, now: float) -> bytes:
        assert self._channel is not None
        data = encode(reply, now)
        if len(data) > self._limit:
            reply = TooLarge("a reply between nodes", len(data), self._limit)
            data = encode(reply, now)
        status = status_of(reply)
        body = self._channel.replies.seal(b"%b %d" % (line, status), data, self._wiring.entropy.bytes(NONCE_BYTES))
        return response_bytes(status, body)

    def _arrived(self, line: bytes, sent: bytes, body: bytes) -> None:
        if self._channel is None:
            self._accept(line, body)
            return
        ring = self._wiring.ring()
        if ring is not self._ring:
            self._check_key(ring)
        data = self._channel.requests.open(b"%b %b" % (line, sent), body)
        if not self.proven:
            self.proven = True
            self.reader.body_bytes_max = self._wiring.limits.message_bytes_max
        self.asked.append((line, int(sent, 16) / 1e6, data))

    def _accept(self, line: bytes, body: bytes) -> None:
        if line != HELLO:
            raise WireError("a request without a hello before it")
        wiring = self._wiring
        answer, channel = accept(body, wiring.party(), self._ring, wiring.entropy.bytes(HELLO_NONCE_BYTES), wiring.clock())
        self._admit(channel.peer)
        self._channel = channel
        self.reader.body_bytes_max = min(PROVING_BYTES_MAX, wiring.limits.message_bytes_max)
        self._hello = response_bytes(200, answer)

    def _check_key(self, ring: KeyRing) -> None:
        """A key that was taken out of the ring ends the connections that stand on it."""
        assert self._channel is not None
        if not self._channel.stands_on(ring):
            raise PeerRefused(f"key {self._channel.kid} was taken out of the ring")
        self._ring = ring
