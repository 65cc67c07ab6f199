"""Hosts with a node and no app, of which new ones can come under new names and addresses, and others go for good."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.processes import until
from tests.end_to_end.servers import clustersession

Node: TypeAlias = "subprocess.Popen[bytes]"
STARTED_S: Final = 120.0  # twelve interpreters on two processors
_serial = itertools.count()


class Retired(NamedTuple):
    """With what exit code a node has ended, and how many seconds after it was told to. 75: it still owed something."""

    code: int
    seconds: float


class Fleet(Cluster):
    """The hosts there are now are `hosts`; those that have gone are in `gone`."""

    def __init__(self, directory: Path, count: int = 3, **settings: str) -> None:
        super().__init__(directory, count, **settings)
        self._directory = directory
        self._given = {f"CLUSTERSESSION_{name}": text for name, text in settings.items()}
        self.gone: list[Host] = []

    def __exit__(self, *how: object) -> None:
        self.hosts += self.gone
        super().__exit__(None, None, None)

    def start(self) -> Fleet:
        start(self.hosts)
        self.await_settled()
        return self

    def add(self, name: str) -> Host:
        """A host that is new: its name, its address, its empty directory. It knows the others as they are now."""
        home = self._directory / name
        home.mkdir()
        address = f"127.{200 + os.getpid() // 250 % 50}.{os.getpid() % 250 + 1}.{next(_serial) % 250 + 1}"
        host = Host(self.mark, name, home, address, self._given)
        host.environ["CLUSTERSESSION_PEERS"] = ",".join("{}:{}".format(*each.peer) for each in [*self.hosts, host])
        self.hosts.append(host)
        return host

    def retire(self, host: Host, limit_s: float = 60.0) -> Retired:
        """SIGTERM, for good."""
        self.hosts.remove(host)
        self.gone.append(host)
        began = time.monotonic()
        return Retired(ended(told_to_end(host), limit_s), time.monotonic() - began)

    def await_settled(self, deadline_s: float = STARTED_S) -> None:
        """Until all see all, and nobody owes a session its second copy."""
        names = {host.name for host in self.hosts}
        for host in self.hosts:
            until(lambda host=host: settled(host, names), f"{host.name} is not at ease among {names}", deadline_s)  # type: ignore[misc]


def start(hosts: Iterable[Host]) -> None:
    for host in hosts:
        host.launch("node", clustersession("node"))


def told_to_end(host: Host) -> Node:
    """Its node, which has been sent SIGTERM."""
    program = host.programs.pop("node")
    program.send_signal(signal.SIGTERM)
    return program


def ended(program: Node, limit_s: float) -> int:
    """Its exit code."""
    try:
        return program.wait(limit_s)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"a node had not ended {limit_s:g} s after it was told to") from None


def said_by(host: Host) -> dict[str, Any] | None:
    """Its status; None if it gives none."""
    code, body = host.ask_admin("/status")
    found: dict[str, Any] | None = json.loads(body) if code == 200 else None
    return found


def settled(host: Host, names: set[str]) -> bool:
    """Whether its node is in sync, sees exactly `names` alive and owes nothing."""
    said = said_by(host)
    if said is None:
        return False
    alive = {member["identity"] for member in said["members"] if member["state"] == "alive"}
    return bool(said["synced"] and said["converged"]) and said["debt"] == 0 and alive == names


def copies(hosts: Sequence[Host]) -> int:
    return sum(host.status()["store"]["entries"] for host in hosts)


@contextmanager
def place() -> Iterator[Path]:
    """A directory in shared memory where there is any, as the stores of hosts are."""
    with tempfile.TemporaryDirectory(prefix="chaos-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as made:
        yield Path(made)
