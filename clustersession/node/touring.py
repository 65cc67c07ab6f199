"""The canaries that a node sends through itself and each other node when a doctor asks for it."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ..core.canary import Fault, canary, new_canary
from ..core.facts import CanaryFacts
from ..core.session_id import STORE_KEY_BYTES
from ..runtime.async_driver import AsyncDriver
from ..runtime.budget import Budget
from ..runtime.keeper import Keeper

ALL_PAIRS_MAX: Final = 12  # nodes; of more each sends canaries to a few others
SAMPLED: Final = 6
AT_ONCE: Final = 4
CANARY_S: Final = 1.0
TRIES: Final = 2  # one answer that came late is no fault of the way


class Tours:
    """One tour at a time: whoever asks while one is under way waits for that one. `begun`, `ended`: how many there were."""

    def __init__(self, keeper: Keeper, driver: AsyncDriver) -> None:
        self._keeper, self._driver = keeper, driver
        self._task: asyncio.Task[None] | None = None
        self.begun = self.ended = 0
        self.canaries: tuple[CanaryFacts, ...] = ()

    def begin(self, before: Callable[[], Awaitable[None]]) -> None:
        """Unless one is under way. `before` is done first: a store that waits for a lock would hold up the canaries."""
        if self._task is None or self._task.done():
            self.begun += 1
            self._task = asyncio.create_task(self._run(before))

    async def close(self) -> None:
        """A canary that is under way is dropped at the end of its life."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, before: Callable[[], Awaitable[None]]) -> None:
        await before()
        gate = asyncio.Semaphore(AT_ONCE)
        self.canaries = tuple(await asyncio.gather(*(self._sent(backup, gate) for backup in self._backups())))
        self.ended = self.begun

    def _backups(self) -> list[str]:
        """The dead too: they may be back, and if others reach them it is the way that is cut."""
        if self._keeper.leaving:
            return []
        others = sorted(name for name, entry in self._keeper.table.others.items() if not entry.member.state.departing)
        return others if len(others) < ALL_PAIRS_MAX else random.sample(others, SAMPLED)

    async def _sent(self, backup: str, gate: asyncio.Semaphore) -> CanaryFacts:
        host = self._keeper.host
        async with gate:
            fault: Fault | None = None
            for _ in range(TRIES):
                began = time.monotonic()
                key = os.urandom(STORE_KEY_BYTES)
                record = new_canary((host.me, backup), os.urandom(8), host.clock())
                fault = await self._driver.run(canary(key, record), Budget(CANARY_S))
                ms = round((time.monotonic() - began) * 1e3, 1)
                if fault is None:
                    break
        step, at, why = fault or (None, None, None)
        return CanaryFacts(backup=backup, ms=ms, step=step, at=at, why=why)
