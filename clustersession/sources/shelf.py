"""The old system's store, as far as sources use it: bytes under a key, with a time at which they end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol, runtime_checkable

from ..errors import SourceUnavailable

Errors = tuple[type[Exception], ...]
PAGE: Final = 100
_CURSOR_CHARS: Final = 8


class Kept(NamedTuple):
    """What stands under a key. Times are Unix s; `expires` None: it has no end of its own."""

    data: bytes
    expires: float | None
    stamped: float | None = None


class Shelf(Protocol):
    """One store of the old system. Every method blocks, and raises `SourceUnavailable` when the store gives no answer."""

    kind: str

    def get(self, key: str, now: float) -> Kept | None:
        """What is there, also if it has expired meanwhile; None for nothing."""
        ...

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """Keep `data` until `expires`: if `new` only where nothing is, otherwise only where something is, so that no write
        brings back what was ended meanwhile. Whether it is kept."""
        ...

    def drop(self, key: str) -> None:
        """Nothing is there from now on."""
        ...


@runtime_checkable
class ListedShelf(Shelf, Protocol):
    """A store that can say what is in it."""

    def keys(self, prefix: str, cursor: str) -> Iterator[tuple[list[str], str]]:
        """In steps: keys that begin with `prefix`, and where a later listing goes on ("": it was the last). A key may come twice.
        Raises `SourceUnavailable`."""
        ...


def after(key: str, prefix: str) -> str:
    """A cursor for keys in order that stands a little before `key`, and does not give it away."""
    return key[: len(prefix) + _CURSOR_CHARS]


def told(error: Exception) -> str:
    """What an error may say in a log: the name of a file may hold the key of a live session."""
    text = (error.strerror or "") if isinstance(error, OSError) and error.filename is not None else str(error)
    return f"{type(error).__name__}: {text}"


@contextmanager
def answers(kind: str, errors: Errors) -> Iterator[None]:
    """What the client raises when its server does not answer, as `SourceUnavailable`."""
    caught: Errors = (*errors, OSError)
    try:
        yield
    except caught as error:
        raise SourceUnavailable(
            f"the old system's store ({kind}) gives no answer: {told(error)}. Sessions that are only there wait until it does"
        ) from error


def seconds_left(expires: float, now: float) -> float:
    """At least a second: a store takes none for forever."""
    return max(1.0, expires - now)
