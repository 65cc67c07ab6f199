"""Sessions whose cookie is a key: the state is in the old system's store.

What is written goes to a session that is there, or under a new key from here: never under one that a browser brings and the
store does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from ..errors import ConfigError, SourceRefused, SourceUnavailable
from .cookies import UNWRITABLE
from .forms import Form, Opened
from .shelf import Kept, ListedShelf, Shelf
from .signing import Signer
from .source import Legacy, Page

_ATTEMPTS: Final = 3


class Ids(NamedTuple):
    """The IDs of one library: what they look like, how a new one is made, and what signs them in the cookie, if anything does."""

    pattern: re.Pattern[str]
    new: Callable[[], str]
    signer: Signer | None = None

    def of_cookie(self, cookie: str) -> str | None:
        """The ID in a cookie, or None if the library would not have made it."""
        if self.signer is None:
            text = cookie
        else:
            signed = self.signer.unsign(cookie)
            text = "" if signed is None else signed.decode("ascii")
        return text if self.pattern.fullmatch(text) else None

    def to_cookie(self, each: str) -> str:
        return each if self.signer is None else self.signer.sign(each.encode("ascii"))


def unlisted(name: str, why: str) -> ConfigError:
    """These sessions cannot be imported."""
    remedy = "They are taken over when their users come: keep the old store until the last of them has expired."
    return ConfigError("import", f"the sessions of {name} cannot be listed, as {why}", remedy)


class KeyedSource:
    """Sessions of one library in one store, under `prefix` and their ID. `lifetime_s` is for those that are written without an
    end."""

    keyless = False

    def __init__(
        self, name: str, cookie_name: str, shelf: Shelf, form: Form, ids: Ids, *, prefix: str = "", lifetime_s: float
    ) -> None:
        self.name, self.cookie_name = f"{name}-{shelf.kind}", cookie_name
        self._shelf, self._form, self._ids, self._prefix, self._lifetime_s = shelf, form, ids, prefix, lifetime_s

    def read(self, cookie: str, now: float) -> Legacy | None:
        """The session that the cookie names. Raises `SourceUnavailable` and `SourceRefused`."""
        key = self._key(cookie)
        found = None if key is None else self._opened(key, now)
        if key is None or found is None:
            return None
        kept, opened = found
        stamped = kept.stamped if opened.stamped is None else opened.stamped
        own = self._own_limits(opened, kept, now)
        return Legacy(opened.items, key.encode(), stamped, opened.created, kept.expires, opened.persistent, *own)

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        """Keep this state until `expires` (Unix s; None: for the lifetime). The cookie to set if a new session had to be begun.

        Raises `SourceUnavailable`, and `SourceRefused` for values that the store cannot hold and for a session that is refused
        when it is read.
        """
        key = None if cookie is None else self._key(cookie)
        found = None if key is None else self._opened(key, now)
        end = self._end(items, now) if expires is None else expires
        if key is not None and found is not None:
            again = self._end_again(*found, items, now) if expires is None else expires
            if self._put(key, self._encoded(items, found[1], now, again), again, now, new=False):
                return None
        data = self._encoded(items, None, now, end)
        for _ in range(_ATTEMPTS):
            new = self._ids.new()
            if self._put(self._prefix + new, data, end, now, new=True):
                return self._ids.to_cookie(new)
        raise SourceUnavailable(f"the old system's store ({self.name}) keeps no new session; it may be full")

    def end(self, cookie: str) -> None:
        """The session that the cookie names is no longer there. Raises `SourceUnavailable`."""
        key = self._key(cookie)
        if key is not None:
            self._drop(key)

    def id_of(self, cookie: str) -> bytes | None:
        """The key in the store, which is not asked."""
        key = self._key(cookie)
        return None if key is None else key.encode()

    def pages(self, cursor: str = "") -> Iterator[Page]:
        """The cookies of what is stored. Raises `ConfigError` where the store cannot be listed, and `SourceUnavailable`."""
        if not isinstance(self._shelf, ListedShelf):
            raise unlisted(self.name, getattr(self._shelf, "unlisted", "its store has no way to be listed"))
        return self._pages(self._shelf, cursor)

    def _pages(self, shelf: ListedShelf, cursor: str) -> Iterator[Page]:
        for keys, following in shelf.keys(self._prefix, cursor):
            found = dict.fromkeys(key.removeprefix(self._prefix) for key in keys)
            yield Page(tuple(self._ids.to_cookie(each) for each in found if self._ids.pattern.fullmatch(each)), following)

    def _key(self, cookie: str) -> str | None:
        found = self._ids.of_cookie(cookie)
        return None if found is None else self._prefix + found

    def _opened(self, key: str, now: float) -> tuple[Kept, Opened] | None:
        kept = self._shelf.get(key, now)
        if kept is None:
            return None
        try:
            opened = self._form.decode(kept.data)
        except ValueError:
            return None
        kept = kept._replace(expires=self._expires(kept, opened))
        return None if kept.expires is not None and kept.expires <= now else (kept, opened)

    def _encoded(self, items: Mapping[str, Any], before: Opened | None, now: float, expires: float) -> bytes:
        try:
            return self._form.encode(items, before, now, expires)
        except UNWRITABLE as error:
            raise SourceRefused(f"{self.name} cannot hold this session: {error}") from None

    def _end(self, items: Mapping[str, Any], now: float) -> float:
        """Of a session that is written now, as the library would say."""
        return now + self._lifetime_s

    def _end_again(self, kept: Kept, opened: Opened, items: Mapping[str, Any], now: float) -> float:
        """Of one that is there, and is written over."""
        return self._end(items, now)

    def _expires(self, kept: Kept, opened: Opened) -> float | None:
        return kept.expires

    def _own_limits(self, opened: Opened, kept: Kept, now: float) -> tuple[float | None, float | None]:
        """`Legacy.idle_s` and `Legacy.deadline`."""
        return None, None

    def _put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        return self._shelf.put(key, data, expires, now, new=new)

    def _drop(self, key: str) -> None:
        self._shelf.drop(key)
