"""A process that took over a peer's address and says what it likes."""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Self

from .servers import Address

RUBBISH = bytes(range(256)) * 16
OFFERS: dict[str, bytes | None] = {
    "rubbish": RUBBISH,
    "nothing": None,
    "reset": b"",
    "no such session": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" * 4,
    "endless": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + RUBBISH,
}


class Rogue:
    """Listens at `at`. `offer`: what it answers to whatever it is sent; None: never a byte; empty: a reset."""

    def __init__(self, at: Address, offer: bytes | None) -> None:
        self._offer = offer
        self._listener = socket.create_server(at)
        self._guests: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept)
        self.connections = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for guest in self._guests:
            guest.close()

    def _accept(self) -> None:
        while True:
            try:
                guest, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._guests.append(guest)
            try:
                self._treat(guest)
            except OSError:
                guest.close()  # it has gone again

    def _treat(self, guest: socket.socket) -> None:
        guest.settimeout(0.2)
        if self._offer == b"":
            guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            guest.close()
        elif self._offer is not None:
            guest.recv(65536)
            guest.sendall(self._offer)
