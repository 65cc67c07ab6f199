"""The cluster's secret: a ring of keys, each named by a number, of which the first signs.

Every purpose has its own key, derived by HKDF-SHA256 (RFC 5869), so that what one of them signs is worth nothing to
another. The number (`kid`) travels in clear beside what was made with the key and selects exactly that one; other keys
are never tried.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import lru_cache
from re import compile as pattern
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import ConfigError

SETTING: Final = "CLUSTERSESSION_SECRET"
REMEDY: Final = "Make one with `clustersession key new` and give the same one to every host."
SECRET_LENGTH_MIN: Final = 32
DISTINCT_MIN: Final = 6  # of 32 random decimal digits fewer than this are different once in ten million
KID_MAX: Final = 255

_is_number = pattern(r"[0-9]{1,3}").fullmatch
# What stands in tutorials and templates; looked for among the letters and digits of the secret, whatever their case.
_EXAMPLES: Final = (
    "changeme",
    "changeit",
    "changethis",
    "replaceme",
    "replacethis",
    "yoursecret",
    "yourkey",
    "mysecret",
    "examplesecret",
    "examplekey",
    "secretkey",
    "supersecret",
    "topsecret",
    "notasecret",
    "donotuse",
    "insecure",
    "placeholder",
    "password",
    "passphrase",
    "1234567890",
    "0123456789",
    "abcdefghijkl",
    "loremipsum",
)


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the ring, 32 bytes for each purpose; its repr shows the number only."""

    kid: int
    mac: bytes = field(repr=False)  # session IDs
    tag: bytes = field(repr=False)  # the owners' tags in them
    seal: bytes = field(repr=False)  # records and message bodies, AES-256-GCM-SIV
    hello: bytes = field(repr=False)  # the proof between nodes


class KeyRing:
    """The keys this host holds. The first signs, all verify."""

    __slots__ = ("_by_kid", "_keys")

    def __init__(self, keys: tuple[Key, ...]) -> None:
        self._keys = keys
        self._by_kid = {key.kid: key for key in keys}

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read one plain secret (number 1) or `kid:key,kid:key`, the first of which signs.

        A key has at least 32 characters, none of them a comma; a plain secret has no colon either. Raises `ConfigError`
        for what is empty, short, guessable, or numbered wrongly.
        """
        text = text.strip()
        if not text:
            raise ConfigError(SETTING, "no secret is set", REMEDY)
        keys: dict[int, Key] = {}
        for kid, secret in _parts(text):
            if kid in keys:
                raise ConfigError(SETTING, f"two keys have the number {kid}", "Give every key its own number from 0 to 255.")
            _check_strength(kid, secret)
            keys[kid] = Key(kid, *_derived(secret))
        return cls(tuple(keys.values()))

    def __repr__(self) -> str:
        return f"<KeyRing of {', '.join(map(str, self.kids))}>"

    @property
    def signing(self) -> Key:
        """The first key."""
        return self._keys[0]

    @property
    def kids(self) -> tuple[int, ...]:
        """The numbers of all keys, in the ring's order."""
        return tuple(key.kid for key in self._keys)

    def get(self, kid: int) -> Key | None:
        return self._by_kid.get(kid)

    def signing_among(self, kids: Collection[int]) -> Key:
        """The first key that is in `kids`, the numbers all live members have announced.

        During a rotation the new key is the first everywhere, and signs only once the last member has it; until then the
        next common one does. Raises `ConfigError` when no key is common.
        """
        for key in self._keys:
            if key.kid in kids:
                return key
        here, there = ", ".join(map(str, self.kids)), ", ".join(map(str, sorted(kids))) or "none"
        problem = f"this host has the keys {here}, all members together have {there}: no key is common"
        raise ConfigError(SETTING, problem, "Give every host the same ring; add a new key everywhere before you drop the old.")


def _parts(text: str) -> list[tuple[int, str]]:
    if ":" not in text and "," not in text:
        return [(1, text)]
    return [_part(part.strip()) for part in text.split(",")]


def _part(part: str) -> tuple[int, str]:
    number, colon, secret = part.partition(":")
    if not colon or not _is_number(number) or int(number) > KID_MAX:
        problem = "a part of the ring is not of the form kid:key with a number from 0 to 255"
        raise ConfigError(SETTING, problem, "Write 2:newkey,1:oldkey; a plain secret must not contain ':' or ','.")
    return int(number), secret.strip()


def _check_strength(kid: int, secret: str) -> None:
    if len(secret) < SECRET_LENGTH_MIN:
        raise ConfigError(SETTING, f"key {kid} has {len(secret)} characters, at least {SECRET_LENGTH_MIN} are needed", REMEDY)
    if not secret.isprintable():
        raise ConfigError(SETTING, f"key {kid} contains characters that are not text", REMEDY)
    bare = "".join(filter(str.isalnum, secret)).casefold()
    if secret.startswith("django-insecure-") or any(example in bare for example in _EXAMPLES):
        raise ConfigError(SETTING, f"key {kid} is an example value that others know too", REMEDY)
    if len(set(secret)) < DISTINCT_MIN or _repeats(secret):
        raise ConfigError(SETTING, f"key {kid} repeats itself and can be guessed", REMEDY)


def _repeats(secret: str) -> bool:
    """Whether it is one piece of at most half its length, again and again."""
    return any(secret.startswith(secret[period:]) for period in range(1, len(secret) // 2 + 1))


@lru_cache(maxsize=16)
def _derived(secret: str) -> tuple[bytes, bytes, bytes, bytes]:
    mac, tag, seal, hello = (_derive(secret, purpose) for purpose in (b"mac", b"tag", b"seal", b"hello"))
    return mac, tag, seal, hello


def _derive(secret: str, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=b"clustersession 1", info=purpose).derive(secret.encode())
