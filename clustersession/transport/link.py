"""Both ends of a connection between nodes, without the socket: bytes in, bytes out.

`Initiator` is shared by the blocking and the asyncio client, `Responder` is the server's. What fails a check raises
`WireError` or `PeerRefused`; the connection must then be closed, and nothing of the message has been acted on.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from ..core.calls import Broken, Call, Confirm, Full, Reply, TooLarge, Unreachable, carries_values
from ..core.handshake import HELLO_BYTES_MAX, NONCE_BYTES, Channel, Greeting, Hello, accept, sent_at
from ..core.keyring import KeyRing
from ..core.sealing import Sealer
from ..core.wire import HELLO, Codec, method_and_path, sealing_key, status_of
from ..core.wire import NONCE_BYTES as SEAL_NONCE_BYTES
from ..errors import Corrupt, PeerRefused, ShardDown, StoreFull, WireError
from .http1 import NO_AUTH, Request, RequestReader, Response, ResponseReader, request_bytes, response_bytes
from .wiring import Wiring

PROVING_BYTES_MAX: Final = 128 * 1024
"""Largest body of a first request. Until then the initiator may be a replay, which shall not fill the memory."""

HELLO_REFUSED: Final = response_bytes(403, NO_AUTH, b"")
"""The same for every reason: whoever cannot prove itself learns nothing."""

Handler: TypeAlias = Callable[[Call, str], Reply]
"""Answers a call of the authenticated peer of that identity. Quick, never waits."""


class _Asked(NamedTuple):
    """A request whose reply has not come yet."""

    line: bytes
    key: bytes


class Initiator:
    """The end that asks. Replies come in the order of the requests; several requests may be on their way."""

    __slots__ = ("_asked", "_channel", "_codec", "_greeting", "_reader", "_replies", "_ring", "_unproven", "_wiring")

    def __init__(self, wiring: Wiring, wanted: str) -> None:
        self._wiring = wiring
        self._ring = wiring.ring()
        self._greeting = Greeting(wiring.party(), self._ring, wanted, wiring.entropy.bytes(NONCE_BYTES), wiring.clock())
        self._reader = ResponseReader(self._arrived, HELLO_BYTES_MAX)
        self._channel: Channel | None = None
        self._codec: Codec | None = None
        self._asked: deque[_Asked] = deque()
        self._replies: list[Reply] = []
        self._unproven = True

    @property
    def peer(self) -> Hello | None:
        """Whom this leads to, once that is proven."""
        return self._channel.peer if self._channel else None

    @property
    def pending(self) -> int:
        """Requests without a reply."""
        return len(self._asked)

    @property
    def mid_reply(self) -> bool:
        """Some of a reply has arrived, and not all of it."""
        return not self._reader.idle

    def stands_on(self, ring: KeyRing) -> bool:
        """Whether the key of this connection is in `ring`, the one that holds now."""
        return ring is self._ring or (self._channel is not None and ring.get(self._channel.kid) is not None)

    def hello(self) -> bytes:
        return request_bytes(*HELLO, NO_AUTH, self._greeting.data)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are complete with `data`, each verified. Raises `WireError`, `PeerRefused`."""
        self._reader.feed(data)
        replies, self._replies = self._replies, []
        return replies

    def ask(self, call: Call) -> bytes | TooLarge:
        """The bytes of a request, to be sent next on this connection."""
        wiring, codec = self._wiring, self._codec
        if codec is None:
            raise WireError("a request before the hello was answered")
        nonce = wiring.entropy.bytes(SEAL_NONCE_BYTES) if carries_values(call) else b""
        now = wiring.clock()
        body = codec.encode_call(call, now, nonce)
        if len(body) > wiring.limits.message_bytes_max:
            return TooLarge("a message between nodes", len(body), wiring.limits.message_bytes_max)
        if self._unproven:
            self._unproven = False
            if len(body) > PROVING_BYTES_MAX:
                proof = Confirm(())
                return self._framed(proof, codec.encode_call(proof, now, b""), now) + self._framed(call, body, now)
        return self._framed(call, body, now)

    def _framed(self, call: Call, body: bytes, now: float) -> bytes:
        assert self._channel is not None
        method, path = method_and_path(call)
        line = b"%b %b" % (method, path)
        auth = self._channel.request_auth(line, int(now * 1e6), body)
        self._asked.append(_Asked(line, sealing_key(call)))
        return request_bytes(method, path, auth, body)

    def _arrived(self, response: Response) -> None:
        if self._channel is None or self._codec is None:
            self._conclude(response)
            return
        if not self._asked:
            raise WireError("a reply that nobody asked for")
        asked = self._asked.popleft()
        expected = self._channel.reply_auth(asked.line, response.status, response.body)
        if not hmac.compare_digest(expected, response.auth):
            raise WireError("a reply whose authentication fails")
        self._replies.append(self._codec.decode_reply(response.status, response.body, asked.key, self._wiring.clock()))

    def _conclude(self, response: Response) -> None:
        if response.status != 200 or response.auth != NO_AUTH:
            raise PeerRefused(f"it refused our hello ({response.status}); its log says why")
        self._channel = self._greeting.conclude(response.body, self._ring)
        self._codec = Codec(Sealer(self._ring, self._wiring.cluster), self._channel.kid, self._channel.wire)
        self._reader.body_bytes_max = self._wiring.limits.message_bytes_max


class Responder:
    """The end that answers. `admit` may refuse a peer that has proven itself, by `PeerRefused`."""

    __slots__ = ("_admit", "_channel", "_codec", "_handler", "_hello", "_reader", "_requests", "_ring", "_wiring", "proven")

    def __init__(self, wiring: Wiring, handler: Handler, admit: Callable[[Hello], None]) -> None:
        self._wiring, self._handler, self._admit = wiring, handler, admit
        self._ring = wiring.ring()
        self._reader = RequestReader(self._arrived, HELLO_BYTES_MAX)
        self._channel: Channel | None = None
        self._codec: Codec | None = None
        self._hello = b""
        self._requests: deque[Request] = deque()
        self.proven = False  # an authenticated request has arrived: the peer is no replay

    @property
    def peer(self) -> Hello | None:
        """Who says to be at the other end. To be believed once `proven`."""
        return self._channel.peer if self._channel else None

    @property
    def in_head(self) -> bool:
        return self._reader.in_head

    @property
    def in_body(self) -> bool:
        return self._reader.in_body

    @property
    def waiting(self) -> int:
        """Authenticated requests that have not been answered yet."""
        return len(self._requests)

    def feed(self, data: bytes | memoryview) -> bytes:
        """Take what arrived. What comes back must be sent at once (the answer to a hello). Raises `WireError`, `PeerRefused`."""
        self._reader.feed(data)
        hello, self._hello = self._hello, b""
        return hello

    def answer(self) -> bytes:
        """Carry out the oldest request. Raises `WireError`, and whatever the handler raises that is no reply."""
        assert self._channel is not None
        assert self._codec is not None
        wiring, request = self._wiring, self._requests.popleft()
        now = wiring.clock()
        # Also one from the future: then the offset of the clocks does not hold any more, and must be measured anew.
        if not abs(self._channel.age(sent_at(request.auth), now)) <= wiring.timeouts.stale_request_s:
            wiring.observer.count("peer.stale")
            return self._framed(request, Unreachable("stale"), b"", now)
        call = self._codec.decode_call(request.method, request.path, request.body, now)
        reply = _handled(self._handler, call, self._channel.peer.identity)
        return self._framed(request, reply, sealing_key(call), now)

    def _framed(self, request: Request, reply: Reply, key: bytes, now: float) -> bytes:
        assert self._channel is not None
        assert self._codec is not None
        limit = self._wiring.limits.message_bytes_max
        nonce = self._wiring.entropy.bytes(SEAL_NONCE_BYTES) if carries_values(reply) else b""
        body = self._codec.encode_reply(reply, key, now, nonce)
        if len(body) > limit:
            reply = TooLarge("a reply between nodes", len(body), limit)
            body = self._codec.encode_reply(reply, key, now, b"")
        status = status_of(reply)
        auth = self._channel.reply_auth(b"%b %b" % (request.method, request.path), status, body)
        return response_bytes(status, auth, body)

    def _arrived(self, request: Request) -> None:
        if self._channel is None:
            self._accept(request)
            return
        self._check_key()
        line = b"%b %b" % (request.method, request.path)
        expected = self._channel.request_auth(line, sent_at(request.auth), request.body)
        if not hmac.compare_digest(expected, request.auth):
            raise WireError("a request whose authentication fails")
        if not self.proven:
            self.proven = True
            self._reader.body_bytes_max = self._wiring.limits.message_bytes_max
        self._requests.append(request)

    def _accept(self, request: Request) -> None:
        if (request.method, request.path) != HELLO or request.auth != NO_AUTH:
            raise WireError("a request without a hello before it")
        wiring = self._wiring
        nonce = wiring.entropy.bytes(NONCE_BYTES)
        answer, channel = accept(request.body, wiring.party(), self._ring, nonce, wiring.clock())
        self._admit(channel.peer)
        self._channel = channel
        self._codec = Codec(Sealer(self._ring, wiring.cluster), channel.kid, channel.wire)
        self._reader.body_bytes_max = min(PROVING_BYTES_MAX, wiring.limits.message_bytes_max)
        self._hello = response_bytes(200, NO_AUTH, answer)

    def _check_key(self) -> None:
        """A key that was taken out of the ring ends the connections that stand on it."""
        assert self._channel is not None
        ring = self._wiring.ring()
        if ring is not self._ring:
            self._ring = ring
            if ring.get(self._channel.kid) is None:
                raise PeerRefused(f"key {self._channel.kid} was taken out of the ring")


def _handled(handler: Handler, call: Call, identity: str) -> Reply:
    try:
        return handler(call, identity)
    except StoreFull:
        return Full()
    except ShardDown:
        return Unreachable("down")
    except Corrupt:
        return Broken()
