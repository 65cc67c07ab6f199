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
    put,
    save,
)
from ..core.record import WAITING, Lifetime, Patch, Record, live_items
from ..core.session import Session
from ..core.session_id import TOKEN_BYTES, store_key
from ..core.values import HIDDEN, decode_value, encode_value
from ..errors import ConfigError, SessionUnavailable, SourceRefused, SourceUnavailable, ValueNotSupported
from ..sources.source import Legacy, NamedSource, Source
from .stored import new_token, patch

if TYPE_CHECKING:
    from .engine import Engine

GUARDED_S: Final = 400 * 86400.0  # without an end of the adoption: no browser keeps a cookie for longer (RFC 6265bis 5.5)
TRIES_AGAIN: Final = 2
AGAIN_S: Final = 0.2
DEVICE: Final = "_id"  # Flask-Login's hash of the address and the browser
ALL_DEVICES: Final = "all"  # no device's hash
YES: Final = Raw(b"\xc3")  # MessagePack's
NO: Final = Raw(b"\xc2")
NOBODYS: Final = f"{HIDDEN}adoption"  # the principal of records that are nobody's
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
                items = self.encoded(legacy)
            except ValueNotSupported as error:
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
            return self.source.read(cookie, time())
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

    def encoded(self, legacy: Legacy) -> dict[str, bytes]:
        """As it is stored. Raises `ValueNotSupported`."""
        return {key: encode_value(value, key) for key, value in self.values(legacy).items()}

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
        session = self.record_of(engine, claims[0].session, legacy, items)
        if waiting:
            session = self._until_its_user_comes(engine, session, legacy)
        adopted = yield from adopt(engine.cluster(), claims, session, self.guard(engine, claims[0]))
        return Found(adopted.outcome, tokens[adopted.place], adopted.new, session.patches)

    def claims(self, engine: Engine, name: bytes) -> tuple[list[bytes], list[Claim]]:
        """The tokens that the session with this old ID may have, and where it and its guard are then."""
        tokens = [self._derived(engine.ring(), kid, b"session", name) for kid in _kids(engine)]
        guards = [self._derived(engine.ring(), kid, b"guard", name) for kid in _kids(engine)]
        return tokens, [Claim(store_key(token), store_key(guard)) for token, guard in zip(tokens, guards, strict=True)]

    def guard(self, engine: Engine, claim: Claim) -> Record:
        """What remembers that a session was adopted."""
        return self._lasting(engine, claim.guard, patch(engine, {}, None))

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
            ends = min(now + legacy.expires - clock, record.lifetime.deadline or float("inf"))
            record = record.but(lifetime=Lifetime(None, ends), extra={**record.extra, WAITING: YES})
        return record.but(last_seen=min(now, now - clock + (legacy.stamped or clock)))

    def _come_by(self, engine: Engine, found: Found) -> Operation[Found]:
        """Its user is here: from now on the limits of this system count."""
        outcome = found.outcome
        if not isinstance(outcome, Loaded) or outcome.superseded or outcome.record.extra.get(WAITING) != YES:
            return found
        key = store_key(found.token)
        change = patch(engine, {}, engine.lifetime(outcome.record.created))
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
        record = self.record_of(engine, key, legacy, items, derived=False)
        return Found((yield from kept(engine.cluster(), key, record)), token)

    def record_of(self, engine: Engine, key: bytes, legacy: Legacy, items: dict[str, bytes], *, derived: bool = True) -> Record:
        """Ages are carried over; an absolute limit counts from when the session really began. `derived`: several hosts may come
        to this key at the same time."""
        now, clock = engine.now(), time()
        created = now - max(0.0, clock - (legacy.created or legacy.stamped or clock))
        principal = self.principal(engine, items)
        lifetime = engine.lifetime(created)
        if lifetime.idle is None and legacy.expires is not None:
            lifetime = Lifetime(None, min(lifetime.deadline or float("inf"), now + legacy.expires - clock))
        record = first_record(
            engine.cluster(),
            key,
            now=now,
            patch=patch(engine, items, None),
            created=created,
            lifetime=lifetime,
            shared=derived,
        )
        return record.but(principal=principal, auth_time=None if principal is None else created)

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

    def _lasting(self, engine: Engine, key: bytes, first: Patch) -> Record:
        """What is kept until the end of the adoption. As if of a user, so that a full store does not drop it."""
        now = engine.now()
        until = now + (GUARDED_S if self.until is None else max(0.0, self.until - time()))
        record = first_record(engine.cluster(), key, now=now, patch=first, created=now, lifetime=Lifetime(None, until))
        return record.but(principal=NOBODYS)

    # --- one of ours ends ----------------------------------------------------------------------------------------------------

    def ended(self, engine: Engine, cookie: str | None, record: Record | None, at: float | None = None) -> Operation[None]:
        """A session of ours was logged out (`at`: Unix seconds, None is now): that of before goes with it. Raises
        `SessionUnavailable` if an old cookie of it might come back to life."""
        if cookie is not None:
            yield Outside(lambda: self.end(engine, cookie))
        principal = None if record is None else record.principal
        if record is None or principal is None or not self.source.keyless or self.over:
            return
        name = live_items(record).get(DEVICE, b"").hex()
        if at is not None:
            known = yield from self._logged_out(engine, principal, name)
            at = max(at, known) if isinstance(known, float) else at
        key = store_key(self._not_before(engine.ring(), _kids(engine)[0], principal))
        change = patch(engine, {name: encode_value(time() if at is None else at)}, None)
        yield from self._put(engine, key, change, "that cookies of before are over could not be stored")

    def _put(self, engine: Engine, key: bytes, change: Patch, problem: str) -> Operation[None]:
        """Into what lasts, again if need be: one of its owners may be handing over all it has just now."""
        record = self._lasting(engine, key, change)
        for again in range(TRIES_AGAIN + 1):
            if again:
                yield Wait(AGAIN_S)
            if (yield from put(engine.cluster(), key, record, change)):
                return
        raise SessionUnavailable(problem)

    def all_ended(self, engine: Engine, user: str, at: float) -> Operation[None]:
        """All sessions of a user were ended (`at`: Unix seconds): none that began before is taken over, from whatever device.
        Raises `SessionUnavailable`."""
        if self.over:
            return
        key = store_key(self._not_before(engine.ring(), _kids(engine)[0], user))
        change = patch(engine, {ALL_DEVICES: encode_value(at)}, None)
        yield from self._put(engine, key, change, "that sessions of before are over could not be stored")

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

    def _not_before(self, ring: KeyRing, kid: int, principal: str) -> bytes:
        return self._derived(ring, kid, b"not before", principal.encode())

    def ended_before(self, engine: Engine, principal: str, legacy: Legacy) -> Operation[LoadOutcome | None]:
        """Whether the user has logged out, on this device, since the cookie was stamped."""
        device = legacy.items.get(DEVICE)
        known = yield from self._logged_out(engine, principal, "" if device is None else encode_value(device).hex())
        if isinstance(known, float):
            began = legacy.stamped or legacy.created  # without either nobody can say that it came after
            return Ended("logged out since") if began is None or began <= known else None
        return known

    def _logged_out(self, engine: Engine, principal: str, device: str) -> Operation[float | Unavailable | None]:
        """When the user has last logged out on this device; hosts may sign with different keys for a while."""
        latest: float | None = None
        for kid in _kids(engine):
            key = store_key(self._not_before(engine.ring(), kid, principal))
            outcome = yield from found_anywhere(engine.cluster(), key)
            if isinstance(outcome, Unavailable):
                return outcome
            held = live_items(outcome.record) if isinstance(outcome, Loaded) else {}
            for name in (device, ALL_DEVICES):
                if name in held:
                    at = float(str(decode_value(held[name])))
                    latest = at if latest is None else max(latest, at)
        return latest


def _kids(engine: Engine) -> tuple[int, ...]:
    """Of the ring, first the one that every live member has: two hosts in the middle of a key change come to the same session."""
    signing = engine.cookies.signing().kid
    return (signing, *(kid for kid in engine.ring().kids if kid != signing))
