"""Hosts in network namespaces of their own, so that single directions of single links can be cut."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from demo_app.network import Namespaces, open_network
from tests.end_to_end.cluster import Cluster

PEER_PORT: Final = 10060
ADMIN_PORT: Final = 10061
APP_PORT: Final = 8000
TOKEN: Final = "only-for-tests-0123456789"


class ApartCluster(Cluster):
    """Hosts n1, n2, n3 with an interface each. The test itself is at the hub, which reaches all of them whatever is cut."""

    def __init__(self, directory: Path, network: Namespaces, **settings: str) -> None:
        super().__init__(directory, len(network.addresses), ADMIN_TOKEN=TOKEN, **settings)
        self._network = network
        self._cut: set[tuple[str, str]] = set()
        seeds = ",".join(f"{address}:{PEER_PORT}" for address in network.addresses.values())
        for host in self.hosts:
            address = network.addresses[host.name]
            host.peer, host.admin, host.app = (address, PEER_PORT), (address, ADMIN_PORT), (address, APP_PORT)
            host.wrap = functools.partial(network.wrap, host.name)
            host.environ["CLUSTERSESSION_PEERS"] = seeds
            host.environ["CLUSTERSESSION_LISTEN"] = f"{address}:{PEER_PORT}"
            host.environ["CLUSTERSESSION_ADMIN_LISTEN"] = f"{address}:{ADMIN_PORT}"

    def cut(self, source: str, target: str) -> None:
        """From now on nothing of what `source` sends arrives at `target`. Nobody is told."""
        rule = f"ip saddr {self._network.addresses[source]} counter drop"
        chain = f"chain arriving {{\ntype filter hook input priority 0; policy accept;\n{rule}\n}}\n"
        self._nft(target, "-f", "-", text=f"table ip {_table(source)} {{\n{chain}}}\n")
        self._cut.add((source, target))

    def mend(self) -> dict[tuple[str, str], int]:
        """Ends all cuts; how many packets each has dropped."""
        dropped = {}
        for source, target in self._cut:
            listed = json.loads(self._nft(target, "-j", "list", "table", "ip", _table(source)))
            rules = [entry["rule"]["expr"] for entry in listed["nftables"] if "rule" in entry]
            dropped[source, target] = sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)
            self._nft(target, "delete", "table", "ip", _table(source))
        self._cut.clear()
        return dropped

    def _nft(self, host: str, *arguments: str, text: str = "") -> str:
        command = self._network.wrap(host, ["nft", *arguments])
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _table(source: str) -> str:
    return f"without_{source}"


@contextmanager
def namespaces(*names: str) -> Iterator[Namespaces]:
    """Skips the test where this process may not make them. The calling thread is at the hub meanwhile."""
    network = open_network(names)
    try:
        if not isinstance(network, Namespaces):
            pytest.skip("NO PARTITION IS TESTED HERE: network namespaces need root, ip and nft")
        with network.inside():
            yield network
    finally:
        network.close()
