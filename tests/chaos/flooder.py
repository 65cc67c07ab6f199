"""Strangers at a node's port: `python -m tests.chaos.flooder HOST PORT RATE --out FILE`, until SIGTERM.

Each comes on a connection of its own, from an address of its own, and says something that is no message of a peer: what a
browser says, noise, or a hello with a proof under another secret. RATE of them a second; how many there were, and how many
bytes they were answered with, is written to FILE as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import socket
import struct
import sys
import threading
from collections import deque
from pathlib import Path
from time import monotonic
from typing import Final

from clustersession.transport.link import Initiator
from tests.transport.kit import OTHER_RING, wiring

TICK_S: Final = 0.01
HELD_S: Final = 0.2  # a connection is looked at again after so long: whoever was to be dropped is by then
AT_ONCE_MAX: Final = 200
NO_LINGER: Final = struct.pack("ii", 1, 0)


def junk() -> list[bytes]:
    """One of each kind."""
    hello = Initiator(wiring("n9", cluster="default", ring=lambda: OTHER_RING), "").hello()
    return [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(300), hello, b"POST /v1/hello HTTP/1.1\r\ncontent-length: 9\r\n\r\n"]


class Flood:
    """`sent` strangers, of whom `closed` were dropped within `HELD_S`."""

    def __init__(self, target: tuple[str, int], rate: float) -> None:
        self._target, self._rate = target, rate
        self._kinds = itertools.cycle(junk())
        self._sources = (f"127.99.{number // 250 % 250 + 1}.{number % 250 + 1}" for number in itertools.count())
        self._held: deque[tuple[float, socket.socket]] = deque()
        self.sent = self.closed = self.answered = self.failed = 0

    def run(self, over: threading.Event) -> None:
        began, next_at = monotonic(), monotonic()
        while not over.wait(max(0.0, next_at - monotonic())):
            next_at = max(next_at + TICK_S, monotonic())
            due = int((monotonic() - began) * self._rate) - self.sent - self.failed
            for _ in range(min(due, AT_ONCE_MAX)):
                self._one()
            self._look_again()
        self.seconds = monotonic() - began

    def _one(self) -> None:
        sock = socket.socket()
        try:
            sock.settimeout(0.5)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            sock.bind((next(self._sources), 0))
            sock.connect(self._target)
            sock.sendall(next(self._kinds))
        except OSError:
            self.failed += 1
            sock.close()
            return
        self.sent += 1
        sock.setblocking(False)
        self._held.append((monotonic() + HELD_S, sock))

    def _look_again(self) -> None:
        while self._held and self._held[0][0] < monotonic():
            _, sock = self._held.popleft()
            try:
                said = sock.recv(65536)
                self.closed += 1
                self.answered += len(said)
            except BlockingIOError:
                pass  # nobody has come to it yet
            except OSError:
                self.closed += 1
            sock.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.flooder", description=(__doc__ or "").partition(":")[0])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    flood = Flood((options.host, options.port), options.rate)
    flood.run(over)
    counts = {name: getattr(flood, name) for name in ("sent", "closed", "answered", "failed", "seconds")}
    options.out.write_text(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
