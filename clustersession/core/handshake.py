"""How a connection between two nodes opens: each proves to the other that it holds a key of the ring.

The initiator's hello says who it is, whom it wants, which keys it has, and proves that it has them. The responder takes the
first of these that it has too, and proves it over both hellos. The initiator proves itself once more, freshly, with
its first request: each message is authenticated with keys derived from everything both have said (`channel`). So nothing that
was recorded can be used again: not on this connection (messages are numbered), not on another (both nonces are in the keys),
not in the other direction, not with another node or another start of it (identities and incarnations are in the keys).
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Final, NamedTuple, TypeVar

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import PeerRefused, WireError
from .channel import KEY_BYTES, WIRE_VERSION, WIRE_VERSION_OLDEST, Direction
from .keyring import Key, KeyRing

T = TypeVar("T")

HELLO_NONCE_BYTES: Final = 32
HELLO_BYTES_MAX: Final = 4096

_NAME_LENGTH_MAX: Final = 255
_KIDS_MAX: Final = 16


class Party(NamedTuple):
    """One end of a connection, as it presents itself."""

    identity: str
    incarnation: int
    cluster: str
    release: str


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """What each side says of itself. `clock`: its monotonic time; `wanted`: whom it means to reach, "" for any node."""

    wire: int
    release: str
    cluster: str
    identity: str
    incarnation: int
    nonce: bytes
    clock: float
    kids: tuple[int, ...]
    wanted: str


class _Opening(msgspec.Struct, frozen=True, array_like=True):
    """The initiator's first message: its hello as bytes, and a proof for each key it has."""

    hello: bytes
    proofs: dict[int, bytes]


class _Answer(msgspec.Struct, frozen=True, array_like=True):
    """The responder's: its hello as bytes, the key it chose, and the proof over both hellos."""

    hello: bytes
    kid: int
    proof: bytes


class Channel:
    """An open connection: both directions, and whom it leads to."""

    __slots__ = ("_key", "_offset", "peer", "replies", "requests")

    def __init__(self, key: Key, transcript: bytes, salt: bytes, peer: Hello, offset: float) -> None:
        keys = HKDF(SHA256(), 2 * KEY_BYTES, salt, b"clustersession connection" + transcript).derive(key.hello)
        version = min(WIRE_VERSION, peer.wire)
        self.requests, self.replies = Direction(keys[:KEY_BYTES], version), Direction(keys[KEY_BYTES:], version)
        self._key, self.peer = key, peer
        self._offset = offset

    def __repr__(self) -> str:
        return f"<Channel with {self.peer.identity!r}: requests {self.requests!r}, replies {self.replies!r}>"

    @property
    def kid(self) -> int:
        """The number of the key it stands on."""
        return self._key.kid

    def stands_on(self, ring: KeyRing) -> bool:
        """Whether the key of this connection is in `ring`: a number that stands for another secret now does not count."""
        return ring.get(self._key.kid) == self._key

    def age(self, sent: float, now: float) -> float:
        """Seconds a request was on its way, by the offset of the two clocks that the hello showed."""
        return now - (sent + self._offset)


class Greeting:
    """The initiator's first message (`data`), and what it must remember of it."""

    __slots__ = ("_hello", "_kids", "_me", "_nonce", "_wanted", "data")

    def __init__(self, me: Party, ring: KeyRing, wanted: str, nonce: bytes, clock: float) -> None:
        self._me, self._wanted, self._nonce, self._kids = me, wanted, nonce, ring.kids
        self._hello = _hello(me, nonce, clock, ring.kids, wanted)
        proofs = {kid: _proof(key, b"initiator", self._hello) for kid in ring.kids if (key := ring.get(kid))}
        self.data = msgspec.msgpack.encode(_Opening(self._hello, proofs))

    def conclude(self, answer: bytes, ring: KeyRing) -> Channel:
        """The channel, if the answer proves that it comes from the node that was wanted. Raises `PeerRefused`, `WireError`."""
        reply = _decoded(answer, _ANSWERS)
        theirs = _checked_hello(reply.hello)
        key = ring.get(reply.kid) if reply.kid in self._kids else None
        if key is None:
            raise PeerRefused(f"it chose key {reply.kid}, which this node did not offer or has dropped")
        transcript = _transcript(self._hello, reply.hello)
        if not hmac.compare_digest(reply.proof, _proof(key, b"responder", transcript)):
            raise PeerRefused(f"its proof for key {key.kid} is wrong")
        _check_kinship(theirs, self._me)
        if theirs.wanted != self._me.identity or self._wanted not in ("", theirs.identity):
            raise PeerRefused(f"{theirs.identity!r} answered where {self._wanted!r} was wanted")
        return Channel(key, transcript, self._nonce + theirs.nonce, theirs, 0.0)


def accept(greeting: bytes, me: Party, ring: KeyRing, nonce: bytes, clock: float) -> tuple[bytes, Channel]:
    """The responder's answer to a greeting, and its channel. Raises `WireError`, and `PeerRefused` whose text is for this
    node's log, not for the other side.

    The offset of the clocks is measured as if the greeting had taken no time. One that waited in the queue of a paused node
    makes later requests look younger than they are, but never by more than the request time-out: an initiator that has no
    answer by then gives the connection up and sends no request on it.
    """
    opening = _decoded(greeting, _OPENINGS)
    theirs = _checked_hello(opening.hello)
    key = next((key for kid in theirs.kids if (key := ring.get(kid))), None)
    if key is None:
        raise PeerRefused(f"no common key: {theirs.identity!r} has {list(theirs.kids)}, this node {list(ring.kids)}")
    if not hmac.compare_digest(opening.proofs.get(key.kid, b""), _proof(key, b"initiator", opening.hello)):
        raise PeerRefused(f"the proof of {theirs.identity!r} for key {key.kid} is wrong: it has another secret of that number")
    _check_kinship(theirs, me)
    if theirs.wanted not in ("", me.identity):
        raise PeerRefused(f"{theirs.identity!r} wants {theirs.wanted!r}, this is {me.identity!r}")
    hello = _hello(me, nonce, clock, ring.kids, theirs.identity)
    transcript = _transcript(opening.hello, hello)
    answer = msgspec.msgpack.encode(_Answer(hello, key.kid, _proof(key, b"responder", transcript)))
    return answer, Channel(key, transcript, theirs.nonce + nonce, theirs, clock - theirs.clock)


def _hello(me: Party, nonce: bytes, clock: float, kids: tuple[int, ...], wanted: str) -> bytes:
    if len(nonce) != HELLO_NONCE_BYTES:
        raise ValueError(f"a hello needs a nonce of {HELLO_NONCE_BYTES} bytes, this has {len(nonce)}")
    hello = Hello(WIRE_VERSION, me.release, me.cluster, me.identity, me.incarnation, nonce, clock, kids, wanted)
    return msgspec.msgpack.encode(hello)


def _checked_hello(data: bytes) -> Hello:
    hello = _decoded(data, _HELLOS)
    names = (hello.release, hello.cluster, hello.identity, hello.wanted)
    if len(hello.nonce) != HELLO_NONCE_BYTES or len(hello.kids) > _KIDS_MAX or max(map(len, names)) > _NAME_LENGTH_MAX:
        raise WireError("a hello with a field of a wrong length")
    return hello


def _check_kinship(theirs: Hello, me: Party) -> None:
    if theirs.cluster != me.cluster:
        raise PeerRefused(f"{theirs.identity!r} belongs to cluster {theirs.cluster!r}, this node to {me.cluster!r}")
    if theirs.wire < WIRE_VERSION_OLDEST:
        raise PeerRefused(f"{theirs.identity!r} speaks wire version {theirs.wire}, this node {WIRE_VERSION_OLDEST} and later")


def _proof(key: Key, role: bytes, data: bytes) -> bytes:
    return hmac.digest(key.hello, b"clustersession hello " + role + b"\0" + data, "sha256")


def _transcript(initiator: bytes, responder: bytes) -> bytes:
    return sha256(initiator).digest() + sha256(responder).digest()


_OPENINGS: Final = msgspec.msgpack.Decoder(_Opening)
_ANSWERS: Final = msgspec.msgpack.Decoder(_Answer)
_HELLOS: Final = msgspec.msgpack.Decoder(Hello)


def _decoded(data: bytes, decoder: msgspec.msgpack.Decoder[T]) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise WireError(f"a hello that does not decode: {error}") from None
