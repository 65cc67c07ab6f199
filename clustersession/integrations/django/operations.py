"""`incr`, `append`, `add`, `discard` and `expect` in Django's interface, with an `a...` of each for async views, as Django's
other methods have one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from ...core.edits import Operations
from ...core.session import Session


class StoreOperations(Operations):
    """For a `SessionStore`, which has the session as `inner` and loads it in async code by `_aget_session`."""

    @property
    def inner(self) -> Session:
        raise AttributeError("inner")

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
