"""The cookie's two headers: finding our names in what a browser sent, wording what it is sent, and when it is sent one.

The scanner looks for our names only and does not parse anybody else's cookies: whatever stands in them, malformed,
quoted or enormous, cannot hide ours, pose as ours, or cost more than a search through the text (Python's `http.cookies`
gives up on the first malformed pair and is quadratic on hostile ones, CVE-2024-7592).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Protocol

from ..config import CookieConfig

SCANNED_CHARS_MAX: Final = 64 * 1024  # of all Cookie fields of a request; servers allow 8 to 64 KiB
FOUND_MAX: Final = 4  # more than three is all the caller needs to know
LIFE_S_MAX: Final = 400 * 86400  # RFC 6265bis 5.5: browsers cap it there
SLIDE_AT: Final = 0.25  # of a persistent cookie's life

_LONG_AGO: Final = "Thu, 01 Jan 1970 00:00:00 GMT"


def scan(header_fields: Iterable[bytes | str], names: tuple[str, ...]) -> list[tuple[str, str]]:
    """The pairs (name, value) with one of `names`, in the order sent, the first four at most; never raises.

    A pair starts where a field starts or after ';' and at most one space (RFC 6265bis 4.2.1), has exactly a name of
    ours and '=', and ends at the next ';'. Names are compared byte by byte, quotes mean nothing, nothing is decoded. Of
    all fields together the first 64 KiB count, up to the last ';' in them. Fields that a server joined with ',' are not
    taken apart: a comma may stand in a neighbour's value, which would then be able to plant a cookie of our name.
    """
    found: list[tuple[str, str]] = []
    room = SCANNED_CHARS_MAX
    for field in header_fields:
        text = field if isinstance(field, str) else str(field, "latin-1")
        if len(text) > room:
            text = text[: max(text.rfind(";", 0, room), 0)]
        room -= len(text)
        for name in names:
            if name in text:
                found += _pairs(f";{text}", names)
                break
    return found[:FOUND_MAX]


def _pairs(text: str, names: tuple[str, ...]) -> list[tuple[str, str]]:
    starts = []
    for opening, name in _openings(names):
        at = text.find(opening)
        for _ in range(FOUND_MAX):  # what comes later than the fourth of one kind is not among the first four of all
            if at < 0:
                break
            starts.append((at + len(opening), name))
            at = text.find(opening, at + 1)
    return [(name, text[start:].partition(";")[0].strip(" \t")) for start, name in sorted(starts)[:FOUND_MAX]]


@lru_cache(maxsize=64)
def _openings(names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{before}{name}=", name) for name in dict.fromkeys(names) for before in ("; ", ";"))


def set_cookie(config: CookieConfig, value: str, max_age_s: int | None) -> str:
    """The value of a Set-Cookie header; `max_age_s` None is a cookie for as long as the browser runs."""
    age = "" if max_age_s is None else f"; Max-Age={int(min(max_age_s, LIFE_S_MAX))}"
    return f"{config.names[0]}={value}{_attributes(config)}{age}"


def delete_cookie(config: CookieConfig, name: str) -> str:
    """The value of a Set-Cookie header that removes the cookie `name`.

    Every attribute is repeated: a browser keeps a `__Host-`, `__Secure-` or partitioned cookie when the deletion lacks them.
    """
    return f"{name}={_attributes(config)}; Max-Age=0; Expires={_LONG_AGO}"


@lru_cache(maxsize=64)
def _attributes(config: CookieConfig) -> str:
    parts = [f"Path={config.path}", f"SameSite={config.samesite}"]
    if config.httponly:
        parts.insert(1, "HttpOnly")
    if config.domain is not None:
        parts.append(f"Domain={config.domain}")
    if config.secure:
        parts.append("Secure")
    if config.partitioned:
        parts.append("Partitioned")
    return "".join(f"; {part}" for part in parts)


class NamesOwners(Protocol):
    """What the rule looks at in the ID that a request came with."""

    @property
    def key(self) -> bytes: ...
    @property
    def master(self) -> str: ...
    @property
    def backup(self) -> str | None: ...


def should_issue(
    *,
    had: NamesOwners | None,
    key: bytes,
    master_tag: str,
    backup_tag: str | None,
    copies_acked: int | None,
    owners: int,
    cookie_age_s: float | None,
    persistent_max_age_s: int | None,
) -> bool:
    """Whether this response carries a Set-Cookie for the stored session `key`, owned by the nodes of the two tags.

    Not on ordinary writes: of parallel responses the last to arrive would otherwise put an old ID back after a login.
    `had` is the ID the request came with; the tags are made with the key of its `kid`, so that a new signing key alone
    changes nothing. `copies_acked` is None when nothing was written. A persistent cookie is renewed when a quarter of its
    life is over; one whose age is not known is not.
    """
    if had is None or had.key != key or (had.master, had.backup) != (master_tag, backup_tag):
        return True
    if copies_acked is not None and copies_acked < owners:
        return True
    if persistent_max_age_s is None or cookie_age_s is None:
        return False
    return cookie_age_s >= persistent_max_age_s * SLIDE_AT
