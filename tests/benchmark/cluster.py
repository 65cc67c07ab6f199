"""Three real nodes on loopback, and the engines of workers of each of them in this process."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from clustersession.config import Address, Config, Limits, Timeouts
from clustersession.middleware.assembly import EngineSource
from clustersession.node.launch import node_command, node_environ
from clustersession.runtime.engine import Engine

NAMES: Final = ("a", "b", "c")
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
STORE_BYTES: Final = 512 * 2**20
PATIENT: Final = Timeouts(connect_s=2.0, request_s=2.0, budget_s=5.0)
"""A machine that stalls for a moment must show in the 99th percentile, and not end the run with a 503."""


class Kept(NamedTuple):
    """A session that a worker of the benchmark has made: its Cookie header, its key, its owners and their epoch."""

    cookie: str
    key: bytes
    owners: tuple[str, str | None]
    epoch: int


class Cluster:
    """The nodes `NAMES`. This process is a worker of each host whose `engine` it asks for, and by default of the first."""

    def __init__(
        self, configs: Mapping[str, Config], processes: Mapping[str, subprocess.Popen[bytes]], logs: Mapping[str, Path]
    ) -> None:
        self.configs, self.processes, self._logs = configs, dict(processes), logs
        self._engines: dict[str, Engine] = {}

    @property
    def home(self) -> Config:
        """The settings of the host whose worker this process is."""
        return self.configs[NAMES[0]]

    def engine(self, name: str = NAMES[0]) -> Engine:
        if name not in self._engines:
            self._engines[name] = EngineSource(self.configs[name], framework="benchmark")()
        return self._engines[name]

    def status(self, name: str) -> Mapping[str, Any]:
        """What the node says of itself: `store`, `members`, `synced`."""
        with urllib.request.urlopen(f"http://{self.configs[name].admin_listen}/status", timeout=5.0) as answer:
            found: Mapping[str, Any] = json.load(answer)
        return found

    def sessions(self, owners: tuple[str, str], count: int, values: Mapping[str, object]) -> list[Kept]:
        """Sessions that hold `values`, made by a worker of their master; where the backup is another one, it is made anew."""
        engine = self.engine(owners[0])
        found: list[Kept] = []
        while len(found) < count:
            kept = store_session(engine, values)
            if kept.owners == owners:
                found.append(kept)
        return found

    def _ready(self, name: str) -> bool:
        """Whether this host serves alone what it shares with any of the others."""
        board = self.engine(name).host.board
        others = {other for other in NAMES if other != name}
        return board.synced and board.converged and others <= board.leases.keys()

    def restart(self, name: str) -> None:
        """Starts a node that has ended, on the files it has left."""
        self.processes[name] = started(self.configs[name], self._logs[name])

    def _said(self, name: str) -> str:
        return self._logs[name].read_text(encoding="utf-8", errors="replace")

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(self._ready(name) for name in NAMES):
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"node {name} ended with {process.returncode}:\n{self._said(name)}")
            if time.monotonic() > deadline:
                said = "\n".join(map(self._said, NAMES))
                raise RuntimeError(f"the nodes did not meet within {START_TIMEOUT_S:g} s:\n{said}")
            time.sleep(0.05)


def store_session(engine: Engine, values: Mapping[str, object]) -> Kept:
    """A session made as a request of the app makes it, on two hosts."""
    visit = engine.visit((), blocking=True)
    visit.session.update(values)
    engine.blocking.run(visit.save(), visit.budget)
    (issued,) = visit.headers().cookies
    placement, handle = visit.session.placement, visit.session.id
    visit.close()
    assert placement is not None
    assert handle is not None
    return Kept(issued.partition(";")[0], bytes.fromhex(handle), (placement.master, placement.backup), placement.epoch)


@contextmanager
def running(timeouts: Timeouts = PATIENT) -> Iterator[Cluster]:
    """Starts the nodes, yields when they have met, and ends them. Their files are in shared memory where there is any."""
    base = Path(tempfile.mkdtemp(prefix="clustersession-bench-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    configs = _configs(base, timeouts)
    logs = {name: base / f"{name}.log" for name in configs}
    processes = {name: started(config, logs[name]) for name, config in configs.items()}
    cluster = Cluster(configs, processes, logs)
    try:
        cluster.wait_ready()
        yield cluster
    finally:
        for process in cluster.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in cluster.processes.values():
            _ended(process)
        shutil.rmtree(base, ignore_errors=True)


def _configs(base: Path, timeouts: Timeouts) -> dict[str, Config]:
    secret = secrets.token_urlsafe(48)
    listens = {name: Address(host="127.0.0.1", port=port) for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
    admins = {name: Address(host="127.0.0.1", port=port) for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
    return {
        name: Config(
            secret=secret,
            node=name,
            cluster="bench",
            listen=listens[name],
            admin_listen=admins[name],
            peers=tuple(str(listen) for other, listen in listens.items() if other != name),
            data_dir=str(base / name),
            spawn=False,
            limits=Limits(store_bytes_max=STORE_BYTES),
            timeouts=timeouts,
        )
        for name in NAMES
    }


def started(config: Config, log: Path) -> subprocess.Popen[bytes]:
    """The node of `config`; what it says goes to the end of `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(node_command(), env=node_environ(config), stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def _ended(process: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_TIMEOUT_S)
        return
    process.kill()
    process.wait()


def free_ports(count: int) -> Sequence[int]:
    """Ports of loopback that nobody listens on now."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def until(condition: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Waits for `condition`. Raises `RuntimeError` with `what` when it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.02)
