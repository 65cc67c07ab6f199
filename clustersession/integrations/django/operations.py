"""What `Session` has beyond Django's interface: `incr`, `append`, `add`, `discard` and `expect`, with an `a...` of each for async
views, as Django's other methods have one; the user's other sessions, and how fresh the login is."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ...core.edits import Operations
from ...core.freshness import Freshness
from ...runtime.session import RequestSession
from ...runtime.users import Users


class StoreOperations(Operations, Freshness):
    """For a `SessionStore`, which has the session as `inner` and loads it in async code by `_aget_session`."""

    @property
    def inner(self) -> RequestSession:
        raise AttributeError("inner")

    @property
    def users(self) -> Users:
        """All sessions of a user: `users.sessions_of(user.pk)`, `users.end_all(user.pk)`, awaited with an `a` before."""
        return self.inner.users

    @property
    def auth_age_s(self) -> float | None:
        """Seconds since the principal was set or confirmed: what `require_fresh` is decided by."""
        return self.inner.auth_age_s

    def lock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """From here on to the end of this request no other request of the session has the lock `name`, on any host. Raises
        `SessionLocked` after `wait_s` seconds; `RequestSession.lock` says it all."""
        self.inner.lock(name, lease_s=lease_s, wait_s=wait_s)

    async def alock(self, name: str = "session", *, lease_s: float = 30.0, wait_s: float = 5.0) -> None:
        """`lock`, awaited."""
        await self._aget_session()
        await self.inner.alock(name, lease_s=lease_s, wait_s=wait_s)

    def refresh(self) -> None:
        """Look again: show what is stored now, under what this request has changed; nothing if the session was ended
        elsewhere. Raises `SessionUnavailable`. `RequestSession.refresh` says it all."""
        self.inner.refresh()

    async def arefresh(self) -> None:
        """`refresh`, awaited."""
        await self._aget_session()
        await self.inner.arefresh()

    def refresh_login(self) -> None:
        """The user has shown again who they are: the login counts as of now, and the session gets a new ID."""
        self.inner.refresh_login()

    async def _aget_session(self, no_load: bool = False) -> Any:
        raise AttributeError("_aget_session")

    def _edit(self, operation: str, key: str, operand: object) -> Any:
        return self.inner._edit(operation, key, operand)

    def _expect(self, key: str, data: bytes | None) -> None:
        self.inner._expect(key, data)

    async def aincr(self, key: str, by: float = 1) -> int | float:
        await self._aget_session()
        return self.incr(key, by)

    async def aappend(self, key: str, value: object) -> None:
        await self._aget_session()
        self.append(key, value)

    async def aadd(self, key: str, value: Hashable) -> None:
        await self._aget_session()
        self.add(key, value)

    async def adiscard(self, key: str, value: Hashable) -> None:
        await self._aget_session()
        self.discard(key, value)

    async def aexpect(self, key: str, *value: object) -> None:
        await self._aget_session()
        self.expect(key, *value)
