"""While hosts without clustersession serve the same users: the cluster decides, and every save goes to the old session too.

What such a host changes there is noticed by the contents of the last time that both were equal, and merged key by key.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import TYPE_CHECKING, Any, Final

from ..core.effects import Operation, Outside, Wait
from ..core.operations import Loaded, LoadOutcome, Unavailable
from ..core.record import Record
from ..core.values import HIDDEN, decode_value, encode_value
from ..errors import Corrupt, SourceError, SourceRefused, ValueNotSupported
from ..sources.source import Legacy
from .adopting import AdoptingVisit
from .adoption import AGAIN_S, TRIES_AGAIN
from .pipeline import Visit
from .stored import end_session

if TYPE_CHECKING:
    from .adoption import Adoption
    from .cookies import Ticket
    from .engine import Engine
    from .session import RequestSession
    from .stored import Stored
    from .sync_driver import SyncDriver

MIRROR: Final = f"{HIDDEN}mirror"
COOKIES_KEPT: Final = 8  # that we have sent ourselves: parallel responses overtake each other
log: Final = logging.getLogger("clustersession")


class Mirror:
    """What both sides held when they were last equal: the old cookies that we have sent, and a fingerprint for each key."""

    def __init__(self, cookies: tuple[bytes, ...], prints: Mapping[str, bytes]) -> None:
        self.cookies, self.prints = cookies, prints

    @classmethod
    def of(cls, record: Record) -> Mirror | None:
        _, data = record.items.get(MIRROR, (None, None))
        if data is None:
            return None
        try:
            found: Any = decode_value(data)
            cookies, prints = found
        except (Corrupt, TypeError, ValueError):
            return None
        return cls(tuple(cookies), prints)

    def written(self, cookie: str, values: Mapping[str, Any]) -> Mirror:
        """The next one: `cookie` now stands for `values`."""
        sent = (*(each for each in self.cookies if each != _print(cookie.encode())), _print(cookie.encode()))
        return Mirror(sent[-COOKIES_KEPT:], {key: print_of(value) for key, value in values.items()})

    def knows(self, cookie: str) -> bool:
        return _print(cookie.encode()) in self.cookies

    def changed(self, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
        """The keys that were changed there and not here: of a key that both have changed, ours stays."""
        return [key for key in {**theirs, **self.prints} if self._differs(key, theirs) and not self._differs(key, ours)]

    def is_behind(self, ours: Mapping[str, Any]) -> bool:
        return any(self._differs(key, ours) for key in {**ours, **self.prints})

    def _differs(self, key: str, values: Mapping[str, Any]) -> bool:
        return (print_of(values[key]) if key in values else None) != self.prints.get(key)

    def encoded(self) -> bytes:
        return encode_value((self.cookies, dict(self.prints)))


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


class MirroringVisit(AdoptingVisit):
    """A request in mode `mirror`, with a session of ours, one of before, both or none."""

    adopts = False

    def __init__(
        self,
        engine: Engine,
        adoption: Adoption,
        ticket: Ticket | None,
        cookie: str | None,
        blocking: SyncDriver | None,
        session_type: type[RequestSession],
        *,
        adopts: bool,
    ) -> None:
        self.adopts = adopts
        Visit.__init__(self, engine, ticket, blocking, session_type)
        self._adoption, self.old_cookie = adoption, cookie
        self._cookie = cookie or ""
        self._mirror: Mirror | None = None
        self._sent_back: str | None = None  # the old cookie that goes out
        self._behind = False  # the old session lacks something

    # --- loading ---------------------------------------------------------------------------------------------------------

    def load_here(self) -> bool:
        return self._outcome is not None

    def load(self) -> Operation[None]:
        if self._outcome is not None:
            return
        if self.adopts:
            yield from AdoptingVisit.load(self)
        else:
            yield from Visit.load(self)
        if isinstance(self._outcome, Loaded) and not self._superseded:
            self._mirror = Mirror.of(self._outcome.record)
            yield from self._caught_up()

    def _caught_up(self) -> Operation[None]:
        """Take over what hosts without clustersession have done to this session since both were equal."""
        mirror, cookie, source = self._mirror, self.old_cookie, self._adoption.source
        # hosts in mode `on` write nothing back
        self._behind = mirror is None or mirror.is_behind(self._ours())
        if mirror is None:
            return
        if cookie is not None and source.keyless and mirror.knows(cookie):
            return
        there = None if cookie is None else (yield Outside(lambda: self._adoption.read(self._engine, cookie)))
        match there:
            case Unavailable() | SourceRefused():
                self._engine.count("mirror_failed")
            case None:
                self._engine.count("mirror_ended")
                self.session.end()  # logged out there
                self.ended_at = _a_moment_ago()
            case Legacy() if not source.keyless and cookie is not None and not mirror.knows(cookie):
                yield from self._followed(cookie)  # logged in there, under another ID
            case Legacy():
                yield from self._merged(mirror, there)

    def _ours(self) -> dict[str, Any]:
        """Not what the app gets to see: this must not count as its look at them."""
        return _decoded(self.session.stored_items)

    def _followed(self, cookie: str) -> Operation[None]:
        """The one of before has ended or was given another ID, so ours ends too, once it is known what came after it."""
        before = self._stored
        self._cookie, self._outcome, self._stored = cookie, None, None
        yield from AdoptingVisit.load(self)
        if isinstance(self._outcome, Unavailable):
            self._unknown(self._outcome)
            return
        if before is not None:
            yield from end_session(self._engine, before.key, before.placement, anonymous=before.record.principal is None)
        if isinstance(self._outcome, Loaded):
            self._mirror = Mirror.of(self._outcome.record)
            self._behind = self._mirror is None

    def _unknown(self, outcome: Unavailable) -> None:
        """What was loaded is not the whole truth: the app gets to see nothing of it."""
        self._outcome, self._stored, self._behind = outcome, None, False
        if self._engine.anonymous:
            self.session.fill({})
        else:
            self.session.unload(self._demand)

    def _merged(self, mirror: Mirror, there: Legacy) -> Operation[None]:
        engine, session = self._engine, self.session
        theirs = self._adoption.values(there)
        try:
            data = {key: encode_value(value, key) for key, value in theirs.items()}
        except ValueNotSupported as error:
            engine.count("adoption_refused")
            log.warning("what was changed in a session of %s stays there: %s", self._adoption.source.name, error)
            return
        changed = mirror.changed(theirs, self._ours())
        if not engine.principal_keys.isdisjoint(changed):
            self.ended_at = _a_moment_ago()
            dead = yield from self._logged_out_since(there, data)
            if isinstance(dead, Unavailable):
                self._unknown(dead)
            if dead is not None:
                return
        for key in changed:
            if key in theirs:
                session[key] = theirs[key]
            elif key in session:
                del session[key]
        if changed:
            engine.count("mirror_merged")

    def _logged_out_since(self, there: Legacy, theirs: Mapping[str, bytes]) -> Operation[LoadOutcome | None]:
        """Whether it is a cookie from before a logout here that would bring the user back."""
        adoption, engine = self._adoption, self._engine
        principal = adoption.principal(engine, theirs)
        if principal is None or not adoption.source.keyless:
            return None
        dead = yield from adoption.ended_before(engine, principal, there)
        for _ in range(TRIES_AGAIN):
            if not isinstance(dead, Unavailable):
                break
            yield Wait(AGAIN_S)
            dead = yield from adoption.ended_before(engine, principal, there)
        return dead

    # --- saving ----------------------------------------------------------------------------------------------------------

    def pending(self, write: bool = True) -> bool:
        found = super().pending(write)
        return found or (self._behind and write and self._stored is not None and not self._sent)

    def carry_out(self) -> Operation[None]:
        if self._superseded or self._sent:
            yield from super().carry_out()
            return
        before, changes = self._stored, self._changes
        ended = self.session.ended
        if changes or self._behind or (before is not None and not ended and not self._adoption.source.keyless):
            yield from self._written(None if ended else before, changes)
        yield from super().carry_out()
        moved = before is not None and self._stored is not None and self._stored.key != before.key and not ended
        old = self._cookie_before
        if moved and old is not None and old != self._sent_back:
            yield Outside(lambda: self._adoption.end(self._engine, old))

    @property
    def _cookie_before(self) -> str | None:
        return None if self._adoption.source.keyless else self.old_cookie

    def _written(self, before: Stored | None, changes: Mapping[str, bytes | None]) -> Operation[None]:
        """The old session gets what this one will hold; a new login, and whatever gets a new ID, gets another one."""
        session, engine = self.session, self._engine
        items = {key: data for key, data in {**session.stored_items, **changes}.items() if data is not None}
        if not items:
            return  # it will be ended, on both sides
        principal = self._adoption.principal(engine, items)
        renewed = before is None or session.rotation is not None or principal != before.record.principal
        cookie = None if renewed else self.old_cookie
        values = _decoded(items)
        sent = yield Outside(lambda: self._write(cookie, values))
        if isinstance(sent, SourceError):
            engine.count("mirror_failed")
            log.warning("a session is not written back: %s", sent)
            return
        self._sent_back, caught_up, self._behind = sent, self._behind, False
        known = self._mirror if self._mirror is not None and not renewed else Mirror((), {})
        self._mirror = known.written(sent or cookie or "", values)
        if changes or before is None or caught_up:
            self._changes = {**changes, MIRROR: self._mirror.encoded()}

    def _write(self, cookie: str | None, values: Mapping[str, Any]) -> str | SourceError | None:
        try:
            return self._adoption.source.write(cookie, values, None, time())
        except SourceError as error:
            return error

    # --- the response ------------------------------------------------------------------------------------------------------

    def _cookies(self) -> tuple[str, ...]:
        cookies = super()._cookies()
        if self._sent_back is None:
            return cookies
        return (*cookies, self._adoption.set_cookie(self._engine, self._sent_back, self.max_age_s))


def _decoded(items: Mapping[str, bytes]) -> dict[str, Any]:
    """Without what this release does not understand: it stays as it is, here."""
    found = {}
    for key, data in items.items():
        with suppress(Corrupt):
            found[key] = decode_value(data)
    return found


def _a_moment_ago() -> float:
    """When somebody has logged out elsewhere, at the latest, as cookies count: who has logged in since must stay."""
    return float(int(time()) - 1)
