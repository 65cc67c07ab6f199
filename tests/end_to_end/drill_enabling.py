"""A running site of three hosts is switched over and back, host by host, while its users click."""

from __future__ import annotations

import json
import os
import random
import re
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
from .drill_page import Sample, page
from .servers import APPS, TOP, Address, gunicorn, uvicorn

SERVERS: dict[str, Callable[[Address], list[str]]] = {
    "Flask-Session on Redis": lambda at: gunicorn(f"{APPS}.adopting_flask:app", at),
    "Django's cached_db": lambda at: gunicorn(f"{APPS}.adopting_django:app", at),
    "Starlette's cookies": lambda at: uvicorn(f"{APPS}.adopting_starlette:app", at, "--timeout-graceful-shutdown", "5"),
}
SIGNED = "Starlette's cookies"
USERS = int(os.environ.get("DRILL_USERS", "300"))
PAUSE_S = max(0.02, USERS / 120)  # some 100 requests a second, however many they are
CLICKS_EACH_STEP = 10 * USERS if USERS < 20 else 300
OUT = Path(os.environ.get("DRILL_OUT", "."))
STEPS = ("shadow", "mirror", "on", "mirror", "shadow", "off")
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

    def counted(self, name: str) -> int:
        """A counter over all hosts that answer."""
        pages = [host.ask_admin("/metrics")[1] for host in self.cluster]
        return sum(int(float(value)) for page in pages for value in re.findall(rf"^\w*{name}_total (\S+)$", page, re.MULTILINE))


class Watch(threading.Thread):
    """Looks once a second what there is to see."""

    def __init__(self, site: Site, users: list[User]) -> None:
        super().__init__(daemon=True)
        self.site, self.users, self.over = site, users, threading.Event()
        self.samples: list[Sample] = []
        self._began, self._adopted = time.monotonic(), 0

    def run(self) -> None:
        while not self.over.wait(1.0 if self.samples else 0.0):
            self.look()

    def look(self) -> None:
        self._adopted = max(self._adopted, self.site.counted("session_adopted"))
        wrong = sum(len(user.wrong) for user in self.users)
        at_s = time.monotonic() - self._began
        self.samples.append(Sample(at_s, dict(self.site.modes), self.site.clicks.total(), self._adopted, wrong))


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
        enabled = self.site.modes[host.name] in ("mirror", "on")
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
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SERVERS)
def test_nobody_is_logged_out_while_a_site_is_switched_over_and_back(kind: str, new_cluster: NewCluster, tmp_path: Path) -> None:
    """off -> shadow -> mirror -> on and back, each host restarted for it under load: no error, no logout, no item lost, no logout
    undone; and in the end the old system alone has it all. Prints a JSON line, and leaves a page with what there was to see."""
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
        watch = Watch(site, users)
        watch.start()
        try:
            _switched_over_and_back(site, users)
        finally:
            watch.over.set()
            for user in users:
                user.stopped = True
            for user in users:
                user.join(20.0)
        for user, host in ((user, host) for user in users for host in cluster):
            user.look(host)
        _assert_fine(users)
        done = sum((user.done for user in users), Counter[str]())
        watch.join(10.0)
        watch.look()
        told(kind, site, watch.samples, done)
        assert min(done[what] for what in ("/login", "/logout", "/add", "replay")) > 5
        assert [
            each for each in cluster.complaints() if "unclosed <socket" not in each
        ] == []  # the old store's clients leave some


def _switched_over_and_back(site: Site, users: list[User]) -> None:
    site.await_clicks(CLICKS_EACH_STEP)
    for step, mode in enumerate(STEPS):
        if step == len(STEPS) - 2:
            _everybody_comes_by(site, users)
        for host in site.cluster:
            site.switch(host, mode)
            site.await_clicks(CLICKS_EACH_STEP)
            _assert_fine(users)
        print(f"all hosts are in mode {mode}: {dict(site.clicks)}")


def _everybody_comes_by(site: Site, users: list[User]) -> None:
    """As the guide says: what was done in `on` is written back with the next request."""
    seen = {user: user.done.total() for user in users}
    deadline = time.monotonic() + 60.0
    while any(user.done.total() < seen[user] + 2 for user in users) and time.monotonic() < deadline:
        site.await_clicks(10)
    assert all(user.done.total() >= seen[user] + 2 for user in users), "somebody does not come by"


def told(kind: str, site: Site, samples: list[Sample], done: Counter[str]) -> None:
    """The JSON line, and the page."""
    summary = {
        "drill": kind,
        "users": USERS,
        "seconds": round(samples[-1].at_s),
        "requests": done.total(),
        "logins": done["/login"],
        "logouts": done["/logout"],
        "items": done["/add"],
        "replays_after_logout": done["replay"],
        "adopted": samples[-1].adopted,
        "shadow_equal": site.counted("shadow_equal"),
        "shadow_differs": site.counted("shadow_differs"),
        "wrong": samples[-1].wrong,
        "reads_by_mode": dict(site.clicks),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"drill-{re.sub('[^a-z]+', '-', kind.lower()).strip('-')}.html"
    path.write_text(page(f"Switched over and back: {kind}", samples, summary), encoding="utf-8")
    print(json.dumps(summary))


def _assert_fine(users: list[User]) -> None:
    wrong = [each for user in users for each in user.wrong]
    assert not wrong, "\n".join(wrong)
