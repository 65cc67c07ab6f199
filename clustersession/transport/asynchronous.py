"""`ports.AsyncTransport` for asyncio: the same calls, waiting for their sockets on whatever loop runs them.

A connection stays watched between two calls (`_Watch`), as to begin and end that takes longer than the rest of waiting. It
follows its caller from a loop that has ended to the next one; what a loop that still runs watches is not taken from it.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable, Sequence
from select import POLLIN
from socket import socket
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


class _Waiting:
    """A coroutine that waits: which of its wants are fulfilled, and the future that wakes it."""

    __slots__ = ("fulfilled", "woken")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.fulfilled: list[int] = []
        self.woken: Future[None] = loop.create_future()

    def ready(self, index: int) -> None:
        self.fulfilled.append(index)
        self.wake()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class _Watch:
    """A socket that its loop watches for reading, also while nobody waits for it.

    When something arrives then (a late reply, the peer's closing), the second notice of it ends the watch. The first may
    be of what was read already: the loop looks again before the one it has woken reads.
    """

    __slots__ = ("_fd", "_index", "_loop", "_noticed", "_waiting")

    def __init__(self, loop: AbstractEventLoop, fd: int) -> None:
        self._loop: AbstractEventLoop | None = loop
        self._fd = fd
        self._waiting: _Waiting | None = None
        self._index = 0
        self._noticed = False
        loop.add_reader(fd, self._ready)

    def on(self, loop: AbstractEventLoop) -> bool:
        return self._loop is loop

    def begin(self, waiting: _Waiting, index: int) -> None:
        self._waiting, self._index = waiting, index

    def end(self) -> None:
        self._waiting = None

    def _ready(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._noticed = False
            waiting.ready(self._index)
        elif self._noticed:
            self.stop()
        else:
            self._noticed = True

    def busy_elsewhere(self) -> bool:
        """Whether a loop watches it that runs in another thread."""
        try:
            here = get_running_loop()
        except RuntimeError:
            here = None
        return self._loop is not None and self._loop is not here and self._loop.is_running()

    def stop(self) -> None:
        """Only from the loop's own thread, or where it does not run."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
        self._loop = None

    def close(self, sock: socket) -> None:
        """Close the socket, never before its loop has let go of it: its number may be another socket's at once."""
        if self._loop is None or not self.busy_elsewhere():
            self._close(sock)
            return
        try:
            self._loop.call_soon_threadsafe(self._close, sock)
        except RuntimeError:  # the loop was closed just now
            sock.close()

    def _close(self, sock: socket) -> None:
        self.stop()
        sock.close()


async def _fulfilled(loop: AbstractEventLoop, want: Want) -> bool:
    waiting = _Waiting(loop)
    timer = loop.call_later(max(0.0, want.until - monotonic()), waiting.wake)
    try:
        end = _begin(loop, want, waiting, 0)
        try:
            await waiting.woken
        finally:
            end()
    finally:
        timer.cancel()
    return bool(waiting.fulfilled)


async def _fulfilled_of(loop: AbstractEventLoop, wants: dict[int, Want], wake_at: float) -> list[int]:
    waiting = _Waiting(loop)
    timer = loop.call_later(max(0.0, wake_at - monotonic()), waiting.wake)
    ends: list[Callable[[], object]] = []
    try:
        for index, want in wants.items():
            ends.append(_begin(loop, want, waiting, index))
        await waiting.woken
    finally:
        timer.cancel()
        for end in ends:
            end()
    return waiting.fulfilled


def _begin(loop: AbstractEventLoop, want: Want, waiting: _Waiting, index: int) -> Callable[[], object]:
    """Have `waiting` woken when `want` is fulfilled; what comes back ends that."""
    sock = want.sock
    if sock is None:
        return waiting.wake
    if want.lasting:
        watch: _Watch | None = want.watch
        if watch is None or not watch.on(loop):
            if watch is not None:
                watch.stop()
            watch = want.watch = _Watch(loop, sock.fileno())
        watch.begin(waiting, index)
        return watch.end
    fd = sock.fileno()
    if want.events == POLLIN:
        loop.add_reader(fd, waiting.ready, index)
        return lambda: loop.remove_reader(fd)
    loop.add_writer(fd, waiting.ready, index)
    return lambda: loop.remove_writer(fd)
