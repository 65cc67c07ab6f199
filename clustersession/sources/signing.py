"""Signed texts as itsdangerous and Django write them: checked in constant time, with every key that still counts.

itsdangerous: `value.signature` or `value.time.signature`, HMAC-SHA-1 by default. Django: `value:time:signature`, HMAC-SHA-256.
Both sign with the first key here and accept all of them. A signature has one spelling: base64 with stray last bits, which
itsdangerous lets pass, is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable
from typing import Final, Literal, NamedTuple

from ..errors import ConfigError

LEEWAY_S: Final = 60
"""How far the clock of the host that signed may be ahead. With more, a cookie would outlive a logout dated by our clock."""
INFLATED_BYTES_MAX: Final = 1 << 20
_BASE_62: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME_BYTES_MAX: Final = 16


class Stamped(NamedTuple):
    """What was signed, and when (Unix s)."""

    value: bytes
    at: int


class _Clock(NamedTuple):
    text: Callable[[int], bytes]
    number: Callable[[bytes], int]


class Signer:
    """Signs with the first of `keys` (already derived) and accepts each of them."""

    def __init__(self, keys: Iterable[bytes], digest: str, separator: bytes, clock: _Clock) -> None:
        self._keys, self._digest, self._separator, self._clock = tuple(keys), digest, separator, clock

    def sign(self, value: bytes) -> str:
        """`value` with its signature."""
        return (value + self._separator + self._signature(self._keys[0], value)).decode("latin-1")

    def unsign(self, signed: str) -> bytes | None:
        """What was signed, or None if no key says so."""
        try:
            value, separator, signature = signed.encode("ascii").rpartition(self._separator)
        except UnicodeEncodeError:
            return None
        genuine = [hmac.compare_digest(signature, self._signature(key, value)) for key in self._keys]
        return value if separator and any(genuine) else None

    def stamp(self, value: bytes, at: int) -> str:
        """`value` signed together with the time `at` (Unix s)."""
        return self.sign(value + self._separator + self._clock.text(at))

    def unstamp(self, signed: str, now: float, max_age_s: float | None = None) -> Stamped | None:
        """What was signed and when; None if it is forged, older than `max_age_s`, or of a time that is still to come."""
        whole = self.unsign(signed)
        if whole is None:
            return None
        value, separator, text = whole.rpartition(self._separator)
        if not separator or not 0 < len(text) <= _TIME_BYTES_MAX:
            return None
        try:
            at = self._clock.number(text)
        except ValueError:
            return None
        if at > now + LEEWAY_S or (max_age_s is not None and int(now) - at > max_age_s):
            return None
        return Stamped(value, at)

    def _signature(self, key: bytes, value: bytes) -> bytes:
        return b64(hmac.digest(key, value, self._digest))


def itsdangerous_signer(
    secrets: Iterable[str | bytes],
    salt: str,
    *,
    derivation: Literal["hmac", "django-concat"] = "django-concat",
    digest: str = "sha1",
) -> Signer:
    """The first of `secrets` signs. Raises `ConfigError` for an empty one."""
    keys = _checked(secrets)
    if derivation == "hmac":
        derived = [hmac.digest(key, salt.encode(), digest) for key in keys]
    else:
        derived = [_hashed(digest, salt.encode() + b"signer" + key) for key in keys]
    return Signer(derived, digest, b".", _Clock(_binary, _of_binary))


def django_signer(secrets: Iterable[str | bytes], salt: str) -> Signer:
    """`django.core.signing.TimestampSigner`. The first of `secrets` signs. Raises `ConfigError` for an empty one."""
    derived = [_hashed("sha256", salt.encode() + b"signer" + key) for key in _checked(secrets)]
    return Signer(derived, "sha256", b":", _Clock(_base_62, _of_base_62))


def stamp_for(now: float, expires: float | None, max_age_s: float | None) -> int:
    """The time to sign with, so that a system that counts `max_age_s` from it ends the session at `expires`, and not later."""
    return int(now) if expires is None or max_age_s is None else max(0, min(int(now), round(expires - max_age_s)))


# --- bodies -----------------------------------------------------------------------------------------------------------------


def packed(data: bytes) -> bytes:
    """URL-safe base64, deflated (and marked with a dot) where that is shorter."""
    deflated = zlib.compress(data)
    return b"." + b64(deflated) if len(deflated) < len(data) - 1 else b64(data)


def unpacked(body: bytes) -> bytes:
    """The opposite. Raises `ValueError` for what is none, and for more than `INFLATED_BYTES_MAX`."""
    if not body.startswith(b"."):
        return unb64(body)
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(unb64(body[1:]), INFLATED_BYTES_MAX)
    except zlib.error:
        raise ValueError("not deflated") from None
    if not inflate.eof:
        raise ValueError("cut short, or too large")
    return data


def b64(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def unb64(text: bytes) -> bytes:
    return urlsafe_b64decode(text + b"=" * (-len(text) % 4))


# --- keys and times ---------------------------------------------------------------------------------------------------------


def _checked(secrets: Iterable[str | bytes]) -> list[bytes]:
    keys = [each.encode() if isinstance(each, str) else each for each in secrets]
    if not keys or not all(keys):
        raise ConfigError(
            "secret_key", "the old system's key is empty", "Hand in the SECRET_KEY that its sessions are signed with"
        )
    return keys


def _hashed(digest: str, data: bytes) -> bytes:
    return hashlib.new(digest, data, usedforsecurity=False).digest()


def _binary(at: int) -> bytes:
    return b64(at.to_bytes((at.bit_length() + 7) // 8, "big"))


def _of_binary(text: bytes) -> int:
    return int.from_bytes(unb64(text), "big")


def _base_62(at: int) -> bytes:
    digits = bytearray()
    while at:
        at, digit = divmod(at, 62)
        digits.append(_BASE_62[digit])
    return bytes(reversed(digits)) or b"0"


def _of_base_62(text: bytes) -> int:
    at = 0
    for digit in text:
        at = at * 62 + _BASE_62.index(digit)
    return at
