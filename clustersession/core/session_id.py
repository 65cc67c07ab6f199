"""The session ID: `MMMMMMMM-PPPPPPPP-BBBBBBBB-QQQQQQQQ-VVVVVVVV-HASH`, 105 characters, in the cookie only.

M-P is the tag of the master and B-Q that of the backup (zeros: none), V the epoch (12 bits) and version (20 bits) of the
record when the ID was issued. HASH is base32hex, lower case, without padding, of `kid (1) | born (4) | token (16) | MAC
(16)`; the MAC, HMAC-SHA-256 cut to half, covers cluster name, cookie name and everything before it. There is exactly one
spelling of an ID, and nothing in it is looked at before its length, its alphabet and its MAC have been.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b32hexencode
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ..errors import BadSessionId
from .keyring import Key, KeyRing
from .node import NO_TAG

SESSION_ID_LENGTH: Final = 105
TOKEN_BYTES: Final = 16  # OWASP ASVS 7.2.3: 128 bits from a CSPRNG, counted on the random field only
STORE_KEY_BYTES: Final = 16
EPOCH_MAX: Final = 0xFFF
VERSION_MAX: Final = 0xFFFFF
BORN_MAX: Final = 0xFFFFFFFF
CLOCK_SKEW_S: Final = 60.0  # hosts' wall clocks may differ by this much before an ID ends early

_HASH_AT: Final = 45
_MAC_BYTES: Final = 16
_PAYLOAD_BYTES: Final = 37
_SIGNED_BYTES: Final = _PAYLOAD_BYTES - _MAC_BYTES
# 60 characters carry 300 bits for 296: with the last 4 not zero, several texts would be the same ID.
_is_canonical = re.compile(r"(?:[0-9a-f]{8}-){5}[0-9a-v]{59}[0g]").fullmatch


@dataclass(frozen=True, slots=True)
class IdContext:
    """What an ID is valid for. An ID of another cluster or another cookie name does not verify."""

    cluster: str
    cookie_name: str
    signed: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = (part.encode() for part in ("session id 1", self.cluster, self.cookie_name))
        signed = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
        object.__setattr__(self, "signed", signed)  # the class is frozen


class SessionId(msgspec.Struct, frozen=True):
    """A verified ID. `born`: minutes since the Unix epoch; `key`: the session's key in the store; tags as `node_tag`.

    Its repr shows the public handle: whoever reads `token` in a log could rebuild the cookie's secret part.
    """

    kid: int
    born: int
    token: bytes
    master: str
    backup: str | None
    epoch: int
    version: int
    key: bytes

    @property
    def handle(self) -> str:
        """The 32 characters that app and logs know the session by; not valid as a cookie."""
        return self.key.hex()

    @property
    def floor(self) -> tuple[int, int]:
        """(epoch, version) that a copy must have reached to be served; clamped, so never above the real one."""
        return self.epoch, self.version

    def __repr__(self) -> str:
        return f"<SessionId {self.handle}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("handle", self.handle)]


def store_key(token: bytes) -> bytes:
    """The session's key in the store: the raw token is nowhere but in the cookie."""
    return hashlib.sha256(token).digest()[:STORE_KEY_BYTES]


def encode(
    *, token: bytes, born: int, master: str, backup: str | None, epoch: int, version: int, key: Key, context: IdContext
) -> str:
    """The text of an ID. `token`: 16 random bytes; `born`: minutes since the Unix epoch; tags made by `node_tag` with `key`.

    Epoch and version are clamped to 12 and 20 bits. Raises `ValueError` for a tag, token or time that is none.
    """
    if master == NO_TAG or len(token) != TOKEN_BYTES or not 0 <= born <= BORN_MAX:
        raise ValueError("an ID needs a master, a token of 16 bytes and a time of birth in minutes")
    floor = min(epoch, EPOCH_MAX) << 20 | min(version, VERSION_MAX)
    owners = f"{master}-{backup or NO_TAG}-{floor:08x}"
    signed = b"%c%b%b" % (key.kid, born.to_bytes(4, "big"), token)
    payload = signed + _mac(key, context, owners, signed)
    text = f"{owners}-{b32hexencode(payload).decode().rstrip('=').lower()}"
    if _is_canonical(text) is None:
        raise ValueError("an ID needs tags as node_tag makes them, and no epoch or version below 0")
    return text


def verify(text: str | bytes, ring: KeyRing, context: IdContext) -> SessionId:
    """The ID that `text` is. Raises `BadSessionId` with the reason length, alphabet, kid or mac; nothing else, on any input."""
    if len(text) != SESSION_ID_LENGTH:
        raise BadSessionId("length")
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    if _is_canonical(text) is None:
        raise BadSessionId("alphabet")
    # int() reads base32hex: its digits of base 32 are the same characters, and it is 20 times faster than base64's.
    payload = (int(text[_HASH_AT:], 32) >> 4).to_bytes(_PAYLOAD_BYTES, "big")
    signed = payload[:_SIGNED_BYTES]
    key = ring.get(signed[0])
    if key is None:
        raise BadSessionId("kid")
    if not hmac.compare_digest(_mac(key, context, text[: _HASH_AT - 1], signed), payload[_SIGNED_BYTES:]):
        raise BadSessionId("mac")
    token, backup, floor = signed[5:], text[18:35], int(text[36:44], 16)
    born, master = int.from_bytes(signed[1:5], "big"), text[:17]
    named = None if backup == NO_TAG else backup
    return SessionId(signed[0], born, token, master, named, floor >> 20, floor & VERSION_MAX, store_key(token))


def looks_like_ours(text: str) -> bool:
    """Whether it has the form of our IDs. Such a text is ours to judge, also when it fails: no legacy decoder may see it."""
    return len(text) == SESSION_ID_LENGTH and text[8] == text[17] == text[26] == text[35] == text[44] == "-"


def claimed_kid(text: str) -> int:
    """The number of the key that an ID which does not verify says it was made with. `text` has an ID's length and alphabet."""
    return int(text[_HASH_AT : _HASH_AT + 2], 32) >> 2


def outlived(sid: SessionId, now_s: float, absolute_s: float | None) -> bool:
    """Whether an absolute limit of `absolute_s` has certainly passed since the ID was born (`now_s`: Unix time)."""
    if absolute_s is None:
        return False
    return now_s > (sid.born + 1) * 60 + absolute_s + CLOCK_SKEW_S


def node_tag(key: Key, identity: str, port: int) -> str:
    """`MMMMMMMM-PPPPPPPP`: keyed tags of the identity, and of identity and port. Says nothing about address or name."""
    name = identity.encode()
    of_node = hmac.digest(key.tag, b"node" + name, "sha256").hex()[:8]
    of_port = hmac.digest(key.tag, b"port%5d" % port + name, "sha256").hex()[:8]
    return f"{of_node}-{of_port}"


def _mac(key: Key, context: IdContext, owners: str, signed: bytes) -> bytes:
    return hmac.digest(key.mac, context.signed + owners.encode() + signed, "sha256")[:_MAC_BYTES]
