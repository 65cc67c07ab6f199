"""`ports.AsyncTransport` for asyncio: the same calls, waiting for their sockets on whatever loop runs them.

The sockets are watched only while somebody waits for them. So a pooled connection belongs to no loop, and nothing is left
behind when a loop ends.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable, Sequence
from select import POLLIN
from time import monotonic

from ..core.calls import Call, Reply
from ..core.node import Member
from ..ports import Outgoing
from .client import Client
from .connection import Want


class AsyncioTransport(Client):
    """Calls to peers from coroutines. Deadlines are seconds of `time.monotonic`."""

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        loop = get_running_loop()
        steps = self._ask(member, call, deadline)
        try:
            want = next(steps)
            while True:
                want = steps.send(await _fulfilled(loop, want))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        loop = get_running_loop()
        steps = self._exchange(batch, deadline, enough)
        try:
            wants, wake_at = next(steps)
            while True:
                wants, wake_at = steps.send(await _fulfilled_of(loop, wants, wake_at))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    async def close(self) -> None:
        """Close the idle connections; one that is in use is closed when its call ends."""
        self.hang_up()


async def _fulfilled(loop: AbstractEventLoop, want: Want) -> bool:
    woken: Future[bool] = loop.create_future()
    timer = loop.call_later(max(0.0, want.until - monotonic()), _wake, woken, False)
    if want.sock is None:
        return await woken
    fd, reading = want.sock.fileno(), want.events == POLLIN
    (loop.add_reader if reading else loop.add_writer)(fd, _wake, woken, True)
    try:
        return await woken
    finally:
        timer.cancel()
        (loop.remove_reader if reading else loop.remove_writer)(fd)


def _wake(woken: Future[bool], fulfilled: bool) -> None:
    if not woken.done():
        woken.set_result(fulfilled)


async def _fulfilled_of(loop: AbstractEventLoop, wants: dict[int, Want], wake_at: float) -> list[int]:
    woken: Future[bool] = loop.create_future()
    fulfilled: list[int] = []

    def ready(index: int) -> None:
        fulfilled.append(index)
        _wake(woken, True)

    timer = loop.call_later(max(0.0, wake_at - monotonic()), _wake, woken, False)
    watched = [(index, want.sock.fileno(), want.events) for index, want in wants.items() if want.sock is not None]
    try:
        for index, fd, events in watched:
            (loop.add_reader if events == POLLIN else loop.add_writer)(fd, ready, index)
        await woken
    finally:
        timer.cancel()
        for _, fd, events in watched:
            (loop.remove_reader if events == POLLIN else loop.remove_writer)(fd)
    return fulfilled
