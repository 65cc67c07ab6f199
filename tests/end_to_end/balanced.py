"""A real balancer in front of a cluster, configured by `clustersession lb`, and users who never stop clicking."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

from .browser import Answer, Browser, send
from .cluster import Cluster, Host, free_port, refuses
from .processes import DEADLINE_S, end_with_parent, until
from .servers import APPS, Address, clustersession, gunicorn

THINKING_S = 0.02
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])

HAPROXY_FRONT = """\
defaults
    mode http
    timeout client 20s
    timeout server 20s
frontend web
    bind {address}:{port}
    default_backend clustersession
"""

NGINX_FRONT = """\
daemon off;
pid nginx.pid;
error_log stderr;
worker_processes 2;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include {made};
    server {{
        listen {address}:{port};
        location / {{
            proxy_pass http://$clustersession;
            proxy_connect_timeout 500ms;
            proxy_set_header Host $host;
        }}
    }}
}}
"""


class Balancer:
    """HAProxy or nginx from the distribution's package, with a front as a user would write it and the generated file."""

    def __init__(self, kind: str, directory: Path, address: str) -> None:
        found = shutil.which(kind, path=_PATH)
        if found is None:
            pytest.skip(f"{kind} is not installed: its generated configuration was NOT tried")
        self.kind, self.directory, self.at = kind, directory, (address, free_port(address))
        self.made, self.front, self.log = directory / "made.conf", directory / "front.conf", directory / f"{kind}.log"
        front = HAPROXY_FRONT if kind == "haproxy" else NGINX_FRONT
        self.front.write_text(front.format(address=address, port=self.at[1], made=self.made))
        both = [found, "-f", str(self.front), "-f", str(self.made)]
        self.command = both if kind == "haproxy" else [found, "-p", f"{directory}/", "-c", str(self.front), "-e", "stderr"]

    def configure(self, host: Host, *options: str) -> None:
        """Makes the file with the settings of `host`."""
        self.options = options
        done = self.asked(host)
        assert done.returncode == 0, done.stderr
        self.made.write_text(done.stdout)

    def asked(self, host: Host, *more: str) -> subprocess.CompletedProcess[str]:
        """`clustersession lb` on `host`, with the options of the file."""
        command = clustersession("lb", self.kind, *self.options, *more)
        return subprocess.run(command, env=host.environ, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    def serves(self, *names: str) -> bool:
        """Whether hosts of these names get the requests of users without a session, in turn."""
        answers = [send(self.at, "/look", []) for _ in range(2 * len(names))]
        return {answer.header("X-Served-By") for answer in answers} == set(names)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent
            )
        until(lambda: not refuses(self.at) or self._process.poll() is not None, f"{self.kind} does not listen")
        assert self._process.poll() is None, self.log.read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(DEADLINE_S)
        if kind is not None:
            print(self.log.read_text())


def spread(cluster: Cluster) -> Cluster:
    """Gives each host an address of its own with the same ports, as hosts have it."""
    second, rest = cluster.address.split(".", 2)[1:]
    names = [f"127.{(int(second) + 64 * number) % 192 + 64}.{rest}" for number in range(1, 1 + len(cluster.hosts))]
    ports = [free_port(names[0]) for _ in range(3)]
    for host, name in zip(cluster.hosts, names, strict=True):
        host.peer, host.admin, host.app = ((name, port) for port in ports)
        host.environ["CLUSTERSESSION_LISTEN"] = f"{name}:{ports[0]}"
        host.environ["CLUSTERSESSION_ADMIN_LISTEN"] = f"{name}:{ports[1]}"
        host.environ["CLUSTERSESSION_PEERS"] = ",".join(f"{each}:{ports[0]}" for each in names)
    return cluster


def start(host: Host) -> None:
    """The node and the app that reports."""
    host.run(gunicorn(f"{APPS}.reporting_app:app", host.app))


class Click(NamedTuple):
    """One answered request of a user: by whom, who owned the session then, whether it was read without a peer."""

    number: int
    served: str
    owners: list[str | None]
    read: str

    @property
    def local(self) -> bool:
        return self.read == "local"


def click_of(number: int, answer: Answer) -> Click:
    return Click(number, answer.header("X-Served-By") or "", answer.seen["owners"], answer.header("X-Session-Read") or "")


class User:
    """Logs in, then reads, and writes now and then; notes every answer, and what was not as it should be.

    `posts`: the writes are POSTs, which no balancer repeats.
    """

    def __init__(self, name: str, front: Address, *, posts: bool = False) -> None:
        self.name, self.front, self.browser = name, front, Browser()
        self._write = self.browser.post if posts else self.browser.get
        self.clicks: list[Click] = []
        self.errors: list[str] = []
        self.busy = threading.Lock()
        self._cart = "0"

    def log_in(self) -> Self:
        self.browser.get(self.front, "/set", _user_id=self.name, cart=self._cart).seen  # noqa: B018  (asserts)
        return self

    def click(self) -> None:
        """A read; each eighth time a write. What is wrong goes to `errors`."""
        number = len(self.clicks) + len(self.errors)
        path, query = ("/look", {}) if number % 8 else ("/set", {"cart": f"{number}"})
        try:
            with self.busy:
                answer = (self._write if query else self.browser.get)(self.front, path, **query)
            click = click_of(number, answer)
        except (OSError, HTTPException, AssertionError) as error:
            self.errors.append(f"{self.name} {path} {number}: {error!r}")
            return
        self._cart = query.get("cart", self._cart)
        if answer.items != {"_user_id": self.name, "cart": self._cart}:
            self.errors.append(f"{self.name} {path} {number}: {answer.items}, but the cart is {self._cart}")
            return
        self.clicks.append(click)


class Crowd:
    """Users who click in threads of their own as long as the context lasts."""

    def __init__(self, front: Address, count: int, *, posts: bool = False) -> None:
        self.users = [User(f"u{number}", front, posts=posts) for number in range(count)]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=[user]) for user in self.users]

    def __enter__(self) -> Self:
        for user in self.users:
            user.log_in()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _live(self, user: User) -> None:
        while not self._over.is_set():
            user.click()
            time.sleep(THINKING_S)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """No request is under way: what a host has accepted and dies with is nobody's to repeat."""
        with ExitStack() as held:
            for user in self.users:
                held.enter_context(user.busy)
            yield

    @property
    def errors(self) -> list[str]:
        return [error for user in self.users for error in user.errors]

    @property
    def answered(self) -> int:
        return sum(len(user.clicks) for user in self.users)

    def more(self, count: int) -> list[Click]:
        """The next `count` clicks of every user."""
        before = [len(user.clicks) for user in self.users]
        until(lambda: all(len(user.clicks) >= had + count for user, had in zip(self.users, before, strict=True)), "no clicks")
        return [click for user, had in zip(self.users, before, strict=True) for click in user.clicks[had : had + count]]


def share_local(clicks: list[Click]) -> float:
    return sum(click.local for click in clicks) / len(clicks)
