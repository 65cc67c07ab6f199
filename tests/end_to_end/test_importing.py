"""`clustersession import` on a host of a running site: killed in the middle while users click, run again, and the old store gone.

By default with 250 users; `CLUSTERSESSION_USERS=1000` in the environment takes another number.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.sources.servers import redis_server

from .browser import Browser
from .cluster import Cluster, Host
from .conftest import NewCluster
from .processes import until
from .servers import APPS, TOP, Address, clustersession, gunicorn

USERS = int(os.environ.get("CLUSTERSESSION_USERS", "250"))
SERVERS: dict[str, Callable[[Address], list[str]]] = {
    kind: lambda at, name=name: gunicorn(f"{APPS}.{name}:app", at)  # type: ignore[misc]
    for kind, name in {"Flask-Session on Redis": "adopting_flask", "Django's cached_db": "adopting_django"}.items()
}
APP = {"Flask-Session on Redis": f"{APPS}.adopting_flask:app", "Django's cached_db": f"{APPS}.adopting_django:app"}
OLD = {"Flask-Session on Redis": "session", "Django's cached_db": "sessionid"}
AT_A_TIME = 4
RATE = 150
IMPORT_S = 60.0 + USERS


class Site:
    """Three hosts that have the old system in mode `off`, with users who log in there."""

    def __init__(self, cluster: Cluster, kind: str, old: dict[str, str]) -> None:
        self.cluster, self.kind = cluster, kind
        for host in cluster:
            host.environ |= {"CLUSTERSESSION_MODE": "off", **old}
        if kind == "Django's cached_db":
            command = [sys.executable, "-m", f"{APPS}.adopting_django"]
            subprocess.run(command, env=cluster["n1"].environ, cwd=TOP, check=True)
        for host in cluster:
            host.run(SERVERS[kind](host.app))
        cluster.await_whole()
        self.users = [User(self, number) for number in range(USERS)]
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(User.log_in, self.users))
        self.old = [user.browser.jar[OLD[kind]] for user in self.users]

    def restart(self, **environ: str) -> None:
        """Host by host, each in service again before the next one ends."""
        for host in self.cluster:
            host.environ |= environ
            assert host.end() == 0
            host.run(SERVERS[self.kind](host.app))
            self.cluster.await_whole()

    def importing(self, name: str, state: Path) -> subprocess.Popen[bytes]:
        more = ["--rate", str(RATE), "--resume", str(state), "--json"]
        return self.cluster["n1"].launch(name, clustersession("import", "--app", APP[self.kind], *more))


class User:
    """One who knows what the session must hold."""

    def __init__(self, site: Site, number: int) -> None:
        self.site, self.number, self.browser = site, number, Browser()
        self.holds: dict[str, Any] = {"user": f"user{number}", "cart": [f"first {number}"]}
        self.came = False

    def log_in(self) -> None:
        host = list(self.site.cluster)[self.number % 3]
        self.browser.get(host.app, "/login", user=f"user{self.number}")
        assert self.browser.get(host.app, "/add", item=f"first {self.number}").seen == self.holds

    def click(self, host: Host, chance: random.Random) -> None:
        """A look, one more item, or the end."""
        self.came, what = True, chance.random()
        if what < 0.02:
            self.holds = {"user": None, "cart": []}
            assert self.browser.get(host.app, "/logout").status == 200
        elif what < 0.6 and self.holds["user"]:
            self.holds["cart"].append(f"{what}")
            assert self.browser.get(host.app, "/add", item=f"{what}").seen == self.holds
        else:
            assert self.browser.get(host.app, "/look").seen == self.holds


class Crowd:
    """Some of the users, on random hosts until it is left; raises what went wrong."""

    def __init__(self, site: Site, users: list[User]) -> None:
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(AT_A_TIME)
        parts = [users[place::AT_A_TIME] for place in range(AT_A_TIME)]
        self._running = [self._pool.submit(self._go, site, part, place) for place, part in enumerate(parts)]
        self.clicks = 0

    def _go(self, site: Site, users: list[User], seed: int) -> None:
        chance = random.Random(seed)
        while not self._stop.wait(0.01):
            chance.choice(users).click(chance.choice(list(site.cluster)), chance)
            self.clicks += 1

    def end(self) -> None:
        self._stop.set()
        self._pool.shutdown()
        for each in self._running:
            each.result()


def result_of(host: Host, name: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    code = process.wait(IMPORT_S)
    said = host.log_path(name).read_text()
    assert code == 0, said
    found: dict[str, Any] = json.loads(said[said.index("{\n") :])
    return found


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
@pytest.mark.timeout(240 + 2 * USERS)
@pytest.mark.parametrize("kind", SERVERS)
def test_an_import_that_is_killed_and_run_again_loses_nobody(kind: str, new_cluster: NewCluster, tmp_path: Path) -> None:
    """Every third user clicks meanwhile. Then the old store goes for good: each old cookie opens its session on every host,
    as its user has left it; those who have logged out stay so."""
    with ExitStack() as old_store:
        port, database, state = old_store.enter_context(redis_server()), tmp_path / "old.sqlite", tmp_path / "state"
        site = Site(new_cluster(3), kind, {"OLD_REDIS_PORT": str(port), "OLD_DATABASE": str(database)})
        host, logged_in = site.cluster["n1"], [dict(user.holds) for user in site.users]
        site.restart(CLUSTERSESSION_MODE="on")
        killed, second = _killed_and_run_again(site, state)
        assert second["counts"]["failed"] == 0, second
        assert killed < second["counts"]["taken"] + second["counts"]["here_already"]
        assert second["resumed"]
        again = result_of(host, "third", site.importing("third", state))
        assert again["counts"]["taken"] == 0, again
        site.restart(CLUSTERSESSION_ADOPT_IMPORTED="1")
    database.unlink(missing_ok=True)
    assert refuses(port)

    came = sum(user.came for user in site.users)
    left = sum(user.holds["user"] is None for user in site.users)
    print(f"{kind}: {USERS} users, {came} came meanwhile, {left} logged out; killed after {killed}; then {second['counts']}")
    assert came > left > 0
    assert all(user.holds == before for user, before in zip(site.users, logged_in, strict=True) if not user.came)
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        wrong = [each for found in pool.map(lambda number: _wrong(site, number), range(USERS)) for each in found]
    assert not wrong, f"{len(wrong)}: {wrong[:5]}"


def _killed_and_run_again(site: Site, state: Path) -> tuple[int, dict[str, Any]]:
    """How many the first one had done when it was killed, and what the second one says in the end."""
    host, crowd = site.cluster["n1"], Crowd(site, site.users[::3])
    try:
        first = site.importing("first", state)
        until(lambda: _done(state) > 0, "the import makes no progress", IMPORT_S)
        first.kill()
        assert first.wait(10) == -signal.SIGKILL, "it was done before it could be killed"
        killed = _done(state)
        assert 0 < killed < USERS
        clicks = crowd.clicks
        second = result_of(host, "second", site.importing("second", state))
        assert crowd.clicks > clicks > 0
    finally:
        crowd.end()
    return killed, second


def _done(state: Path) -> int:
    return sum(json.loads(state.read_bytes())["counts"].values()) if state.exists() else 0


def _wrong(site: Site, number: int) -> list[str]:
    """What a browser with the old cookie alone is shown on each host, where it is not as it should be."""
    user, found = site.users[number], []
    for host in site.cluster:
        answer = Browser({OLD[site.kind]: site.old[number]}).get(host.app, "/look")
        if answer.status != 200 or answer.seen != user.holds:
            found.append(f"{number} on {host.name}: {answer.status} {answer.body!r} instead of {user.holds}")
    return found
