"""What a source of sessions of before has to offer: any library's, of which clustersession takes over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable


class Legacy(NamedTuple):
    """A session as the old system keeps it. Times are Unix seconds.

    `items` are plain values, without the library's own bookkeeping. `id` names it in the old store; None where the cookie
    is the session itself, so that several valid cookies of one session may be about.

    `expires` may be later after each use, as limits of the old system's; what the session itself says, or what is fixed from its
    beginning on, is `idle_s` and `deadline`, which go on here.
    """

    items: dict[str, Any]
    id: bytes | None
    stamped: float | None = None  # when it was written, where that is known
    created: float | None = None  # None: the age of the login is unknown too, so that it never counts as a fresh one
    expires: float | None = None  # when the old system ends it, as it is now; None: never, or not known
    persistent: bool = False  # the old cookie outlives the browser
    idle_s: float | None = None  # it ends after so many seconds without a request; None: as the app's limits are
    deadline: float | None = None  # it ends then, however much it is used


class Source(Protocol):
    """All of it blocks, and may be called from any thread."""

    name: str  # for logs and counters
    cookie_name: str
    keyless: bool  # the cookie is the session itself

    def read(self, cookie: str, now: float) -> Legacy | None:
        """The session, or None for what the old system would not accept: unknown, forged, expired, garbage.

        Raises `SourceUnavailable` if its store gives no answer, `SourceRefused` for a value that is not taken over (a pickle of
        a type off the list); such a session stays with the old store.
        """
        ...

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        """Keep this state under the same old session (None, or a dead one: a new one). The cookie to set, if it is another
        one than the browser has. Raises `SourceUnavailable`, and `SourceRefused` for values that the old system cannot hold."""
        ...

    def end(self, cookie: str) -> None:
        """It is logged out. Nothing to do where the cookie is the session itself. Raises `SourceUnavailable`."""
        ...


@runtime_checkable
class LimitedSource(Source, Protocol):
    """A source that cannot say of each session when the old system ends it, but for how long one lives there."""

    @property
    def lifetime_s(self) -> float:
        """From its last write on."""
        ...


class Page(NamedTuple):
    """Some of the old cookies, and from where a later listing goes on after them; "" after the last."""

    cookies: tuple[str, ...]
    cursor: str


@runtime_checkable
class ListedSource(Source, Protocol):
    """A source whose sessions can be listed, so that `clustersession import` can take them all over."""

    def pages(self, cursor: str = "") -> Iterator[Page]:
        """The cookies of all old sessions that are there all the time, from `cursor` (of an earlier listing; "": all). One may
        come twice, and some may be over. A cursor is kept in a file, so it should not be enough to guess a cookie from.

        Raises `SourceUnavailable`; a listing that has raised is over, and another one goes on from the last page's cursor.
        Raises `ConfigError`, at once, if this store cannot be listed.
        """
        ...


@runtime_checkable
class NamedSource(Source, Protocol):
    """A source that can tell which session a cookie names when its store is not there any more."""

    def id_of(self, cookie: str) -> bytes | None:
        """`Legacy.id` of the session that this cookie names, if there is one; None for what names none, or is forged."""
        ...
