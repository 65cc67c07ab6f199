"""What a session and that of before held when they were last equal, and for how long the latter can be there.

Kept with the session itself, in an item that no app sees.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ..core.cookie import SLIDE_AT
from ..core.record import Record
from ..core.values import HIDDEN, decode_value, encode_value
from ..errors import Corrupt

MIRROR: Final = f"{HIDDEN}mirror"
COOKIES_KEPT: Final = 8  # that we have sent ourselves: parallel responses overtake each other
WHOLE_S: Final = 2.0  # cookies and many a store count in whole seconds


class Mirror:
    """What both sides held when they were last equal: the old cookies that we have sent, the last one at the end, and a
    fingerprint for each key. That cookie was sent at `at`, and it or its session ends by itself at `until` (Unix seconds; None:
    not before ours)."""

    def __init__(
        self, cookies: tuple[bytes, ...], prints: Mapping[str, bytes], at: float = 0.0, until: float | None = None
    ) -> None:
        self.cookies, self.prints, self.at, self.until = cookies, prints, at, until

    @classmethod
    def of(cls, record: Record) -> Mirror | None:
        _, data = record.items.get(MIRROR, (None, None))
        if data is None:
            return None
        try:
            found: Any = decode_value(data)
            cookies, prints, at, until = found
        except (Corrupt, TypeError, ValueError):
            return None
        return cls(tuple(cookies), prints, at, until)

    def written(self, cookie: str, values: Mapping[str, Any]) -> Mirror:
        """The next one: `cookie` now stands for `values`."""
        sent = (*(each for each in self.cookies if each != _print(cookie.encode())), _print(cookie.encode()))
        return Mirror(sent[-COOKIES_KEPT:], {key: print_of(value) for key, value in values.items()}, self.at, self.until)

    def sent(self, at: float, until: float | None) -> Mirror:
        """The next one: the last cookie goes out now."""
        return Mirror(self.cookies, self.prints, at, until)

    def knows(self, cookie: str) -> bool:
        return _print(cookie.encode()) in self.cookies

    def is_last(self, cookie: str) -> bool:
        return self.cookies[-1:] == (_print(cookie.encode()),)

    def latest(self, cookies: Iterable[str]) -> str | None:
        """That one of `cookies` which we have sent last, if we have sent any of them."""
        known = {print_: cookie for cookie in cookies if (print_ := _print(cookie.encode())) in self.cookies}
        return next((known[each] for each in reversed(self.cookies) if each in known), None)

    def has_run_out(self, now: float) -> bool:
        """Whether the old session may be missing without anybody having ended it."""
        return self.until is not None and now >= self.until - WHOLE_S

    def is_due(self, now: float, every_s: float) -> bool:
        """Whether the old session and its cookie should be renewed: after `every_s`, or a part of their life."""
        life_s = every_s if self.until is None else SLIDE_AT * (self.until - self.at)
        return now - self.at >= min(every_s, max(life_s, WHOLE_S / 2))

    def changed(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
        """The keys that were changed there and not here: of a key that both have changed, ours stays."""
        return [key for key in {**theirs, **self.prints} if self._differs(key, theirs) and not self._differs(key, ours)]

    def is_behind(self, ours: Mapping[str, Any]) -> bool:
        return any(self._differs(key, ours) for key in {**ours, **self.prints})

    def _differs(self, key: str, values: Mapping[str, Any]) -> bool:
        return (print_of(values[key]) if key in values else None) != self.prints.get(key)

    def encoded(self) -> bytes:
        return encode_value((self.cookies, dict(self.prints), self.at, self.until))


def print_of(value: Any) -> bytes:
    """Of a value as the poorest of the old systems gives it back: what became a list there was no change of a tuple."""
    return _print(json.dumps(_plain(value), sort_keys=True).encode())


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key if isinstance(key, str) else str(_plain(key)): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case set() | frozenset():
            return sorted(json.dumps(_plain(item), sort_keys=True) for item in value)
        case datetime():  # to the second, in UTC: as Flask's cookie has it
            moment = value.replace(microsecond=0, tzinfo=value.tzinfo or UTC)
            return moment.astimezone(UTC).isoformat()
        case None | bool() | int() | float() | str():
            return value
    return repr(value)


def _print(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()
