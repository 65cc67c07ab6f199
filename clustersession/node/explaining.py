"""What the control listener answers about one session: every member is asked what it holds, and nothing is changed by it."""

from __future__ import annotations

import re
from time import time
from typing import Final

import msgspec

from ..core.holdings import ask_members, report
from ..core.record import Key
from ..errors import ShardDown, StoreRefused
from ..runtime.async_driver import AsyncDriver
from ..runtime.budget import Budget
from ..runtime.keeper import Keeper

PATH: Final = b"/explain/"
ASKING_S: Final = 2.0  # for all members together, which are asked at once
_is_handle = re.compile(rb"[0-9a-f]{32}").fullmatch


def key_in(path: bytes) -> Key | None:
    """The session that `/explain/HANDLE` names, or None."""
    handle = path[len(PATH) :]
    return bytes.fromhex(handle.decode()) if path.startswith(PATH) and _is_handle(handle) else None


class Explainer:
    """Asks for one node."""

    def __init__(self, keeper: Keeper, driver: AsyncDriver) -> None:
        self._keeper, self._driver = keeper, driver

    async def __call__(self, key: Key) -> bytes:
        """A `core.holdings.Report` as JSON."""
        host, view = self._keeper.host, self._keeper.view()
        replies = await self._driver.run(ask_members(view, key), Budget(ASKING_S))
        found = report(view, key, replies, self._hints(key), now=host.clock(), wall_s=time())
        return msgspec.json.encode(found)

    def _hints(self, key: Key) -> tuple[str, ...]:
        host = self._keeper.host
        try:
            return tuple(node for node in sorted(self._keeper.table.others) if host.store.hinted(node, key))
        except (ShardDown, StoreRefused):
            return ()  # its own answer says that it has none
