"""How a node ends: told by signals, with its sessions handed over first."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from typing import Final

from ..runtime.keeper import Keeper
from .launch import OWED_EXIT
from .mending import Mending

log: Final = logging.getLogger("clustersession.node")


class Orders:
    """What this process was told. SIGUSR1: leave, and stay until told to end; SIGTERM, SIGINT: leave and end; once more: end
    now. Of a supervisor the first comes with the app's own SIGTERM, the second when the app has ended."""

    def __init__(self) -> None:
        self.leave, self.end, self.now = asyncio.Event(), asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, self.leave.set)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_end)

    def _told_to_end(self) -> None:
        if self.end.is_set():
            self.now.set()
        self.end.set()
        self.leave.set()


async def drained(keeper: Keeper, mending: Mending, orders: Orders, limit_s: float) -> int:
    """The exit code: 0 only if nothing is owed. It takes `limit_s` at most from when the node was told to end."""
    draining = asyncio.create_task(mending.drain())
    stopped = asyncio.create_task(_time_is_up(orders, limit_s))
    try:
        await asyncio.wait({draining, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await orders.end.wait()  # what is written to this host until then is handed over too
        if draining.done() and not stopped.done():
            draining = asyncio.create_task(mending.drain())
            await asyncio.wait({draining, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (draining, stopped):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    owed = await mending.count_owed()
    if owed and keeper.table.others:  # who is alone by its settings owes nobody anything
        log.error("%d sessions could not be handed over: until this node is back on its files they have one copy", owed)
        return OWED_EXIT
    keeper.left()
    if keeper.has_successor:
        await asyncio.sleep(keeper.heartbeat_s)  # its last word reaches the others
    return 0


async def _time_is_up(orders: Orders, limit_s: float) -> None:
    await orders.end.wait()
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await orders.now.wait()
