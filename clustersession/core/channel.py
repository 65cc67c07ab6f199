"""The messages of one direction of a connection, each sealed: nobody else reads them or makes one.

Each is sealed by AES-256-GCM with a key of this connection and this direction and a random nonce. The tag also covers the
number of the message and its context (request line and time, or status): so nothing can be changed, left out, repeated,
swapped, or sent back where it came from. A connection lives for minutes, far from the 2^32 messages a key is good for.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import WireError

WIRE_VERSION: Final = 1
WIRE_VERSION_OLDEST: Final = 1  # the one before WIRE_VERSION, once there is one
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
OVERHEAD_BYTES: Final = 1 + NONCE_BYTES + 16  # of a body over its data: wire version, nonce, tag


class Direction:
    """Both ends have one for each direction, and both count its messages. After a `WireError` the connection is over."""

    __slots__ = ("_cipher", "_number", "_version")

    def __init__(self, key: bytes, version: int) -> None:
        """`key`: 32 secret bytes that nothing else uses; `version`: the wire version both ends speak."""
        self._cipher = AESGCM(key)
        self._number = 0
        self._version = version

    def __repr__(self) -> str:
        return f"<Direction: {self._number} messages>"

    def seal(self, context: bytes, data: bytes, nonce: bytes) -> bytes:
        """The body of the next message. `context`: what is said beside it; `nonce`: 12 random bytes."""
        self._number += 1
        sealed = self._cipher.encrypt(nonce, data, b"%d %d %b" % (self._number, self._version, context))
        return b"%c%b%b" % (self._version, nonce, sealed)

    def open(self, context: bytes, body: bytes) -> bytes:
        """The data of the next message. Raises `WireError`."""
        self._number += 1
        if len(body) < OVERHEAD_BYTES or not WIRE_VERSION_OLDEST <= body[0] <= WIRE_VERSION:
            raise WireError("a body that this release does not know")
        try:
            return self._cipher.decrypt(body[1:13], body[13:], b"%d %d %b" % (self._number, body[0], context))
        except InvalidTag:
            raise WireError("a message whose authentication fails") from None
