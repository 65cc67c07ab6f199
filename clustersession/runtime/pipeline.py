"""One request of the app, from its Cookie header to its Set-Cookie, for every framework. Does no IO: its multi-step parts are
operations that a driver runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..core.effects import Operation
from ..core.operations import Ended, Loaded, LoadOutcome, Target, Unavailable, load
from ..core.record import ROTATED, Key, Lifetime, Record
from ..core.session_id import SessionId, store_key
from ..core.values import HIDDEN
from ..errors import ChangeAfterResponse, LateWrite, SessionUnavailable
from .budget import Budget
from .headers import LOOKED_AT, NOTHING, SessionHeaders
from .issuing import count_sent, is_due, issued, least_age
from .logins import admitted, made_room, with_device
from .outages import RECENTLY_LOST
from .session import RequestSession
from .stored import (
    Principal,
    Stored,
    create_session,
    end_emptied,
    end_graces,
    end_session,
    end_unseen,
    lifetime_within,
    new_token,
    patch,
    refused_late,
    rotate_session,
    save_session,
    touch_session,
)
from .unloaded import note_unloaded

if TYPE_CHECKING:
    from .cookies import Ticket
    from .engine import Engine
    from .sync_driver import SyncDriver

GRACE_S: Final = 10.0  # parallel requests of a login may read the anonymous state as it was for so long


class Visit:
    """The session of one request, its load and its saves.

    `load` runs once, before or when the app looks at `session`. `save` may run several times; `headers` once, when the
    response starts; a `save` after that keeps what the stored session can still take and raises for the rest. With
    `blocking` the session loads itself. `max_age_s` is that of a persistent cookie, None: it lives as long as the browser.
    """

    # What most requests leave as it is costs them nothing: it is the class's until it is set.
    _outcome: LoadOutcome | None = None
    _stored: Stored | None = None
    _changes: Mapping[str, bytes | None] = {}
    _reserved: bytes | None = None
    _superseded = _sent = _deleted = _old_over = False
    _adopted_as: Key = b""  # of the session that an old cookie stands for
    must_exist = False  # store it even if it is empty
    reissue = False  # send the cookie again: its life has changed
    life_key: str | None = None  # a change of this value changes the cookie's life
    adopts = False  # there may be a session of before
    slides = True  # a persistent cookie is sent again before it runs out
    refused: Sequence[bytes | str] = ()  # the Cookie fields, if they hold no valid ID
    ended_at: float | None = None  # Unix s: it was ended elsewhere
    old_cookie: str | None = None  # of the system that sessions are adopted from
    origin: Mapping[str, Any] = {}  # WSGI environ, Django's META or ASGI scope: from where a login comes

    def __init__(
        self,
        engine: Engine,
        ticket: Ticket | None,
        blocking: SyncDriver | None = None,
        session_type: type[RequestSession] = RequestSession,
    ) -> None:
        config = engine.config
        self._engine, self.ticket, self._blocking = engine, ticket, blocking
        self.budget = Budget(config.timeouts.budget_s)
        self.max_age_s = config.cookie.max_age_s
        self.session = session_type(self._demand, config.limits, engine.undecodable)
        self.session.engine = engine
        if ticket is None and not self.adopts:
            self.session.fill({})

    # --- loading ---------------------------------------------------------------------------------------------------------

    def _demand(self) -> None:
        """The app looks at a session that is not loaded. Raises `SessionUnavailable`, at once if it was tried before."""
        if self._outcome is None and self._blocking is not None and not self.load_here():
            self._blocking.run(self.load(), self.budget)
        if self._outcome is None:
            raise RuntimeError("the session was looked at before it was loaded; in async code await its load first")
        if type(self._outcome) is Unavailable and not self._engine.anonymous:
            raise SessionUnavailable(self._outcome.why)

    def load_here(self) -> bool:
        """Fill `session` from this host's own store, if this host may answer alone, whomever the ID names. Needs no driver."""
        engine, ticket = self._engine, self.ticket
        if self._outcome is not None or ticket is None:
            return not self.adopts or self._outcome is not None
        record = engine.host.vouched(ticket.sid.key, ticket.sid.floor)
        if record is None:
            return False
        self._outcome = outcome = Loaded(record)
        self._loaded(outcome, ticket.sid, engine.now())
        return True

    def load(self) -> Operation[None]:
        """Fill `session`, without network if this host may answer alone. Raises nothing: what is missing shows on access."""
        if self._outcome is not None or self.ticket is None:
            return
        engine, sid = self._engine, self.ticket.sid
        now = engine.now()
        if engine.outages.is_lost(sid.key, now):
            outcome: LoadOutcome = RECENTLY_LOST
        else:
            cluster = engine.cluster()
            master, backup = self.ticket.owners(cluster.view, engine.host, engine.ring())
            over = engine.outages.patience_over(sid.key, now)
            target = Target(sid.key, master, backup, sid.backup is None, sid.floor, least_age(sid.born), over)
            outcome = yield from load(cluster, target)
        self._outcome = outcome
        if isinstance(outcome, Loaded):
            self._loaded(outcome, sid, now)
        else:
            self._not_loaded(outcome, now, sid)

    def _loaded(self, outcome: Loaded, sid: SessionId, now: float) -> None:
        engine, record = self._engine, outcome.record
        if outcome.superseded:
            self._superseded = True
        self._stored = stored = Stored(sid.token, sid.key, record)
        self.session.fill(engine.items_of(sid.key, record), sid.handle, stored)
        engine.outages.answered(sid.key)

    def _not_loaded(self, outcome: LoadOutcome, now: float, sid: SessionId) -> None:
        note_unloaded(self._engine, sid, outcome, now)
        if not isinstance(outcome, Unavailable) or self._engine.anonymous:
            self.session.fill({})

    # --- saving ----------------------------------------------------------------------------------------------------------

    def pending(self, write: bool = True) -> bool:
        """Whether there is anything to save, for `carry_out`: for nearly every read there is not, and no driver is needed.

        Without `write` only an end and a rotation count (as after an error in frameworks that then drop changes). Raises
        `ValueNotSupported`.
        """
        session, stored = self.session, self._stored
        if not session.accessed or not session.loaded:
            return False
        self._changes = changes = session.changes() if write else {}
        self.must_exist = self.must_exist and write
        if changes or session.ended or session.rotation is not None or session.lifetime_change is not None or self.must_exist:
            return True
        if session.locks:
            return True  # to be given up
        unused = stored is None or self._superseded or self._sent or stored.copies is not None
        return not unused and stored is not None and stored.untouched_for(self._engine.now())

    def save(self, write: bool = True) -> Operation[None]:
        """Store what the app has changed since the last save: `pending` and `carry_out` in one."""
        if self.pending(write):
            yield from self.carry_out()

    def carry_out(self) -> Operation[None]:
        """Store what `pending` has found. Raises `SessionUnavailable`, `LateWrite`, `SessionTooLarge`, `ValueNotSupported` and
        `ChangeAfterResponse`."""
        session, changes = self.session, self._changes
        if session.ended:
            yield from self._end()
        stored = self._stored
        if self._superseded:
            yield from self._log_in_again(changes)
        elif stored is not None:
            if changes or session.rotation is not None or session.lifetime_change is not None or session.locks:
                yield from self._keep(stored, changes)
            else:
                yield from touch_session(self._engine, stored)
        elif changes or self.must_exist:
            yield from self._create(changes)
        elif session.ended:
            session.saved({}, None)

    def _end(self) -> Operation[None]:
        stored, ticket = self._stored, self.ticket
        if self._superseded:
            self._refuse_late({"": None})
        if stored is not None:
            self._deleted = True
            try:
                yield from end_session(self._engine, stored.key, stored.placement, anonymous=stored.record.principal is None)
            except LateWrite:  # another request has given it a new ID, whose cookie is on its way
                self._deleted = False
                raise
            yield from self._old_ends(stored.record)
        elif type(self._outcome) is Unavailable and not self._deleted:
            self._deleted = ticket is not None
            yield from end_unseen(self._engine, ticket, self.old_cookie)
        self._deleted = self._deleted or ticket is None
        self._old_over, self._stored = True, None

    def _old_ends(self, record: Record) -> Operation[None]:
        """What it was before goes with it: the session of the old system, and what a grace shows under former IDs."""
        adoption = self._engine.adoption
        if adoption is not None:
            yield from adoption.ended(self._engine, self.old_cookie, record, self.ended_at)
        yield from end_graces(self._engine, record)
        self._old_over = True

    def _log_in_again(self, changes: Mapping[str, bytes | None]) -> Operation[None]:
        """A change of a session that was rotated a moment ago is too late, unless it is a login: the answer of the one
        before was lost on its way to the browser. It gets a session of its own, with what the old one shows."""
        assert self._stored is not None
        if not self._logs_in(changes):
            self._refuse_late(changes)
            return
        nobody = self._stored.record.principal is None  # else what it shows is another user's
        before = self._engine.items_of(self._stored.key, self._stored.record) if nobody else {}
        self._superseded, self._stored = False, None
        yield from self._create({**before, **changes})

    def _logs_in(self, changes: Mapping[str, bytes | None]) -> bool:
        keys = self._engine.principal_keys
        return not keys.isdisjoint(changes) and self.session.principal(self._engine.config.principal_keys) is not None

    def _keep(self, stored: Stored, changes: Mapping[str, bytes | None]) -> Operation[None]:
        engine, session = self._engine, self.session
        former = stored.record.principal
        principal = former if engine.principal_keys.isdisjoint(changes) else session.principal(engine.config.principal_keys)
        rotation = session.rotation
        ends = rotation is None and session.ends_with(changes) and not self._sent
        if ends and (yield from end_emptied(engine, stored)):
            self._stored, self._deleted = None, True
            yield from self._old_ends(stored.record)
            session.saved(changes, None)
        elif rotation is not None or principal != former:
            yield from self._rotate(stored, changes, principal, rotation == "grace")
        else:
            self._check(changes)
            lifetime = self._lifetime(stored.record.created)
            yield from save_session(engine, stored, patch(engine, changes, lifetime, session))
            self._wrote(stored, changes)

    def _create(self, changes: Mapping[str, bytes | None]) -> Operation[None]:
        engine = self._engine
        outcome = self._outcome
        if type(outcome) is Unavailable and not self._deleted:
            raise SessionUnavailable(outcome.why)  # policy "anonymous": it may be read as empty, not written
        late = type(outcome) is Ended and outcome.reason == ROTATED and outcome.ago < GRACE_S
        if late and not self._logs_in(changes):
            self._refuse_late(changes)
        self._refuse_if_sent("a new session was begun")
        self.session.check_expected()
        self._check(changes)
        now = engine.now()
        who = self.session.principal(engine.config.principal_keys)
        lifetime = self._lifetime(now) or engine.lifetime(now)
        oldest = yield from admitted(engine, who)
        first = with_device(engine, patch(engine, changes, None), who, self.origin)
        principal = Principal(who, None if who is None else now)
        self._stored = stored = yield from create_session(engine, self._token(), first, principal, lifetime)
        yield from made_room(engine, oldest)
        self._wrote(stored, changes)

    def _rotate(self, stored: Stored, changes: Mapping[str, bytes | None], principal: str | None, grace: bool) -> Operation[None]:
        engine = self._engine
        self._refuse_if_sent("the session was given a new ID")
        self._check(changes)
        record = stored.record
        auth_time = record.auth_time
        if principal != record.principal or self.session.login_refreshed:
            auth_time = None if principal is None else engine.now()
        leaves = record.principal not in (None, principal)
        graced = not leaves and (grace or principal != record.principal)
        change = patch(engine, changes, self._lifetime(record.created), self.session)
        newly = principal if principal != record.principal else None
        oldest = yield from admitted(engine, newly)
        change, who = with_device(engine, change, newly, self.origin), Principal(principal, auth_time)
        self._stored = stored = yield from rotate_session(engine, stored, self._token(), change, who, GRACE_S if graced else None)
        if leaves:
            yield from self._old_ends(record)
        yield from made_room(engine, oldest)
        self._wrote(stored, changes)

    def _wrote(self, stored: Stored, changes: Mapping[str, bytes | None]) -> None:
        visible = {key: data for key, data in changes.items() if not key.startswith(HIDDEN)}
        self.session.saved(visible, stored.key.hex())
        self.session.kept_in(stored)
        self.must_exist = False
        self.reissue = self.reissue or self.life_key in changes

    def reserve(self) -> str:
        """The handle of the next new ID of this request, for apps that ask for it before it is stored."""
        self._reserved = self._reserved or new_token(self._engine)
        return store_key(self._reserved).hex()

    def withdraw(self) -> None:
        """Nobody will have the reserved ID: what it was for has ended."""
        self._reserved, self.must_exist = None, False

    @property
    def reserved(self) -> str | None:
        return None if self._reserved is None else self.reserve()

    def _token(self) -> bytes:
        token, self._reserved = self._reserved or new_token(self._engine), None
        return token

    def _check(self, changes: Mapping[str, bytes | None]) -> None:
        if changes and self.session.check_limits(changes) > self._engine.config.limits.session_bytes_warn:
            self._engine.count("session_large")

    def _lifetime(self, began: float) -> Lifetime | None:
        change = self.session.lifetime_change
        if change is None:
            return None
        self.reissue = True
        return lifetime_within(self._engine, change, began)

    def _refuse_late(self, changes: Mapping[str, bytes | None]) -> None:
        session = self.session
        if changes or session.rotation is not None or session.lifetime_change is not None:
            refused_late(self._engine, self._adopted_as if self.ticket is None else self.ticket.sid.key)
            raise LateWrite(ROTATED)

    def _refuse_if_sent(self, what: str) -> None:
        if self._sent:
            raise ChangeAfterResponse(
                f"{what} when the response had been started, so its cookie can no longer be sent; do it before the first byte"
            )

    # --- the response ------------------------------------------------------------------------------------------------------

    def headers(self, is_plain: Callable[[], bool] | None = None) -> SessionHeaders:
        """What goes out with the response that starts now. From here on no new ID can be given. `is_plain`: whether the browser
        seems to have asked over plain HTTP, if that is known."""
        self._sent = True
        if not self.session.accessed:
            return NOTHING
        cookies = self._cookies()
        if cookies and self._stored is not None:
            count_sent(self._engine, self.ticket, self._stored, is_plain)
        return SessionHeaders(cookies, vary=True) if cookies else LOOKED_AT

    def _cookies(self) -> tuple[str, ...]:
        stored, ticket, cookies = self._stored, self.ticket, self._engine.cookies
        if stored is None:
            return self._deletion()
        if self._superseded or not (self.reissue or is_due(cookies, ticket, stored, self.max_age_s if self.slides else None)):
            return ()
        return issued(cookies, ticket, stored, self.max_age_s)

    def _deletion(self) -> tuple[str, ...]:
        if not self._deleted:
            return ()
        cookies, adoption = self._engine.cookies, self._engine.adoption
        deletions = cookies.deletions(self.ticket, self.refused)
        if adoption is None or self.old_cookie is None or not self._old_over:  # what may live on can be logged out once more
            return deletions
        return (*deletions, cookies.deleted(adoption.source.cookie_name))

    def refusal_headers(self) -> SessionHeaders:
        """What goes out with the answer that replaces the app's: the deletion of a cookie whose session was to end."""
        self._sent = True
        return SessionHeaders(self._deletion(), vary=True)

    @property
    def unavailable(self) -> bool:
        """Whether the session was looked for, and nobody who may hold it gave an answer."""
        return isinstance(self._outcome, Unavailable)

    def check_answer(self, status: int) -> None:
        """Raises `SessionUnavailable` for the 500 that frameworks make of that error when the app lets it pass."""
        if status == 500 and self.unavailable and self.session.accessed and not self.session.loaded:
            raise SessionUnavailable("no owner gave an answer")

    @property
    def id_text(self) -> str | None:
        """The ID as a cookie would carry it: for who makes sessions outside of any request."""
        stored = self._stored
        if stored is None or not stored.token:
            return None
        return self._engine.cookies.id_text(stored.token, stored.owners, stored.floor)

    def start(self) -> None:
        """The response has started, or there is none. Nobody waits for this request any more: it may wait for peers anew."""
        self._sent = True
        self.budget = Budget(self._engine.config.timeouts.budget_s)

    def close(self) -> None:
        """The request is over: a later change raises `ChangeAfterResponse`. A first look still loads."""
        self.session.close()
        self.origin = {}  # nobody logs in any more, and what was never loaded is kept for a while by the cycle of the two
