"""While hosts without clustersession serve the same users: the cluster decides, and every save goes to the old session too.

What such a host changes there is noticed by the contents of the last time that both were equal, and merged key by key. The old
session and its cookie are renewed as long as ours is used, so who clicks does not lose them; that they have run out is no logout.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..core.effects import Operation, Outside, Wait
from ..core.operations import Loaded, LoadOutcome, Unavailable
from ..core.record import Record, touch_interval
from ..core.values import decode_value, encode_value
from ..errors import Corrupt, LateWrite, SessionTooLarge, SessionUnavailable, SourceError, SourceRefused, ValueNotSupported
from ..sources.source import Legacy, LimitedSource
from .adopting import AdoptingVisit
from .mirrored import MIRROR, Mirror
from .pipeline import Visit
from .remembered import AGAIN_S, TRIES_AGAIN
from .stored import end_graces, end_session

if TYPE_CHECKING:
    from .adoption import Adoption
    from .cookies import Ticket
    from .engine import Engine
    from .session import RequestSession
    from .stored import Stored
    from .sync_driver import SyncDriver

log: Final = logging.getLogger("clustersession")


class Written(NamedTuple):
    """What was written to the old system: the cookie that it goes by, whether it is a new one, and when it or its session ends
    by itself (Unix seconds)."""

    cookie: str
    new: bool
    until: float | None


class MirroringVisit(AdoptingVisit):
    """A request in mode `mirror`, with a session of ours, one of before, both or none."""

    adopts = False

    def __init__(
        self,
        engine: Engine,
        adoption: Adoption,
        ticket: Ticket | None,
        cookies: AbstractSet[str],
        blocking: SyncDriver | None,
        session_type: type[RequestSession],
        *,
        adopts: bool,
    ) -> None:
        """`cookies`: the different old ones that the browser has sent."""
        self.adopts = adopts
        Visit.__init__(self, engine, ticket, blocking, session_type)
        self._adoption, self._brought = adoption, cookies
        self.old_cookie = next(iter(cookies)) if len(cookies) == 1 else None
        self._cookie = self.old_cookie or ""
        self._kept_under: str | None = None  # the old cookie of the session that is written to; None: a new one is begun
        self._mirror: Mirror | None = None
        self._sent_back: str | None = None  # the old cookie that goes out
        self._begun: str | None = None  # the same, if it was not there before
        self._is_unread = False  # there is an old session that may be another one
        self._is_removed = False  # the old session, as ours is empty
        self._behind = False  # the old session lacks something
        self._renews = False  # or it and its cookie would run out before ours

    # --- loading ---------------------------------------------------------------------------------------------------------

    def load_here(self) -> bool:
        return self._outcome is not None

    def load(self) -> Operation[None]:
        if self._outcome is not None:
            return
        if self.adopts:
            self._kept_under = self.old_cookie
            yield from AdoptingVisit.load(self)
        else:
            yield from Visit.load(self)
        if isinstance(self._outcome, Loaded) and not self._superseded:
            self._mirror = mirror = Mirror.of(self._outcome.record)
            # hosts in mode `on` write nothing back
            self._behind = mirror is None or mirror.is_behind(self._ours())
            if mirror is not None:
                yield from self._caught_up(mirror)
            elif not self.adopts:
                yield from self._taken_up(self._outcome.record)

    def _taken_up(self, record: Record) -> Operation[None]:
        """Back from mode `on`: an old session that is not this user's, so perhaps planted, is not written to."""
        cookie, adoption, engine = self.old_cookie, self._adoption, self._engine
        if cookie is None or adoption.over:
            return
        there = yield Outside(lambda: adoption.read(engine, cookie))
        self._is_unread = isinstance(there, Unavailable | SourceRefused) and not adoption.source.keyless
        if isinstance(there, Legacy):
            with suppress(ValueNotSupported, SessionTooLarge):
                if adoption.principal(engine, adoption.encoded(engine, there)) == record.principal:
                    self._kept_under = cookie

    def _caught_up(self, mirror: Mirror) -> Operation[None]:
        """Take over what hosts without clustersession have done to this session since both were equal."""
        source = self._adoption.source
        self.old_cookie = cookie = mirror.latest(self._brought) or self.old_cookie
        known = cookie is not None and mirror.knows(cookie)
        if cookie is not None and (source.keyless or mirror.is_last(cookie)):
            self._kept_under = cookie
        if self._adoption.over or (cookie is None and self._brought):
            return  # nobody knows what is there: nothing is taken over any more, or none of several cookies is one of ours
        if cookie is not None and known and (source.keyless or not mirror.is_last(cookie)):
            return
        there = None if cookie is None else (yield Outside(lambda: self._adoption.read(self._engine, cookie)))
        match there:
            case Unavailable() | SourceRefused():
                self._engine.count("mirror_failed")
                self._is_unread = self._kept_under is None
            case None if mirror.has_run_out(time()):
                self._kept_under, self._behind = None, True
            case None:
                self._engine.count("mirror_ended")
                self.session.end()  # logged out there
                self.ended_at = _a_moment_ago()
            case Legacy() if not source.keyless and cookie is not None and not known:
                yield from self._followed(cookie)  # logged in there, under another ID
            case Legacy():
                yield from self._merged(mirror, there)

    def _ours(self) -> dict[str, Any]:
        """Not what the app gets to see: this must not count as its look at them."""
        return _decoded(self.session.stored_items)

    def _followed(self, cookie: str) -> Operation[None]:
        """The one of before has ended or was given another ID, so ours ends too, once it is known what came after it."""
        before = self._stored
        self._cookie, self._kept_under, self._outcome, self._stored = cookie, cookie, None, None
        yield from AdoptingVisit.load(self)
        if isinstance(self._outcome, Unavailable):
            self._unknown(self._outcome)
            return
        if before is not None:
            with suppress(LateWrite):  # it has a new ID by now, whose next request finds out the same
                yield from end_session(self._engine, before.key, before.placement, anonymous=before.record.principal is None)
            yield from end_graces(self._engine, before.record)
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
        self._renews = write and self._is_to_be_renewed()
        return found or self._renews

    def _is_to_be_renewed(self) -> bool:
        """With a request that looks at the session only: others are answered without a cookie."""
        stored, mirror = self._stored, self._mirror
        if stored is None or self._sent or self._superseded or not self.session.accessed or self.session.ended:
            return False
        if self._behind or mirror is None:
            return mirror is not None or bool(self.session.stored_items)
        return self.slides and mirror.is_due(time(), touch_interval(stored.record.lifetime.idle))

    def carry_out(self) -> Operation[None]:
        if self._superseded or self._sent:
            yield from super().carry_out()
            return
        before, wanted = self._stored, bool(self._changes) or self.session.rotation is not None or self.session.ended
        ended = self.session.ended
        if self._changes or self._renews or (before is not None and not ended and not self._adoption.source.keyless):
            yield from self._written(None if ended else before, self._changes)
        try:
            yield from super().carry_out()
        except (LateWrite, SessionUnavailable):
            yield from self._taken_back()
            if wanted or self.session.locks or self.session.lifetime_change is not None:
                raise
            return  # nobody has asked for this save: it was ended, or cannot be reached, and what was read was read before
        moved = before is not None and self._stored is not None and self._stored.key != before.key
        old = None if self._adoption.source.keyless or ended else self.old_cookie
        if old is not None and old != self._sent_back and (moved or self._sent_back is not None):
            yield Outside(lambda: self._adoption.end(self._engine, old))

    def _taken_back(self) -> Operation[None]:
        """An old session that was begun for one of ours that could not be saved: it may have ended meanwhile."""
        begun, self._sent_back, self._begun = self._begun, None, None
        if begun is not None:
            yield Outside(lambda: self._adoption.end(self._engine, begun))

    def _written(self, before: Stored | None, changes: Mapping[str, bytes | None]) -> Operation[None]:
        """The old session gets what this one will hold; a new login, and whatever gets a new ID, gets another one."""
        session, engine, keyless = self.session, self._engine, self._adoption.source.keyless
        items = {key: data for key, data in {**session.stored_items, **changes}.items() if data is not None}
        if not items:
            if before is not None and not session.ends_when_empty:
                yield from self._removed(changes)
            return  # otherwise it will be ended, on both sides
        principal = self._adoption.principal(engine, items)
        moved = before is None or session.rotation is not None or principal != before.record.principal
        kept_under = None if moved else self._kept_under
        if self._is_unread and not moved:
            return
        values = _decoded(items)
        goes_out = kept_under is None or keyless or self._renews or self.life_key in changes
        written = yield Outside(lambda: self._write(kept_under, values, goes_out))
        if isinstance(written, SourceError):
            engine.count("mirror_failed")
            log.warning("a session is not written back: %s", written)
            return
        known = self._mirror if self._mirror is not None and not (moved and keyless) else Mirror((), {})
        self._mirror = mirror = known.written(written.cookie, values)
        if goes_out or written.new:
            self._mirror = mirror.sent(time(), written.until)
            self._sent_back, self._begun = written.cookie, written.cookie if written.new else None
        self._kept_under = written.cookie
        if changes or before is None or self._renews:
            self._changes = {**changes, MIRROR: self._mirror.encoded()}
        self._behind = False

    def _removed(self, changes: Mapping[str, bytes | None]) -> Operation[None]:
        """The old systems have no empty sessions."""
        old, self._is_removed, self._kept_under = self.old_cookie, True, None
        if self._mirror is not None:
            self._mirror, self._changes = None, {**changes, MIRROR: None}
        if old is not None:
            yield Outside(lambda: self._adoption.end(self._engine, old))

    def _write(self, cookie: str | None, values: Mapping[str, Any], goes_out: bool) -> Written | SourceError:
        source, now = self._adoption.source, time()
        try:
            sent = source.write(cookie, values, None, now)
            until = self._until(sent or cookie or "", now) if goes_out or sent else None
        except SourceError as error:
            return error
        return Written(sent or cookie or "", sent is not None, until)

    def _until(self, cookie: str, now: float) -> float | None:
        """When it is over, in the browser or in the old system, whichever is first."""
        source, legacy = self._adoption.source, None
        with suppress(SourceError):  # it is written all the same
            legacy = source.read(cookie, now)
        ends = None if legacy is None else legacy.expires
        default_s = source.lifetime_s if isinstance(source, LimitedSource) else None
        life_s = default_s if ends is None else ends - now
        known = [now + seconds for seconds in (life_s, self.max_age_s) if seconds is not None]
        return min(known, default=None)

    def _old_ends(self, record: Record) -> Operation[None]:
        """All of them, if none is known to be the one."""
        if self.old_cookie is None and self._brought:
            self.old_cookie, *others = sorted(self._brought)
            for cookie in others:
                yield Outside(partial(self._adoption.end, self._engine, cookie))
        yield from super()._old_ends(record)

    # --- the response ------------------------------------------------------------------------------------------------------

    def _cookies(self) -> tuple[str, ...]:
        cookies = super()._cookies()
        if self._is_removed and not self._deleted and self._brought:
            return (*cookies, self._engine.cookies.deleted(self._adoption.source.cookie_name))
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
