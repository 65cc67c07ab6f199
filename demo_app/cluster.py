"""Three app hosts as real processes, and what can happen to them: killed, paused, silent, restarted.

Every fault proves that it happened: a killed host has no process left, a paused one has every process stopped, a
silent one has dropped packets.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path

from .commands import ADMIN_PORT, APP_PORT, FRAMEWORKS, Site, environment, host_command
from .http1 import Connection, Cut, Request, Response, request_bytes
from .network import Network
from .processes import MARK, end_with_parent, left_behind, marked, signal_all, stopped

ROOT = Path(__file__).resolve().parent.parent  # where `demo_app` can be imported
_PREFIX = "clustersession-demo-"
NAMES = ("app1", "app2", "app3")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
GONE_TIMEOUT_S = 5.0
PROBE_TIMEOUT_S = 1.0
LOG_END_CHARS = 16_000
_POLL_S = 0.05


class FaultFailed(Exception):
    """A fault did not happen as it was ordered, or a host did not come back from one."""


class Cluster:
    """The app hosts `names` in `network`, all serving the shop in `framework`."""

    def __init__(self, framework: str, network: Network, names: Sequence[str] = NAMES) -> None:
        if framework not in FRAMEWORKS:
            raise ValueError(f"{framework!r} is none of {', '.join(FRAMEWORKS)}")
        self.framework, self.network, self.names = framework, network, tuple(names)
        self.place = _new_place()
        self._secret, self.admin_token = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        self._run = secrets.token_hex(8)
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self.silent: set[str] = set()
        self.paused: set[str] = set()

    def address(self, name: str) -> str:
        return self.network.addresses[name]

    def log(self, name: str) -> Path:
        """What the host's processes have printed."""
        return self.place / f"{name}.log"

    def processes(self, name: str) -> list[int]:
        return marked(f"{self._run}/{name}")

    def start(self, name: str) -> None:
        """Start the host's processes, with the files it had before."""
        site = Site(name, self.address(name), str(self.place / name))
        peers = [self.address(each) for each in self.names]
        variables = environment(site, peers, secret=self._secret, admin_token=self.admin_token)
        with self.log(name).open("ab") as log:
            self._servers[name] = subprocess.Popen(
                self.network.wrap(name, _resolved(host_command(self.framework, site.address))),
                env={**_inherited(), **variables, MARK: f"{self._run}/{name}"},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509  (the demo has no other thread)
            )

    async def ready(self, name: str, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until the host's node is in sync and its app answers."""
        deadline = time.monotonic() + timeout_s
        while not (await self._says_ok(name, ADMIN_PORT, b"/readyz") and await self._says_ok(name, APP_PORT, b"/healthz")):
            server = self._servers.get(name)
            if server is None or server.poll() is not None or time.monotonic() > deadline:
                raise FaultFailed(f"{name} did not become ready")
            await asyncio.sleep(_POLL_S)

    async def settled(self) -> None:
        """Wait until every node says that it is in sync and knows the state of all others: the next fault is one of its own."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while waiting := [name for name in self.names if not await self._in_sync(name)]:
            if time.monotonic() > deadline:
                raise FaultFailed(f"not in sync after {START_TIMEOUT_S:.0f} s: {', '.join(waiting)}")
            await asyncio.sleep(_POLL_S)

    async def _in_sync(self, name: str) -> bool:
        response = await self._asked(name, ADMIN_PORT, b"/status")
        if response is None or response.status != HTTPStatus.OK:
            return False
        status = json.loads(response.body)
        return bool(status["synced"] and status["converged"] and all(member["state"] == "alive" for member in status["members"]))

    async def all_ready(self) -> None:
        await asyncio.gather(*(self.ready(name) for name in self.names))

    async def kill(self, name: str) -> int:
        """kill -9 for every process of the host at once; returns how many there were."""
        victims = self.processes(name)
        signal_all(victims, signal.SIGKILL)
        await _until(lambda: not self.processes(name), GONE_TIMEOUT_S, f"{name} still has processes after kill -9")
        self._reap(name)
        self.paused.discard(name)
        if not victims:
            raise FaultFailed(f"{name} had no process to kill")
        return len(victims)

    async def stop(self, name: str) -> int:
        """SIGTERM for the supervisor, as a service manager does, and wait for its end; returns its exit code."""
        server = self._servers[name]
        server.terminate()
        await _until(lambda: server.poll() is not None, STOP_TIMEOUT_S, f"{name} did not end after SIGTERM")
        await _until(lambda: not self.processes(name), GONE_TIMEOUT_S, f"{name} left processes behind after SIGTERM")
        return int(server.returncode)

    async def pause(self, name: str) -> int:
        """SIGSTOP for every process of the host; returns how many there are."""
        pids = self.processes(name)
        signal_all(pids, signal.SIGSTOP)
        await _until(lambda: all(map(stopped, self.processes(name))), GONE_TIMEOUT_S, f"{name} did not stop")
        self.paused.add(name)
        if not pids:
            raise FaultFailed(f"{name} had no process to stop")
        return len(pids)

    def resume(self, name: str) -> None:
        signal_all(self.processes(name), signal.SIGCONT)
        self.paused.discard(name)

    def silence(self, name: str) -> None:
        """Drop every packet from and to the host; its processes go on."""
        self.network.silence(name)
        self.silent.add(name)

    def unsilence(self, name: str) -> int:
        """End it; returns how many packets were dropped."""
        self.silent.discard(name)
        return self.network.unsilence(name)

    async def fall_silent(self, name: str) -> None:
        """The harder of the two silences this machine allows."""
        if self.network.drops_packets:
            self.silence(name)
        else:
            await self.pause(name)

    def speak_again(self, name: str) -> str:
        """End `fall_silent`; returns the proof that it happened."""
        if self.network.drops_packets:
            dropped = self.unsilence(name)
            if not dropped:
                raise FaultFailed(f"no packet of {name} was dropped while it was to be silent")
            return f"{dropped} packets dropped"
        pids = self.processes(name)
        if not pids or not all(map(stopped, pids)):
            raise FaultFailed(f"a process of {name} was running while it was to be silent")
        self.resume(name)
        return f"{len(pids)} processes were stopped"

    def close(self) -> None:
        """Kill what is left and remove every trace."""
        for name in self.names:
            signal_all(self.processes(name), signal.SIGKILL)
            self._reap(name)
        self.network.close()
        shutil.rmtree(self.place, ignore_errors=True)

    def _reap(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is not None:
            server.kill()
            server.wait(timeout=GONE_TIMEOUT_S)

    async def _says_ok(self, name: str, port: int, path: bytes) -> bool:
        response = await self._asked(name, port, path)
        return response is not None and response.status == HTTPStatus.OK

    async def _asked(self, name: str, port: int, path: bytes) -> Response | None:
        """None: no answer."""
        headers = [(b"host", b"demo"), (b"authorization", b"Bearer " + self.admin_token.encode("ascii"))]
        request = request_bytes(Request(b"GET", path, headers, b""), close=True)
        try:
            connection = await Connection.open(self.address(name), port, PROBE_TIMEOUT_S)
            try:
                return await connection.ask(request, PROBE_TIMEOUT_S)
            finally:
                connection.close()
        except (OSError, Cut):
            return None

    def log_end(self, name: str) -> str:
        """The last part of it: a whole run without faults of ours fits in."""
        return self.log(name).read_text(errors="replace")[-LOG_END_CHARS:] if self.log(name).exists() else "(no log)"


async def _until(condition: Callable[[], bool], timeout_s: float, failure: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise FaultFailed(failure)
        await asyncio.sleep(_POLL_S)


def _resolved(command: list[str]) -> list[str]:
    """`clustersession` and the app server of this very Python, wherever the shell's PATH leads."""
    assert command[0] == "clustersession"
    return [sys.executable, "-m", *command]


def _inherited() -> dict[str, str]:
    """What the hosts get of the demo's own environment: nothing that would change how clustersession runs there."""
    scripts = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLUSTERSESSION_", "PYTEST_"))}
    return {**kept, "PATH": scripts + os.pathsep + os.environ.get("PATH", os.defpath), "PYTHONUNBUFFERED": "1"}


def _new_place() -> Path:
    """A private directory, in memory where there is such a place; what demos that were killed have left there goes."""
    memory = Path("/dev/shm")  # noqa: S108  (mkdtemp makes it private)
    parent = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    for entry in parent.iterdir():
        if left_behind(entry.name, _PREFIX):
            shutil.rmtree(entry, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=parent))
