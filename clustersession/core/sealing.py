"""Sealed bytes: `kid (1) | nonce (12) | AES-256-GCM-SIV ciphertext (RFC 8452)`.

GCM-SIV because a nonce that repeats, after a fork or a clone of the machine, then shows no more than that two texts were
equal. What the bytes are for is authenticated with them, so that a record can't be passed off as that of another session,
cluster or purpose.
"""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

from ..errors import Corrupt
from .keyring import KeyRing

NONCE_BYTES: Final = 12
SEAL_BYTES: Final = 1 + NONCE_BYTES + 16  # what sealing adds
LABEL_BYTES: Final = 16
_FORMAT: Final = b"\x01"


class Sealer:
    """Seals and opens for one cluster with the keys of one ring."""

    __slots__ = ("_ciphers", "_context", "_ring")

    def __init__(self, ring: KeyRing, cluster: str) -> None:
        name = cluster.encode()
        self._ring = ring
        self._context = _FORMAT + len(name).to_bytes(2, "big") + name
        self._ciphers: dict[int, AESGCMSIV] = {}

    def seal(self, purpose: bytes, key: bytes, data: bytes, nonce: bytes, kid: int | None = None) -> bytes:
        """Seal `data` as the `purpose` bytes of `key` (a session's store key), with 12 random bytes as `nonce`.

        `kid` names a key of the ring, the signing one if None. Raises `KeyError` for one that is not in the ring.
        """
        if kid is None:
            kid = self._ring.signing.kid
        sealed = self._cipher(kid).encrypt(nonce, data, self._bound_to(kid, purpose, key))
        return b"%c%b%b" % (kid, nonce, sealed)

    def open(self, purpose: bytes, key: bytes, sealed: bytes) -> bytes:
        """What was sealed for exactly this purpose and key, or `Corrupt`."""
        if len(sealed) < SEAL_BYTES:
            raise Corrupt(f"sealed {_shown(purpose)} of {len(sealed)} bytes is too short to be one")
        kid = sealed[0]
        try:
            return self._cipher(kid).decrypt(sealed[1:13], sealed[13:], self._bound_to(kid, purpose, key))
        except KeyError:
            raise Corrupt(f"sealed {_shown(purpose)} names key {kid}, which is not in the ring of this host") from None
        except InvalidTag:
            raise Corrupt(f"sealed {_shown(purpose)} fails its check: changed, or made for something else") from None

    def is_latest(self, sealed: bytes) -> bool:
        """Whether the key that signs now has sealed it."""
        return sealed[:1] == b"%c" % self._ring.signing.kid

    def labels(self, name: str) -> dict[int, bytes]:
        """What stands for a user where the name itself has no business: a keyed hash by the number of each key, in the ring's
        order."""
        text = self._context + b"user\0" + name.encode(errors="surrogatepass")
        keys = (self._ring.get(kid) for kid in self._ring.kids)
        return {key.kid: hmac.digest(key.tag, text, "sha256")[:LABEL_BYTES] for key in keys if key is not None}

    def _cipher(self, kid: int) -> AESGCMSIV:
        cipher = self._ciphers.get(kid)
        if cipher is None:
            key = self._ring.get(kid)
            if key is None:
                raise KeyError(kid)
            cipher = self._ciphers[kid] = AESGCMSIV(key.seal)
        return cipher

    def _bound_to(self, kid: int, purpose: bytes, key: bytes) -> bytes:
        return b"%b%c%c%b%b" % (self._context, kid, len(purpose), purpose, key)


def _shown(purpose: bytes) -> str:
    return purpose.decode("ascii", "replace")
