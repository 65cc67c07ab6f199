"""What happens to the hosts during the check, one fault at a time: a kill and the return, a silence and the return, restarts.

Every step waits for a condition (host in the balancer's turn again, every node in sync, sessions seen with another master),
except where time is the point: how long a host stays silent, the window in which slow requests count, and the lease.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable

from .balancer import STATUS
from .cluster import Cluster, FaultFailed
from .crowd import Crowd
from .http1 import Connection, Request, request_bytes
from .tally import WINDOW_S, Tally
from .visitors import Shop

SILENCE_S = 6.0  # longer than it takes to declare a host dead
LEASE_S = 2.0  # after it every owner has heard of every change
FAILOVERS_SEEN_S = 6.0
CONDITION_TIMEOUT_S = 30.0
_POLL_S = 0.1


class Faults:
    """Carries out the plan. `kill_at` and `silent_at` are loop times, None before."""

    def __init__(self, cluster: Cluster, crowd: Crowd, tally: Tally, shop: Shop, chance: random.Random) -> None:
        self._cluster, self._crowd, self._tally, self._shop, self._chance = cluster, crowd, tally, shop, chance
        self.kill_at: float | None = None
        self.silent_at: float | None = None
        self.restarts_at: list[float] = []

    async def all_in_turn(self) -> None:
        """Wait until the balancer has seen every host."""
        for name in self._cluster.names:
            await self._in_turn(name)

    async def run(self) -> None:
        """The whole plan, on hosts chosen by chance."""
        await self._until(self._crowd.all_logged_in, "not every user could log in")
        await self._cluster.settled()
        killed, silent = self._chance.sample(self._cluster.names, 2)
        await self._kill(killed)
        await self._silence(silent)
        for name in self._cluster.names:
            await self._restart(name)

    async def _kill(self, name: str) -> None:
        self._tally.sessions_mastered_by_killed = self._crowd.about_to_fail(name)
        self.kill_at = _now()
        processes = await self._cluster.kill(name)
        self._tally.kills += 1
        _say(f"{name}: killed with -9 ({processes} processes), master of {self._tally.sessions_mastered_by_killed} sessions")
        await asyncio.sleep(WINDOW_S)
        await self._failed_over()
        self._cluster.start(name)
        await self._back(name)

    async def _silence(self, name: str) -> None:
        self._tally.sessions_mastered_by_silent = self._crowd.about_to_fail(name)
        self.silent_at = _now()
        await self._cluster.fall_silent(name)
        _say(f"{name}: silent, master of {self._tally.sessions_mastered_by_silent} sessions")
        await asyncio.sleep(SILENCE_S)
        await self._failed_over()
        _say(f"{name}: speaks again ({self._cluster.speak_again(name)})")
        await self._back(name)

    async def _restart(self, name: str) -> None:
        self.restarts_at.append(_now())
        code = await self._cluster.stop(name)
        _say(f"{name}: ended after SIGTERM, exit code {code}")
        if code != 0:
            self._tally.wrong("errors", f"{name} ended with exit code {code} after SIGTERM")
        self._cluster.start(name)
        await self._back(name)

    async def _failed_over(self) -> None:
        """Wait a while until the sessions of the failed host were seen elsewhere; what is missing shows in the report."""
        for _ in range(round(FAILOVERS_SEEN_S / _POLL_S)):
            if not self._crowd.waiting_for_failover():
                return
            await asyncio.sleep(_POLL_S)

    async def _back(self, name: str) -> None:
        begun = time.monotonic()
        await self._cluster.ready(name)
        await self._in_turn(name)
        back = time.monotonic()
        await self._cluster.settled()
        _say(f"{name}: back after {back - begun:.1f} s, every node in sync {time.monotonic() - back:.1f} s later")
        await asyncio.sleep(LEASE_S)

    async def _in_turn(self, name: str) -> None:
        deadline = _now() + CONDITION_TIMEOUT_S
        while not await self._up(name):
            if _now() > deadline:
                raise FaultFailed(f"the balancer does not give {name} its turn")
            await asyncio.sleep(_POLL_S)

    async def _up(self, name: str) -> bool:
        request = request_bytes(Request(b"GET", STATUS, [(b"host", b"demo")], b""), close=True)
        connection = await Connection.open(self._shop.host, self._shop.port, CONDITION_TIMEOUT_S)
        try:
            status = await connection.ask(request, CONDITION_TIMEOUT_S)
        finally:
            connection.close()
        return bool(json.loads(status.body)[name]["up"])

    async def _until(self, condition: Callable[[], bool], failure: str) -> None:
        deadline = _now() + CONDITION_TIMEOUT_S
        while not condition():
            if _now() > deadline:
                raise FaultFailed(failure)
            await asyncio.sleep(_POLL_S)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
