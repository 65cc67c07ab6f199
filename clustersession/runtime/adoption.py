"""Sessions of before: what the cookie of another system amounts to here, and what ends with one of ours (design.md 10)."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Raw
from msgspec.structs import replace as replace_struct

from ..core.cookie import scan, set_cookie
from ..core.effects import Operation, Outside, Wait
from ..core.keyring import KeyRing
from ..core.operations import (
    Claim,
    Ended,
    Loaded,
    LoadOutcome,
    Lost,
    Saved,
    Unavailable,
    adopt,
    adopted_before,
    first_record,
    found_anywhere,
    kept,
    save,
)
from ..core.record import WAITING, Lifetime, Record, live_items
from ..core.session import Session
from ..core.session_id import TOKEN_BYTES, store_key
from ..core.values import HIDDEN, check_depth, decode_value, encode_value
from ..errors import ConfigError, SessionTooLarge, SessionUnavailable, SourceRefused, SourceUnavailable, ValueNotSupported
from ..sources.source import Legacy, NamedSource, Source
from .old_lives import OwnLimits, created_at, ending, logged_in_at
from .remembered import AGAIN_S, ALL_DEVICES, TRIES_AGAIN, Memory, device_named
from .stored import new_token, patch

if TYPE_CHECKING:
    from .engine import Engine

DEVICE: Final = "_id"  # Flask-Login's hash of the address and the browser
ADOPTED_ON: Final = f"{HIDDEN}adopted on"  # the device that an adopted cookie was marked with
YES: Final = Raw(b"\xc3")  # MessagePack's
NO: Final = Raw(b"\xc2")
log: Final = logging.getLogger("clustersession")


class Found(NamedTuple):
    """The session that an old cookie stands for here, the token of its ID, and whether it was stored just now. `patches`: the
    IDs by which what was to be stored is known again, if nobody heard whether it was."""

    outcome: LoadOutcome
    token: bytes = b""
    new: bool = False
    patches: tuple[bytes, ...] = ()


NOBODY: Final = Found(Lost(()))


class Adoption:
    """One source of sessions of before, until `until` (Unix seconds; None: as long as it is configured).

    `permanent_key`: where the framework keeps that its cookie outlives the browser. `imported`: all sessions were taken over,
    and the old store is not asked any more; raises `ConfigError` if the source needs it to tell whose a cookie is.
    """

    def __init__(
        self, source: Source, until: float | None = None, *, permanent_key: str | None = None, imported: bool = False
    ) -> None:
        self.source, self.until, self._permanent_key = source, until, permanent_key
        self._memory = Memory(source.name, lambda: self.until)
        self._named = source if imported and not source.keyless else None
        if self._named is not None and not isinstance(source, NamedSource):
            remedy = "Give the source a method `id_of(cookie)`, or unset it and keep the old store."
            problem = f"the source {source.name!r} cannot tell without its store which session a cookie names"
            raise ConfigError("CLUSTERSESSION_ADOPT_IMPORTED", problem, remedy)

    @property
    def over(self) -> bool:
        return self.until is not None and time() >= self.until

    def cookie_in(self, fields: Sequence[bytes | str]) -> str | None:
        """The one cookie of the old system among the Cookie fields; of several different ones none can be trusted."""
        values = self.cookies_in(fields)
        return values.pop() if len(values) == 1 and not self.over else None

    def cookies_in(self, fields: Sequence[bytes | str]) -> set[str]:
        """All different ones of the old system's, also when nothing is adopted any more."""
        return {value for _, value in scan(fields, (self.source.cookie_name,)) if value}

    # --- a session that comes with the old cookie --------------------------------------------------------------------------

    def adopted(self, engine: Engine, cookie: str) -> Operation[Found]:
        """The session that the old cookie stands for, whose user has come."""
        attempt: Callable[[], Operation[Found]]
        if self._named is not None:
            attempt = partial(self._known, engine, self._id_of(cookie))
        else:
            legacy = yield Outside(lambda: self.read(engine, cookie))
            if isinstance(legacy, Unavailable):
                return Found(legacy)
            if not isinstance(legacy, Legacy):
                return NOBODY
            try:
                items = self.encoded(engine, legacy)
            except (ValueNotSupported, SessionTooLarge) as error:
                engine.count("adoption_refused")
                log.warning("a session of %s stays there: %s", self.source.name, error)
                return NOBODY
            attempt = partial(self._stored, engine, legacy, items)
        found = yield from attempt()
        for _ in range(TRIES_AGAIN):  # a member may be suspect just now, and only a complete table can say "not adopted yet"
            if not isinstance(found.outcome, Unavailable):
                break
            yield Wait(AGAIN_S)
            found = yield from attempt()
        if isinstance(found.outcome, Ended):
            engine.count("adoption_dead")
        elif isinstance(found.outcome, Loaded):
            engine.count("session_adopted")
        return found

    def read(self, engine: Engine, cookie: str) -> Legacy | Unavailable | SourceRefused | None:
        """What the old system has; blocks. `SourceRefused`: there is a session, and it is not taken over."""
        try:
            legacy = self.source.read(cookie, time())
            return None if legacy is None or (legacy.deadline is not None and legacy.deadline <= time()) else legacy
        except SourceUnavailable as error:
            return Unavailable(str(error))
        except SourceRefused as error:
            engine.count("adoption_refused")
            log.warning("a session of %s stays there: %s", self.source.name, error)
            return error

    def values(self, legacy: Legacy) -> dict[str, Any]:
        """As our session will hold them."""
        if legacy.persistent and self._permanent_key is not None:
            return {**legacy.items, self._permanent_key: True}
        return legacy.items

    def encoded(self, engine: Engine, legacy: Legacy) -> dict[str, bytes]:
        """As it is stored. Raises `ValueNotSupported`, and `SessionTooLarge` as a save would."""
        limits, values = engine.config.limits, self.values(legacy)
        for key, value in values.items():
            check_depth(value, limits.depth_max, key)
        items = {key: encode_value(value, key) for key, value in values.items()}
        Session(limits=limits).check_limits(dict(items))
        return items

    def _stored(self, engine: Engine, legacy: Legacy, items: dict[str, bytes]) -> Operation[Found]:
        if legacy.id is None:
            return (yield from self._of_cookie(engine, legacy, items))
        found = yield from self.of_key(engine, legacy, items)
        return (yield from self._come_by(engine, found))

    def of_key(self, engine: Engine, legacy: Legacy, items: dict[str, bytes], *, waiting: bool = False) -> Operation[Found]:
        """The old cookie is a key, and all requests with it are of one session. `waiting`: its user is not here."""
        assert legacy.id is not None
        tokens, claims = self.claims(engine, legacy.id)
        principal = self.principal(engine, items)
        dead = None if principal is None else (yield from self.ended_before(engine, principal, legacy))
        if dead is not None:
            return Found(dead)
        kept = {**items, **OwnLimits.of(legacy).items()} if waiting else items
        session = self.record_of(engine, claims[0].session, legacy, kept)
        if waiting:
            session = self._until_its_user_comes(engine, session, legacy)
        adopted = yield from adopt(engine.cluster(), claims, session, self.guard(engine, claims[0]))
        return Found(adopted.outcome, tokens[adopted.place], adopted.new, session.patches)

    def claims(self, engine: Engine, name: bytes) -> tuple[list[bytes], list[Claim]]:
        """The tokens that the session with this old ID may have, and where it and its guard are then."""
        tokens = [self._derived(engine.ring(), kid, b"session", name) for kid in _kids(engine)]
        guard = self._memory.guard_key(name)
        return tokens, [Claim(store_key(token), guard) for token in tokens]

    def guard(self, engine: Engine, claim: Claim) -> Record:
        """What remembers that a session was adopted."""
        return self._memory.guard(engine, claim.guard)

    def _id_of(self, cookie: str) -> bytes | None:
        return self._named.id_of(cookie) if isinstance(self._named, NamedSource) else None

    def _known(self, engine: Engine, name: bytes | None) -> Operation[Found]:
        """The session of this old ID, if it was taken over."""
        if name is None:
            return NOBODY
        tokens, claims = self.claims(engine, name)
        adopted = yield from adopted_before(engine.cluster(), claims)
        if adopted is None:
            return NOBODY
        return (yield from self._come_by(engine, Found(adopted.outcome, tokens[adopted.place])))

    def _until_its_user_comes(self, engine: Engine, record: Record, legacy: Legacy) -> Record:
        """It ends when the old system would end it, or this one at the latest: nobody uses it meanwhile."""
        now, clock = engine.now(), time()
        if record.lifetime.idle is not None:
            if legacy.expires is None:
                return record
            limits = ending(engine, Lifetime(None, record.lifetime.deadline), legacy.expires)
            record = record.but(lifetime=limits, extra={**record.extra, WAITING: YES})
        return record.but(last_seen=min(now, now - clock + (legacy.stamped or clock)))

    def _come_by(self, engine: Engine, found: Found) -> Operation[Found]:
        """Its user is here: from now on the limits of this system count."""
        outcome = found.outcome
        if not isinstance(outcome, Loaded) or outcome.superseded or outcome.record.extra.get(WAITING) != YES:
            return found
        key = store_key(found.token)
        record = outcome.record
        change = patch(engine, {}, OwnLimits.kept_in(record).within(engine, record.created))
        saved = yield from save(engine.cluster(), key, outcome.placement, replace_struct(change, extra={WAITING: NO}))
        match saved:
            case Saved():
                return found._replace(outcome=(yield from found_anywhere(engine.cluster(), key)))
            case Ended():
                return found._replace(outcome=saved)
        return found._replace(outcome=Unavailable(f"what was imported cannot be written ({type(saved).__name__})"))

    def _of_cookie(self, engine: Engine, legacy: Legacy, items: dict[str, bytes]) -> Operation[Found]:
        """The old cookie is the session: two equal ones stay two sessions, and a logout has ended those stamped before."""
        principal = self.principal(engine, items)
        if principal is not None:
            dead = yield from self.ended_before(engine, principal, legacy)
            if dead is not None:
                return Found(dead)
        token = new_token(engine)
        key = store_key(token)
        marked = {**items, ADOPTED_ON: encode_value(device_named(items.get(DEVICE)))}
        record = self.record_of(engine, key, legacy, marked, derived=False)
        return Found((yield from kept(engine.cluster(), key, record)), token)

    def record_of(self, engine: Engine, key: bytes, legacy: Legacy, items: dict[str, bytes], *, derived: bool = True) -> Record:
        """Ages are carried over; an absolute limit counts from when the session really began. `derived`: several hosts may come
        to this key at the same time."""
        created = created_at(engine, legacy)
        principal = self.principal(engine, items)
        lifetime = OwnLimits.of(legacy).within(engine, created)
        if lifetime.idle is None and legacy.expires is not None:
            lifetime = ending(engine, lifetime, legacy.expires)
        first, now = patch(engine, items, None), engine.now()
        record = first_record(engine.cluster(), key, now=now, patch=first, created=created, lifetime=lifetime, shared=derived)
        return record.but(principal=principal, auth_time=None if principal is None else logged_in_at(engine, legacy))

    def token_for(self, engine: Engine, purpose: bytes, name: bytes) -> bytes:
        """The token of what is kept under the old system's `name` for something, the same on all hosts."""
        return self._derived(engine.ring(), _kids(engine)[0], purpose, name)

    def principal(self, engine: Engine, items: Mapping[str, bytes]) -> str | None:
        """Who is logged in, as our session would say."""
        return Session(items).principal(engine.config.principal_keys)

    def _derived(self, ring: KeyRing, kid: int, purpose: bytes, name: bytes) -> bytes:
        """A token that nobody without the ring can compute, the same on all hosts."""
        key = ring.get(kid)
        assert key is not None
        text = b"\0".join((b"adopted", purpose, self.source.name.encode(), name))
        return hmac.digest(key.tag, text, "sha256")[:TOKEN_BYTES]

    # --- one of ours ends ----------------------------------------------------------------------------------------------------

    def ended(self, engine: Engine, cookie: str | None, record: Record | None, at: float | None = None) -> Operation[None]:
        """A session of ours was logged out (`at`: Unix seconds, None is now): that of before goes with it. Raises
        `SessionUnavailable` if an old cookie of it might come back to life."""
        if cookie is not None:
            yield Outside(lambda: self.end(engine, cookie))
        if record is not None and record.principal is not None:
            yield from self._logged_out(engine, record.principal, _devices(record), at)

    def ended_unseen(self, engine: Engine, cookie: str, *, alone: bool) -> Operation[None]:
        """What this old cookie stands for was logged out without having been looked at. `alone`: none of ours came with it.
        Raises `SessionUnavailable` if it may come back to life."""
        if not self.source.keyless:
            if alone:  # to end it in its own store only would hide from the next try what it has become here
                raise SessionUnavailable("whether a session of before was taken over, and into which, cannot be told")
            yield Outside(lambda: self.end(engine, cookie))
            return
        legacy = yield Outside(lambda: self.read(engine, cookie))
        if isinstance(legacy, Unavailable):
            raise SessionUnavailable(legacy.why)
        if not isinstance(legacy, Legacy):
            return
        try:
            items = self.encoded(engine, legacy)
        except (ValueNotSupported, SessionTooLarge):
            return  # it is never taken over
        principal = self.principal(engine, items)
        if principal is not None:
            yield from self._logged_out(engine, principal, {device_named(items.get(DEVICE))}, None)

    def _logged_out(self, engine: Engine, user: str, devices: set[str], at: float | None) -> Operation[None]:
        if self.source.keyless and not self.over:
            yield from self._memory.log_out(engine, user, devices, time() if at is None else at)

    def all_ended(self, engine: Engine, user: str, at: float) -> Operation[None]:
        """All sessions of a user were ended (`at`: Unix seconds): none that began before is taken over, from whatever device.
        Raises `SessionUnavailable`."""
        if not self.over:
            yield from self._memory.log_out(engine, user, {ALL_DEVICES}, at)

    def set_cookie(self, engine: Engine, value: str, max_age_s: int | None) -> str:
        """The Set-Cookie value of the old system's cookie, with the attributes of ours."""
        return set_cookie(replace(engine.config.cookie, names=(self.source.cookie_name,)), value, max_age_s)

    def end(self, engine: Engine, cookie: str) -> None:
        """Log out in the old system; blocks."""
        if self._named is not None:
            return  # there is none
        try:
            self.source.end(cookie)
        except SourceUnavailable as error:  # its guard keeps it dead here; what is left is for the old system's own expiry
            engine.count("adoption_end_failed")
            log.warning("a session of %s could not be ended there: %s", self.source.name, error)

    def ended_before(self, engine: Engine, principal: str, legacy: Legacy) -> Operation[LoadOutcome | None]:
        """Whether the user has logged out, on this device, since the cookie was stamped."""
        device = legacy.items.get(DEVICE)
        name = device_named(None if device is None else encode_value(device))
        known = yield from self._memory.logged_out(engine, principal, name)
        if isinstance(known, float):
            began = legacy.stamped or legacy.created  # without either nobody can say that it came after
            return Ended("logged out since") if began is None or began <= known else None
        return known


def _devices(record: Record) -> set[str]:
    """Those whose old cookies may open this session: what marks it now, and what did when it was taken over."""
    items, (_, adopted) = live_items(record), record.items.get(ADOPTED_ON, (None, None))
    names = {device_named(items.get(DEVICE))}
    return names if adopted is None else names | {str(decode_value(adopted))}


def _kids(engine: Engine) -> tuple[int, ...]:
    """Of the ring, first the one that every live member has: two hosts in the middle of a key change come to the same session."""
    signing = engine.cookies.signing().kid
    return (signing, *(kid for kid in engine.ring().kids if kid != signing))
