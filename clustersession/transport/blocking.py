"""`ports.Transport` for blocking code: standard sockets and `poll`, so it works under threads and under gevent's patches too."""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from time import monotonic

from ..core.calls import Call, Reply
from ..core.node import Member
from ..ports import Outgoing
from .client import Client
from .connection import Want


class BlockingTransport(Client):
    """Calls to peers from any number of threads or greenlets. Deadlines are seconds of `time.monotonic`."""

    def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        steps = self._ask(member, call, deadline)
        try:
            want = next(steps)
            while True:
                want = steps.send(_fulfilled(want))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        steps = self._exchange(batch, deadline, enough)
        try:
            wants, wake_at = next(steps)
            while True:
                wants, wake_at = steps.send(_fulfilled_of(wants, wake_at))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            steps.close()

    def close(self) -> None:
        """Close the idle connections; one that is in use is closed when its call ends."""
        self.hang_up()


def _fulfilled(want: Want) -> bool:
    return _is_ready(want, want.until)


def _fulfilled_of(wants: dict[int, Want], wake_at: float) -> list[int]:
    if len(wants) == 1:  # of a hedge nearly always
        ((index, want),) = wants.items()
        return [index] if _is_ready(want, wake_at) else []
    poller = select.poll()
    indexes = {}
    for index, want in wants.items():
        if want.sock is not None:
            poller.register(want.sock, want.events)
            indexes[want.sock.fileno()] = index
    return [indexes[fd] for fd, _ in poller.poll(max(0.0, (wake_at - monotonic()) * 1e3))]


def _is_ready(want: Want, until: float) -> bool:
    """Waits `until` then at the longest."""
    poller = want.poller
    if poller is None:
        poller = want.poller = select.poll()
        if want.sock is not None:
            poller.register(want.sock, want.events)
    return bool(poller.poll(max(0.0, (until - monotonic()) * 1e3)))
