"""Cookies of the dev mode: the session's public handle, since tests of Django apps put `session_key` into a cookie."""

from __future__ import annotations

from time import time

from ...core.record import Owners
from ...core.session_id import SessionId, store_key
from ...runtime.cookies import Cookies, Ticket


class _Key(bytes):
    """A store's key in the place of the token that it was made from, which nobody knows."""

    __slots__ = ()


class HandleCookies(Cookies):
    """Whoever knows a handle has the session, so not for production. Whole IDs are read too."""

    def ticket_of_handle(self, handle: str) -> Ticket | None:
        ticket = super().ticket_of_handle(handle)
        if ticket is None:
            return None
        signing, key = self.signing(), ticket.sid.key
        master, _ = self.tags((self._host.me, None), signing.kid)
        born = int(time()) // 60
        sid = SessionId(kid=signing.kid, born=born, token=_Key(key), master=master, backup=None, epoch=0, version=0, key=key)
        return Ticket(self.name, sid)

    def _verify(self, name: str, text: str) -> Ticket | None:
        return self.ticket_of_handle(text) or super()._verify(name, text)

    def id_text(self, token: bytes, owners: Owners, floor: tuple[int, int]) -> str:
        return (token if isinstance(token, _Key) else store_key(token)).hex()
