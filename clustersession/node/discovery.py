"""Where the first peers are: the list or the `dns://` name of the settings, resolved anew while the node runs."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterable
from typing import Final

from ..config import Address, Config

RESOLVE_EVERY_S: Final = 5.0
_DNS: Final = "dns://"
log: Final = logging.getLogger("clustersession.node")


def seed_names(peers: Iterable[str]) -> list[tuple[str, int]]:
    """Host and port of each seed; a `dns://name:port` stands for every address of that name."""
    return [_split(peer.removeprefix(_DNS)) for peer in peers]


def _split(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


class Seeds:
    """The addresses of the settings' peers as they resolve now. A name that does not resolve yet is tried again; `unresolved`
    are those that never did, as `name:port`, and why."""

    def __init__(self, peers: Iterable[str]) -> None:
        self._names = seed_names(peers)
        self._resolved: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
        self._looked_at = float("-inf")
        self.unresolved: dict[str, str] = {}

    async def addresses(self, now: float) -> set[tuple[str, int]]:
        """Every address that is known. Looks names up at most once in `RESOLVE_EVERY_S`, without blocking the loop."""
        if now - self._looked_at >= RESOLVE_EVERY_S:
            self._looked_at = now
            await asyncio.gather(*(self._look_up(name) for name in self._names))
        return {address for addresses in self._resolved.values() for address in addresses}

    async def _look_up(self, name: tuple[str, int]) -> None:
        host, port = name
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            if name not in self._resolved:  # else that stays: a DNS server that is down takes nobody out of the cluster
                self._is_unresolved(str(Address(host=host, port=port)), getattr(error, "strerror", None) or str(error))
            return
        self.unresolved.pop(str(Address(host=host, port=port)), None)
        self._resolved[name] = frozenset((str(info[4][0]), port) for info in found)

    def _is_unresolved(self, name: str, why: str) -> None:
        if name not in self.unresolved:
            log.warning("CLUSTERSESSION_PEERS names %s, which has no address here (%s); it is looked up again", name, why)
        self.unresolved[name] = why


def advertised(config: Config, port: int) -> Address:
    """Where peers reach this node: the setting, else this host's address on the route to the first seed."""
    if config.advertise is not None:
        return config.advertise
    if config.listen.host not in ("0.0.0.0", "::", ""):  # noqa: S104  (a comparison)
        return Address(host=config.listen.host, port=port)
    for host, seed_port in seed_names(config.peers):
        address = _route_to(host, seed_port)
        if address is not None:
            return Address(host=address, port=port)
    return Address(host="127.0.0.1", port=port)


def _route_to(host: str, port: int) -> str | None:
    """The own address that the kernel would send from. Connecting a datagram socket sends nothing."""
    try:
        family, kind, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except (OSError, UnicodeError):
        return None
