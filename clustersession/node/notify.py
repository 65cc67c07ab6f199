"""Saying "I am ready" to whoever started this process: the datagram protocol of systemd, see sd_notify(3).

`clustersession run` listens for it, and a systemd unit of `Type=notify` does.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1"


def announce(state: str, environ: Mapping[str, str]) -> bool:
    """Sends `state` (`READY`, "STOPPING=1") to the socket that `environ` names; False if it names none or nobody listens."""
    address = environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError:
            return False
    return True


class ReadySocket:
    """Where a child process announces itself: an abstract socket, so that nothing is left behind by a kill -9."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        name = f"clustersession-{secrets.token_hex(8)}"
        self._socket.bind(f"\0{name}")
        self.address = f"@{name}"

    def heard(self) -> bool:
        """Whether READY has arrived since the last question. Never waits."""
        found = False
        while True:
            try:
                found = READY in self._socket.recv(4096).decode(errors="replace").splitlines() or found
            except BlockingIOError:
                return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._socket.close()
