"""The crowd: 200 visitors with two tabs each, clicking at a steady pace, and somebody who tries their old cookies."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from typing import Any

from .tally import Tally
from .visitors import Retired, Shop, Thief, Visitor

_REPLAYS_PER_S = 8.0
_FINAL_REPLAYS_MAX = 1000
_FINAL_AT_ONCE = 4


class Crowd:
    """`rate`: requests a second of all users together."""

    def __init__(self, shop: Shop, tally: Tally, *, users: int, rate: float, seed: int) -> None:
        self._chance = random.Random(seed)
        self._shop, self._tally = shop, tally
        self._rate, self._pause_s = rate, users * 2 / rate
        chances = [random.Random(self._chance.random()) for _ in range(users)]
        self.visitors = [Visitor(f"user{number}", shop, tally, chance) for number, chance in enumerate(chances)]
        self._thief = Thief(shop, tally)
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = asyncio.Event()

    def start(self) -> None:
        tabs = [self._clicking(visitor, index) for visitor in self.visitors for index in range(2)]
        self._tasks = [asyncio.create_task(each) for each in [*tabs, self._stealing()]]

    def check(self) -> None:
        """Raises what ended a task that should go on."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def stop(self) -> None:
        """Let every request under way end, then look at every cart and try every old cookie once more."""
        self._ended.set()
        await asyncio.gather(*self._tasks)
        retired = self._retired()
        self._chance.shuffle(retired)
        thieves = [Thief(self._shop, self._tally) for _ in range(_FINAL_AT_ONCE)]
        looks = [visitor.check_at_the_end() for visitor in self.visitors]
        tries = [thieves[turn % _FINAL_AT_ONCE].replay(each) for turn, each in enumerate(retired[:_FINAL_REPLAYS_MAX])]
        jobs = [*looks, *tries]
        await asyncio.gather(*(self._at_the_pace(jobs[lane::_FINAL_AT_ONCE]) for lane in range(_FINAL_AT_ONCE)))
        for visitor in self.visitors:
            visitor.close()
        for thief in [*thieves, self._thief]:
            thief.close()

    def about_to_fail(self, host: str) -> int:
        """How many logged-in sessions `host` masters; their failovers are counted from now on."""
        return sum([visitor.watch(host) for visitor in self.visitors])

    def waiting_for_failover(self) -> int:
        return sum(visitor.waits_for_failover() for visitor in self.visitors)

    def all_logged_in(self) -> bool:
        return all(visitor.login > 0 for visitor in self.visitors)

    async def _clicking(self, visitor: Visitor, index: int) -> None:
        await asyncio.sleep(self._chance.uniform(0.0, self._pause_s))
        while not self._ended.is_set():
            await visitor.click(visitor.tabs[index])
            await self._sleep(self._chance.expovariate(1.0) * self._pause_s)

    async def _stealing(self) -> None:
        while not self._ended.is_set():
            await self._sleep(1 / _REPLAYS_PER_S)
            retired = self._retired()
            if retired:
                await self._thief.replay(self._chance.choice(retired))

    async def _at_the_pace(self, jobs: list[Coroutine[Any, Any, None]]) -> None:
        """One after the other, so that all lanes together keep to the rate."""
        for job in jobs:
            await job
            await asyncio.sleep(_FINAL_AT_ONCE / self._rate)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def _retired(self) -> list[Retired]:
        return [each for visitor in self.visitors for each in visitor.retired]
