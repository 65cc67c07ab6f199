"""The node's work on the owners of its sessions: repair, and the drain of a node that leaves."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ..runtime.async_driver import AsyncDriver
from ..runtime.budget import Budget
from ..runtime.duty import Duty

LOOK_EVERY_S: Final = 0.2
BACKGROUND_S: Final = 24 * 3600.0
log: Final = logging.getLogger("clustersession.node")


class Mending:
    """`run` until cancelled; `drain` once."""

    def __init__(self, duty: Duty, driver: AsyncDriver) -> None:
        self.duty, self._keeper, self._driver = duty, duty.keeper, driver
        self._busy = asyncio.Lock()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.duty.due:
                await self._pass()

    async def _pass(self) -> bool:
        progress = self.duty.progress
        async with self._busy:
            before = progress.moved
            complete = await self._driver.run(self.duty.done_once(), Budget(BACKGROUND_S))
        if progress.moved > before:
            log.info("%d sessions have new owners, %s still need one", progress.moved - before, progress.owed)
        return complete

    async def drain(self) -> None:
        """Hand over everything; returns when nothing is owed, or nobody is left to take it."""
        if not self._keeper.leaving:
            self.duty.leave()
            await asyncio.sleep(self._keeper.heartbeat_s)  # so that nobody names this node as an owner any more
        while self._keeper.has_successor:
            if self._keeper.may_repair and await self._pass():
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def count_owed(self) -> int:
        """How many sessions would have fewer than two copies if this node ended now."""
        return await self._driver.run(self._keeper.count_owed(), Budget(BACKGROUND_S))
