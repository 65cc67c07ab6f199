"""App hosts as real processes on this machine: started, killed, stopped, restarted, and always cleaned up.

Each cluster has a loopback address of its own, so that nobody else's connections can take its ports.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clustersession.settings import new_key

from .browser import Answer, Browser, send
from .processes import (
    DEADLINE_S,
    MARK,
    command_of,
    complaints,
    end_with_parent,
    kill_all,
    marked,
    signal_all,
    state_of,
    until,
)
from .servers import FLASK, Address, bare_environ, clustersession, gunicorn

SECRET = new_key(1)
LOG_SHOWN_CHARS = 6000
SYNCED_S = 20.0
_serial = itertools.count()
_given: set[Address] = set()


def free_port(host: str) -> int:
    """A port that nobody listens on, never the same twice."""
    while True:
        with socket.socket() as sock:
            sock.bind((host, 0))
            at: Address = sock.getsockname()
        if at not in _given:
            _given.add(at)
            return at[1]


def refuses(at: Address) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as sock:
        return sock.connect_ex(at) != 0


class Host:
    """One app host: its settings, its directory, its programs. Several programs are several apps on the same node."""

    def __init__(self, mark: str, name: str, directory: Path, address: str, settings: dict[str, str]) -> None:
        self.mark, self.name, self.directory = f"{mark}.{name}.", name, directory
        self.peer: Address = (address, free_port(address))
        self.admin: Address = (address, free_port(address))
        self.app: Address = (address, free_port(address))
        self.programs: dict[str, subprocess.Popen[bytes]] = {}
        self.wrap: Callable[[Sequence[str]], Sequence[str]] = list  # a command as it runs where this host is
        self.environ = {
            **bare_environ(directory / "home"),
            MARK: self.mark,
            "CLUSTERSESSION_SECRET": SECRET,
            "CLUSTERSESSION_NODE": name,
            "CLUSTERSESSION_DATA_DIR": str(directory / "data"),
            "CLUSTERSESSION_LISTEN": f"{address}:{self.peer[1]}",
            "CLUSTERSESSION_ADMIN_LISTEN": f"{address}:{self.admin[1]}",
            "CLUSTERSESSION_COOKIE_SECURE": "0",
            "CLUSTERSESSION_MAX_BYTES": "16MiB",
            "CLUSTERSESSION_READY_TIMEOUT": "15s",
            **settings,
        }

    def __repr__(self) -> str:
        return f"<Host {self.name} {', '.join(self.programs) or 'idle'}>"

    # --- start and end ---------------------------------------------------------------------------------------------------

    def run(self, server: Sequence[str] | None = None) -> subprocess.Popen[bytes]:
        """`clustersession run` with an app server (None: the Flask app in gunicorn)."""
        return self.launch("run", clustersession("run", "--", *(server or gunicorn(FLASK, self.app))))

    def launch(self, name: str, command: Sequence[str], **environ: str) -> subprocess.Popen[bytes]:
        """A program of this host, which says what it says to `<name>.log`."""
        with self.log_path(name).open("ab") as log:
            self.programs[name] = started = subprocess.Popen(
                self.wrap(command),
                cwd=self.directory,
                env={**self.environ, **environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        return started

    def end(self, name: str = "run", number: signal.Signals = signal.SIGTERM) -> int:
        """Signals one program as an init system does; gives its exit code."""
        program = self.programs.pop(name)
        program.send_signal(number)
        return program.wait(DEADLINE_S)

    def kill(self) -> list[int]:
        """kill -9 of everything at once, as when the machine is gone; who it was."""
        killed = kill_all(self.mark)
        for program in self.programs.values():
            program.wait(DEADLINE_S)
        self.programs.clear()
        assert killed
        for at in (self.peer, self.app):
            until(lambda at=at: refuses(at), f"{at} is still listened on")  # type: ignore[misc]  # threads outlive their leader
        return killed

    def pause(self) -> list[int]:
        """SIGSTOP to everything; who it was. Connections stay open and nobody answers."""
        pids = self.pids
        signal_all(pids, signal.SIGSTOP)
        until(lambda: all(state_of(pid) == "T" for pid in pids), f"{self.name} did not stop")
        return pids

    def resume(self) -> None:
        signal_all(self.pids, signal.SIGCONT)

    # --- what there is -----------------------------------------------------------------------------------------------------

    @property
    def pids(self) -> list[int]:
        return marked(self.mark)

    @property
    def nodes(self) -> list[int]:
        """The node's own processes: one, or two for the moment in which one starts the other."""
        return [pid for pid in self.pids if "-m clustersession node" in command_of(pid)]

    def stray(self) -> list[str]:
        """Processes that should not be there when everything has ended."""
        return [command_of(pid) for pid in self.pids]

    @property
    def place(self) -> Path:
        return self.directory / "data" / f"default-{self.name}"

    def log_path(self, name: str = "run") -> Path:
        return self.directory / f"{name}.log"

    def logs(self) -> dict[str, str]:
        """All logs of this host by file name, that of a node its workers have started too."""
        paths = [*sorted(self.directory.glob("*.log")), self.place / "node.log"]
        return {path.name: path.read_text(errors="replace") for path in paths if path.exists()}

    def complaints(self) -> list[str]:
        return [f"{name}: {line}" for name, text in self.logs().items() for line in complaints(text)]

    # --- asking it ---------------------------------------------------------------------------------------------------------

    def ask_admin(self, path: str) -> tuple[int, str]:
        """Status and body; 0 if there is no answer."""
        token = {"Authorization": f"Bearer {self.environ.get('CLUSTERSESSION_ADMIN_TOKEN', '')}"}
        asked = urllib.request.Request(f"http://{self.admin[0]}:{self.admin[1]}{path}", headers=token)
        try:
            with urllib.request.urlopen(asked, timeout=5) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def status(self) -> dict[str, Any]:
        code, body = self.ask_admin("/status")
        assert code == 200, (code, body)
        found: dict[str, Any] = json.loads(body)
        return found

    def member_states(self) -> dict[str, str]:
        """Who is what in this node's eyes; nothing if it cannot be asked."""
        code, body = self.ask_admin("/status")
        return {m["identity"]: m["state"] for m in json.loads(body)["members"]} if code == 200 else {}

    def sees(self, names: set[str]) -> bool:
        """Whether its node is in sync and sees exactly `names` alive."""
        code, body = self.ask_admin("/status")
        if code != 200:
            return False
        said = json.loads(body)
        alive = {m["identity"] for m in said["members"] if m["state"] == "alive"}
        return bool(said["synced"] and said["converged"]) and alive == names

    def serves(self, address: Address | None = None, prefix: str = "") -> bool:
        """Whether the app answers a request without a session."""
        with suppress(OSError):
            return send(address or self.app, f"{prefix}/look", []).status == 200
        return False

    def look(self, browser: Browser) -> Answer:
        """What the app shows for the browser's cookies, which stay as they are."""
        return send(self.app, "/look", browser.cookies)


def session_of(master: Host, backup: Host | None = None, *, user: str = "u") -> Browser:
    """A browser that is logged in as `user`, with an apple in its cart, and a session with these owners."""
    for _ in range(100):
        browser = Browser()
        browser.get(master.app, "/set", _user_id=user, cart="apple")
        owners = browser.get(master.app, "/look").seen["owners"]
        assert owners[0] == master.name
        if backup is None or owners[1] == backup.name:
            return browser
    raise AssertionError("no session of a hundred had these owners")


class Cluster:
    """Hosts n1, n2, ... that know each other. As a context it leaves no process behind."""

    def __init__(self, directory: Path, count: int = 3, **settings: str) -> None:
        self.mark = f"{os.getpid()}.{next(_serial)}"
        self.address = f"127.{64 + os.getpid() // 250 % 128}.{os.getpid() % 250 + 1}.{next(_serial) % 250 + 1}"
        given = {f"CLUSTERSESSION_{name}": text for name, text in settings.items()}
        self.hosts: list[Host] = []
        for name in (f"n{number + 1}" for number in range(count)):
            home = directory / name
            home.mkdir(parents=True)
            self.hosts.append(Host(self.mark, name, home, self.address, given))
        for host in self.hosts:
            if count > 1:
                host.environ["CLUSTERSESSION_PEERS"] = ",".join(f"{each.peer[0]}:{each.peer[1]}" for each in self.hosts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        kill_all(f"{self.mark}.")
        for host in self.hosts:
            for program in host.programs.values():
                program.wait(DEADLINE_S)

    def __iter__(self) -> Iterator[Host]:
        return iter(self.hosts)

    def __getitem__(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)

    def start(self) -> Cluster:
        """Every host with `clustersession run` and the Flask app; comes back when all see each other."""
        self.heal()
        return self

    def heal(self) -> None:
        """Resumes and starts what is not running, and waits until the cluster is whole."""
        for host in self.hosts:
            host.resume()
            if not host.pids:
                host.run()
        self.await_whole()

    def await_whole(self) -> None:
        names = {host.name for host in self.hosts}
        for host in self.hosts:
            until(host.serves, f"{host.name} does not serve", SYNCED_S)
            until(lambda host=host: host.sees(names), f"{host.name} does not see {names}", SYNCED_S)  # type: ignore[misc]

    def others(self, *names: str | None) -> list[Host]:
        return [host for host in self.hosts if host.name not in names]

    def entries(self) -> int:
        """Records, tombstones and pointers on all hosts."""
        return sum(host.status()["store"]["entries"] for host in self.hosts)

    def logs(self) -> Iterator[tuple[str, str]]:
        """The ends of all logs, with titles."""
        for host in self.hosts:
            for name, text in host.logs().items():
                yield f"{host.name} {name}", text[-LOG_SHOWN_CHARS:]

    def complaints(self) -> list[str]:
        return [f"{host.name} {line}" for host in self.hosts for line in host.complaints()]
