"""Host names of peers to addresses, without ever waiting for the name service.

Peers are nearly always known by address. A name is looked up in a thread of its own, which nobody joins: the standard
library's look-up cannot be given a time-out.
"""

from __future__ import annotations

import socket
from threading import Thread
from time import monotonic
from typing import Any, Final, NamedTuple, TypeAlias

KEPT_S: Final = 30.0
RETRY_S: Final = 1.0
_NAMES_MAX: Final = 256

SockAddr: TypeAlias = tuple[int, Any]
"""An address family, and what `connect` takes in it."""


class _Lookup(NamedTuple):
    addresses: list[SockAddr] | None  # None: under way
    until: float


class Resolver:
    """Remembers what names resolved to."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], _Lookup] = {}

    def addresses(self, host: str, port: int) -> list[SockAddr] | None:
        """Where `host` is: at once for an address, None while a look-up is under way, [] for a name that does not resolve."""
        lookup = self._lookups.get((host, port))
        if lookup is not None and monotonic() < lookup.until:
            return lookup.addresses
        for family, rest in ((socket.AF_INET, ()), (socket.AF_INET6, (0, 0))):
            try:
                socket.inet_pton(family, host)
            except (OSError, ValueError):  # not an address of this family
                continue
            return [(family, (host, port, *rest))]
        self._start(host, port)
        return None

    def _start(self, host: str, port: int) -> None:
        if len(self._lookups) >= _NAMES_MAX:
            self._lookups.clear()
        self._lookups[host, port] = _Lookup(None, monotonic() + KEPT_S)
        Thread(target=self._look_up, args=(host, port), name=f"clustersession-resolve-{host}", daemon=True).start()

    def _look_up(self, host: str, port: int) -> None:
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = _Lookup([(family, address) for family, _, _, _, address in infos], monotonic() + KEPT_S)
        except (OSError, ValueError):
            found = _Lookup([], monotonic() + RETRY_S)
        self._lookups[host, port] = found
