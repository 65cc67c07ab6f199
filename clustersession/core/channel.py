"""The messages of one direction of a connection, each authenticated and, if it carries session values, sealed.

A body is an envelope: wire version, plain or sealed, and the data. A plain one is authenticated by an HMAC-SHA256 beside it, a
sealed one by its own tag (AES-256-GCM-SIV), under keys of this connection and this direction. Both cover the number of the
message, its context (request line and time, or status) and the body: so nothing can be changed, left out, repeated, swapped,
or sent back where it came from. The number is the nonce; GCM-SIV forgives a repeated one, as after a clone of the machine.
"""

from __future__ import annotations

from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from ..errors import WireError

WIRE_VERSION: Final = 1
WIRE_VERSION_OLDEST: Final = 1  # the one before WIRE_VERSION, once there is one
KEYS_BYTES: Final = 64
MAC_BYTES: Final = 16
OWN_TAG: Final = b"-"  # stands in place of the MAC of a sealed message, which brings its own

_PLAIN: Final = 0
_SEALED: Final = 1


class Direction:
    """Both ends have one for each direction, and both count its messages. After a `WireError` the connection is over."""

    __slots__ = ("_keyed", "_number", "_sealer", "_version")

    def __init__(self, keys: bytes, version: int) -> None:
        """`keys`: 64 secret bytes that nothing else uses; `version`: the wire version both ends speak."""
        # Set up once, as that costs more than its use on a kilobyte. The HMAC is copied for each message.
        self._keyed = HMAC(keys[:32], SHA256())
        self._sealer = AESGCMSIV(keys[32:])
        self._number = 0
        self._version = version

    def __repr__(self) -> str:
        return f"<Direction: {self._number} messages>"

    def seal(self, context: bytes, data: bytes, *, secret: bool) -> tuple[bytes, bytes]:
        """The next message: its MAC, and its body. `context` is what it says beside the data, without a line break."""
        self._number += 1
        number, version = self._number, self._version
        if secret:
            head = b"%d %d 1 %b\n" % (number, version, context)
            return OWN_TAG, b"%c\1%b" % (version, self._sealer.encrypt(b"%012d" % number, data, head))
        return self._mac(b"%d %d 0 %b\n%b" % (number, version, context, data)), b"%c\0%b" % (version, data)

    def open(self, context: bytes, mac: bytes, body: bytes) -> tuple[bytes, bool]:
        """The data of the next message, and whether it was sealed. Raises `WireError`."""
        self._number += 1
        number = self._number
        if len(body) < 2 or not WIRE_VERSION_OLDEST <= body[0] <= WIRE_VERSION:
            raise WireError("an envelope that this release does not know")
        version, kind, data = body[0], body[1], body[2:]
        if kind == _SEALED and mac == OWN_TAG:
            try:
                return self._sealer.decrypt(b"%012d" % number, data, b"%d %d 1 %b\n" % (number, version, context)), True
            except InvalidTag:
                raise WireError("a message whose seal is broken") from None
        if kind == _PLAIN and compare_digest(mac, self._mac(b"%d %d 0 %b\n%b" % (number, version, context, data))):
            return data, False
        raise WireError("a message whose authentication fails")

    def _mac(self, data: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(data)
        return keyed.finalize()[:MAC_BYTES].hex().encode()
