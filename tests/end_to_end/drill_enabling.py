"""A running site of three hosts is switched over and back, host by host, while its users click."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.sources.servers import redis_server

from .apps.adopting import CART_MAX
from .browser import Browser
from .cluster import Cluster, Host
from .conftest import NewCluster
from .servers import APPS, TOP, Address, gunicorn, uvicorn

SERVERS: dict[str, Callable[[Address], list[str]]] = {
    "Flask-Session on Redis": lambda at: gunicorn(f"{APPS}.adopting_flask:app", at),
    "Django's cached_db": lambda at: gunicorn(f"{APPS}.adopting_django:app", at),
    "Starlette's cookies": lambda at: uvicorn(f"{APPS}.adopting_starlette:app", at, "--timeout-graceful-shutdown", "5"),
}
SIGNED = "Starlette's cookies"
USERS = 8
PAUSE_S = 0.02
CLICKS_EACH_STEP = 80
QUIET_S = 10.0
SECOND_S = 1.05  # signed cookies know no shorter time, and one of the second of a logout is refused


class Site:
    """The hosts in rotation. Who clicks takes one of them; who is taken out ends what is under way there first."""

    def __init__(self, cluster: Cluster, kind: str) -> None:
        self.cluster, self.kind = cluster, kind
        self.modes = {host.name: "off" for host in cluster}
        self._rotation = {host.name: host for host in cluster}
        self._busy: Counter[str] = Counter()
        self._changed = threading.Condition()
        self.clicks: Counter[str] = Counter()

    @contextmanager
    def host(self, chance: random.Random) -> Iterator[Host]:
        with self._changed:
            host = chance.choice(list(self._rotation.values()))
            self._busy[host.name] += 1
        try:
            yield host
        finally:
            with self._changed:
                self._busy[host.name] -= 1
                self.clicks[self.modes[host.name]] += 1
                self._changed.notify_all()

    def switch(self, host: Host, mode: str) -> None:
        """Out of the rotation, ended, started in this mode, in again: a rolling deployment."""
        with self._changed:
            del self._rotation[host.name]
            assert self._changed.wait_for(lambda: not self._busy[host.name], QUIET_S)
        host.end()
        host.environ["CLUSTERSESSION_MODE"] = mode
        host.run(SERVERS[self.kind](host.app))
        self.cluster.await_whole()
        with self._changed:
            self.modes[host.name] = mode
            self._rotation[host.name] = host

    def await_clicks(self, count: int) -> None:
        with self._changed:
            wanted = self.clicks.total() + count
            assert self._changed.wait_for(lambda: self.clicks.total() >= wanted, 60.0), "nobody clicks"


class User(threading.Thread):
    """A browser that knows what it must see."""

    def __init__(self, site: Site, number: int) -> None:
        super().__init__(daemon=True)
        self.site, self.number, self.chance = site, number, random.Random(number)
        self.browser, self.who = Browser(), ""
        self.cart: list[str] = []
        self.stolen: list[Browser] = []
        self.stopped = False
        self.wrong: list[str] = []
        self.trail: list[str] = []
        self.done: Counter[str] = Counter()

    def run(self) -> None:
        while not self.stopped and not self.wrong:
            with self.site.host(self.chance) as host:
                self._click(host, self.chance.random())
            time.sleep(PAUSE_S)

    def look(self, host: Host) -> None:
        self._ask(host, self.browser, "/look", self.who, self.cart)

    def _click(self, host: Host, what: float) -> None:
        enabled = self.site.modes[host.name] != "off"
        if not self.who and what < 0.3:
            self.who = f"user{self.number}"
            self._ask(host, self.browser, "/login", self.who, self.cart, user=self.who)
        elif self.who and what < 0.04:
            self.stolen += [self.browser.copy()] if enabled else []
            self.who, self.cart = "", []
            self._ask(host, self.browser, "/logout", "", [])
            time.sleep(SECOND_S if self.site.kind == SIGNED else 0.0)
        elif what < 0.5:
            item = f"{self.number}.{self.done['/add']}"
            self.cart = [*self.cart, item][-CART_MAX:]
            self._ask(host, self.browser, "/add", self.who, self.cart, item=item)
        elif what < 0.6 and self.stolen and enabled:
            self._ask(host, self.chance.choice(self.stolen).copy(), "/look", "", None)
        else:
            self.look(host)

    def _ask(self, host: Host, browser: Browser, path: str, who: str, cart: list[str] | None, **query: str) -> None:
        answer = browser.get(host.app, path, **query)
        seen: Any = answer.body
        if answer.status == 200:
            seen = answer.seen["user"] or "", None if cart is None else answer.seen["cart"]
        if seen != (who, cart):
            self.wrong.append(f"{path} on {host.name}: {answer.status} {seen!r} instead of {(who, cart)!r} after {self.trail}")
        self.trail = [*self.trail, f"{time.time():.2f} {path} {query or ''} on {host.name} ({self.site.modes[host.name]})"][-8:]
        self.done["replay" if browser is not self.browser else path] += 1


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", SERVERS)
def test_nobody_is_logged_out_while_a_site_is_switched_over_and_back(kind: str, new_cluster: NewCluster, tmp_path: Path) -> None:
    """off -> mirror -> on -> mirror -> off, each host restarted for it under load: no error, no logout, no item lost, no logout
    undone; and in the end the old system alone has it all."""
    with redis_server() as port:
        cluster = new_cluster(3)
        for host in cluster:
            host.environ |= {
                "CLUSTERSESSION_MODE": "off",
                "OLD_REDIS_PORT": str(port),
                "OLD_DATABASE": str(tmp_path / "old.sqlite"),
            }
        if kind == "Django's cached_db":
            make_tables = [sys.executable, "-m", f"{APPS}.adopting_django"]
            subprocess.run(make_tables, env=cluster["n1"].environ, cwd=TOP, check=True)
        for host in cluster:
            host.run(SERVERS[kind](host.app))
        cluster.await_whole()
        site = Site(cluster, kind)
        users = [User(site, number) for number in range(USERS)]
        for user in users:
            user.start()
        try:
            _switched_over_and_back(site, users)
        finally:
            for user in users:
                user.stopped = True
            for user in users:
                user.join(20.0)
        for user, host in ((user, host) for user in users for host in cluster):
            user.look(host)
        _assert_fine(users)
        done = sum((user.done for user in users), Counter[str]())
        print(dict(done))
        assert min(done[what] for what in ("/login", "/logout", "/add", "replay")) > 5
        assert [
            each for each in cluster.complaints() if "unclosed <socket" not in each
        ] == []  # the old store's clients leave some


def _switched_over_and_back(site: Site, users: list[User]) -> None:
    site.await_clicks(CLICKS_EACH_STEP)
    for mode in ("mirror", "on", "mirror", "off"):
        for host in site.cluster:
            site.switch(host, mode)
            site.await_clicks(CLICKS_EACH_STEP)
            _assert_fine(users)
        print(f"all hosts are in mode {mode}: {dict(site.clicks)}")


def _assert_fine(users: list[User]) -> None:
    wrong = [each for user in users for each in user.wrong]
    assert not wrong, "\n".join(wrong)
