"""From the Cookie header to a verified ID with its owners, and from a stored session to the text of its ID."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from re import compile as pattern
from time import time
from typing import Final

from ..config import Config
from ..core.cookie import delete_cookie, scan, set_cookie
from ..core.keyring import Key, KeyRing
from ..core.node import View
from ..core.reasons import YOUNG_S, age_of, of_bad_id
from ..core.record import Owners
from ..core.session_id import CLOCK_SKEW_S, IdContext, SessionId, encode, node_tag, outlived, verify
from ..errors import BadSessionId
from ..ports import Observer
from .cache import BoundedCache
from .host import Host
from .refusals import Refusals

TRIED_MAX: Final = 3  # cookies of our names in one request
VERIFIED_KEPT: Final = 2048
FIELD_KEPT_CHARS_MAX: Final = 1024
TAGS_KEPT: Final = 4096


_is_handle = pattern(r"[0-9a-f]{32}").fullmatch


class Ticket:
    """A verified ID under the cookie name it came with. Shared by all requests that bring the same cookie."""

    __slots__ = ("_owners", "_view", "name", "sid")

    def __init__(self, name: str, sid: SessionId) -> None:
        self.name, self.sid = name, sid
        self._view: View | None = None
        self._owners: tuple[str | None, str | None] = (None, None)

    def __repr__(self) -> str:
        return f"<Ticket {self.sid.handle} in {self.name}>"

    def owners(self, view: View, host: Host, ring: KeyRing) -> tuple[str | None, str | None]:
        """Master and backup as members of the host's `view`; None for a tag that no member has, and for no backup."""
        if self._view is not view:
            sid = self.sid
            master = host.owner_of(ring, sid.kid, sid.master)
            backup = None if sid.backup is None else host.owner_of(ring, sid.kid, sid.backup)
            self._owners, self._view = (master, backup), view
        return self._owners


class Cookies:
    """Reads and writes the cookies of one app. Nothing in here raises for what a client sends."""

    def __init__(self, config: Config, host: Host, ring: Callable[[], KeyRing], observer: Observer) -> None:
        self._config, self._host, self.ring, self._observer = config.cookie, host, ring, observer
        self.refusals = Refusals(observer)
        self._absolute_s = config.lifetimes.absolute_s if config.lifetimes_set else None
        self._port = config.listen.port
        self._contexts = {name: IdContext(config.cluster, name) for name in config.cookie.names}
        self._issued = self._contexts[config.cookie.names[0]]
        self._ring: KeyRing | None = None
        self._seen: BoundedCache[bytes | str, Ticket] = BoundedCache(VERIFIED_KEPT)  # by the whole field
        self._verified: BoundedCache[tuple[str, str], Ticket] = BoundedCache(VERIFIED_KEPT)
        self._tags: BoundedCache[tuple[int, str, int], str] = BoundedCache(TAGS_KEPT)

    # --- reading ---------------------------------------------------------------------------------------------------------

    def ticket(self, fields: Sequence[bytes | str]) -> Ticket | None:
        """The one valid ID among the Cookie fields. What has our name and fails is counted and is no session, finally."""
        if not fields:
            return None
        ring = self.ring()
        if ring is not self._ring:
            self._forget(ring)
        seen = self._seen.get(fields[0]) if len(fields) == 1 else None
        ticket = seen or self._found(scan(fields, self._config.names))
        if ticket is None:
            return None
        if self._absolute_s is not None and outlived(ticket.sid, time(), self._absolute_s):
            self.refusals.session("outlived", ticket.sid)
            return None
        if seen is None and len(fields) == 1 and len(fields[0]) <= FIELD_KEPT_CHARS_MAX:
            self._seen.put(fields[0], ticket)
        return ticket

    def named(self, fields: Sequence[bytes | str]) -> bool:
        """Whether one of our names is among the Cookie fields, whatever its value."""
        return bool(scan(fields, self._config.names))

    def ticket_of_handle(self, handle: str) -> Ticket | None:
        """For a session known by its public handle only: its owners have to be looked for, and no cookie can be made."""
        if not _is_handle(handle):
            return None
        now = int(time()) // 60
        sid = SessionId(kid=-1, born=now, token=b"", master="", backup="", epoch=0, version=0, key=bytes.fromhex(handle))
        return Ticket(self.name, sid)

    def _forget(self, ring: KeyRing) -> None:
        """What the old ring has verified may not verify any more."""
        self._seen.clear()
        self._verified.clear()
        self._tags.clear()
        self._ring = ring

    def _found(self, found: list[tuple[str, str]]) -> Ticket | None:
        """Of several cookies exactly one session may be valid; of several IDs of that one the latest counts."""
        if len(found) == 1:
            return self._verify(*found[0])
        distinct = list(dict.fromkeys(found))
        if len(distinct) > TRIED_MAX:
            self._ambiguous(distinct)
            return None
        valid = [ticket for name, text in distinct if (ticket := self._verify(name, text)) is not None]
        if len({ticket.sid.key for ticket in valid}) > 1:
            self._ambiguous(distinct)
            return None
        return max(valid, key=lambda ticket: ticket.sid.floor, default=None)

    def _verify(self, name: str, text: str) -> Ticket | None:
        ticket = self._verified.get((name, text))
        if ticket is None:
            try:
                ticket = Ticket(name, verify(text, self.ring(), self._contexts[name]))
            except BadSessionId as error:
                ring = self.ring()
                code = of_bad_id(error.reason, text, ring, self._host.last_view.members)
                self.refusals.text(code, text, ring.signing)
                return None
            self._verified.put((name, text), ticket)
            self._met(ticket.sid)
        return ticket

    def _met(self, sid: SessionId) -> None:
        """The first time that a cookie comes to this process. If none of the last minutes ever does, browsers do not keep it."""
        age_s = age_of(sid, time())
        if age_s < -CLOCK_SKEW_S:
            self._observer.count("id_from_future")
        elif age_s < YOUNG_S:
            self._observer.count("id_returned")

    def _ambiguous(self, found: list[tuple[str, str]]) -> None:
        self.refusals.text("duplicate", "; ".join(text for _, text in found), self.ring().signing)

    def named_in(self, ticket: Ticket) -> tuple[str | None, str | None]:
        """The owners that an ID names, as far as they are members now."""
        return ticket.owners(self._host.last_view, self._host, self.ring())

    # --- writing ---------------------------------------------------------------------------------------------------------

    def tags(self, owners: Owners, kid: int) -> tuple[str, str | None]:
        """The tags of master and backup, made with the key `kid`."""
        key = self.ring().get(kid) or self.signing()
        master, backup = owners
        return self._tag(key, master), None if backup is None else self._tag(key, backup)

    def _tag(self, key: Key, identity: str) -> str:
        member = self._host.last_view.get(identity)
        port = self._port if member is None else member.port
        tag = self._tags.get((key.kid, identity, port))
        if tag is None:
            tag = node_tag(key, identity, port)
            self._tags.put((key.kid, identity, port), tag)
        return tag

    def signing(self) -> Key:
        """The newest key that every live member has announced; alone, or before the node runs, the first."""
        ring, kid = self.ring(), self._host.board.signing_kid
        return (None if kid is None else ring.get(kid)) or ring.signing

    def issued(self, token: bytes, owners: Owners, floor: tuple[int, int], max_age_s: int | None) -> str:
        """The Set-Cookie value for a stored session. It is born now: its age is that of the cookie, not of the session."""
        return set_cookie(self._config, self.id_text(token, owners, floor), max_age_s)

    def id_text(self, token: bytes, owners: Owners, floor: tuple[int, int]) -> str:
        key = self.signing()
        master, backup = self.tags(owners, key.kid)
        epoch, version = floor
        return encode(
            token=token,
            born=int(time()) // 60,
            master=master,
            backup=backup,
            epoch=epoch,
            version=version,
            key=key,
            context=self._issued,
        )

    def deleted(self, name: str) -> str:
        """The Set-Cookie value that removes the cookie `name` from the browser."""
        return delete_cookie(self._config, name)

    def deletions(self, ticket: Ticket | None, refused: Sequence[bytes | str]) -> tuple[str, ...]:
        """Those that remove what a request came with: its ID, or else what has a name of ours in its Cookie fields."""
        names = [ticket.name] if ticket is not None else dict(scan(refused, self._config.names))
        return tuple(map(self.deleted, names))

    @property
    def secure(self) -> bool:
        """Whether browsers send the cookie over HTTPS only."""
        return self._config.secure

    @property
    def name(self) -> str:
        """The name new cookies get."""
        return self._config.names[0]
