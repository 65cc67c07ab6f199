"""App servers as users run them, with the node that the first worker starts and with `clustersession run`: each starts, all its
workers see the same sessions, and it ends without a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from .browser import Answer, Browser, send
from .cluster import Cluster, Host
from .conftest import NewCluster
from .processes import until
from .servers import FLASK, STARLETTE, Address, clustersession, gunicorn, uvicorn

WORKERS: Final = 4
AT_ONCE: Final = 8
BUSY_S: Final = 0.02  # a worker that is busy for so long leaves the next request to another; eight of them cost no time-out
NODE_ENDS_S: Final = 15.0
GUNICORN_ON_KILL: Final = "was sent SIGKILL! Perhaps out of memory?"
GUNICORN: Final = {
    "sync": ("--worker-class", "sync"),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
    "gevent": ("--worker-class", "gevent"),
}
Command = Callable[[Address], list[str]]


def started(new_cluster: NewCluster, how: str, command: Command) -> tuple[Cluster, Host]:
    """A host whose app is served by `command`, and a peer that is nothing but a node."""
    cluster = new_cluster(2)
    host, peer = cluster.hosts
    peer.launch("node", clustersession("node"))
    until(lambda: peer.ask_admin("/healthz")[0] == 200, "the peer does not run")
    if how == "run":
        host.run(command(host.app))
    else:
        host.launch("app", command(host.app))
    until(host.serves, "the app does not serve")
    until(lambda: host.sees({"n1", "n2"}), "the node does not see its peer")
    return cluster, host


def at_once(host: Host, path: str, browser: Browser, queries: list[dict[str, object]]) -> list[Answer]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda query: send(host.app, path, browser.cookies, spin=BUSY_S, **query), queries))


def assert_all_workers_share(host: Host, browser: Browser) -> set[int]:
    """Every worker shows what another one wrote, and its own writes are seen by all. Gives their process ids."""
    browser.get(host.app, "/set", _user_id="u", cart="apple")
    pids: set[int] = set()
    wanted: dict[str, str] = {"_user_id": "u", "cart": "apple"}

    def all_seen() -> bool:
        names = [f"w{len(wanted) + number}" for number in range(AT_ONCE)]
        written = at_once(host, "/set", browser, [{name: 1} for name in names])
        wanted.update(dict.fromkeys(names, "1"))
        answers = at_once(host, "/look", browser, [{}] * AT_ONCE)
        assert all(answer.items == wanted for answer in answers)
        for answer in (*written, *answers):  # where the machine was too slow, the owners have changed
            browser.take(answer)
        pids.update(answer.seen["pid"] for answer in (*written, *answers))
        return len(pids) >= WORKERS

    until(all_seen, f"only {pids} ever served")
    return pids


def assert_ends_cleanly(cluster: Cluster, host: Host, how: str, *, but: str = "") -> None:
    """SIGTERM as init systems send it: exit code 0, nobody left, nothing in the logs (but lines with `but`)."""
    if how == "run":
        assert host.end("run") == 0
        assert host.stray() == []
    else:
        assert host.end("app") == 0
        until(lambda: not host.pids, f"left behind: {host.stray()}", NODE_ENDS_S)
        assert "the last worker has gone" in host.logs()["node.log"]
    assert [line for line in cluster.complaints() if not but or but not in line] == []


LOADED = [(kind, preload) for kind in GUNICORN for preload in (False, True)]


@pytest.mark.parametrize(("kind", "preload"), LOADED, ids=[f"{kind}-preload" if preload else kind for kind, preload in LOADED])
@pytest.mark.parametrize("how", ["spawned", "run"])
def test_gunicorn(new_cluster: NewCluster, how: str, kind: str, preload: bool) -> None:
    """Every kind of worker, loaded before the fork or after it."""
    flags = (*GUNICORN[kind], *(["--preload"] if preload else []))
    cluster, host = started(new_cluster, how, lambda at: gunicorn(FLASK, at, *flags, workers=WORKERS))
    assert_all_workers_share(host, Browser())
    assert len(host.nodes) == 1
    assert_ends_cleanly(cluster, host, how)


@pytest.mark.parametrize("how", ["spawned", "run"])
def test_uvicorn(new_cluster: NewCluster, how: str) -> None:
    """Four processes with an event loop each."""
    cluster, host = started(new_cluster, how, lambda at: uvicorn(STARLETTE, at, workers=WORKERS))
    assert_all_workers_share(host, Browser())
    assert len(host.nodes) == 1
    assert_ends_cleanly(cluster, host, how)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_takes_nothing_with_it(new_cluster: NewCluster) -> None:
    """kill -9 of a worker in the middle of requests: the others go on, the new one sees every session, the node stays."""
    cluster, host = started(new_cluster, "spawned", lambda at: gunicorn(FLASK, at, *GUNICORN["sync"], workers=WORKERS))
    browser = Browser()
    before = assert_all_workers_share(host, browser)
    node = host.nodes
    with ThreadPoolExecutor(AT_ONCE) as pool:
        writes = [pool.submit(send, host.app, "/set", browser.cookies, spin=BUSY_S, **{f"k{n}": 1}) for n in range(AT_ONCE)]
        os.kill(min(before), signal.SIGKILL)
        done = [each for each in writes if each.exception() is None]
    assert len(done) >= AT_ONCE - 1
    kept = {f"k{n}" for n, each in enumerate(writes) if each in done and each.result().status == 200}
    assert kept <= host.look(browser).items.keys()
    until(lambda: len(assert_all_workers_share(host, Browser()) - before) >= 1, "the killed worker was not replaced")
    assert host.nodes == node
    assert_ends_cleanly(cluster, host, "spawned", but=GUNICORN_ON_KILL)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["spawned", "run"])
def test_a_killed_node_is_replaced_while_its_sessions_are_served(new_cluster: NewCluster, how: str) -> None:
    """The workers answer from the store and from the other owner until a new node runs: one, never two."""
    cluster, host = started(new_cluster, how, lambda at: gunicorn(FLASK, at, *GUNICORN["gthread"], workers=WORKERS))
    browser = Browser()
    browser.get(host.app, "/set", _user_id="u", cart="apple")
    [killed] = host.nodes
    os.kill(killed, signal.SIGKILL)
    most = 0

    def replaced() -> bool:
        nonlocal most
        answer = browser.get(host.app, "/set", cart="pear")
        assert answer.status == 200
        assert host.look(browser).items == {"_user_id": "u", "cart": "pear"}
        nodes = host.nodes
        most = max(most, len(nodes))
        return killed not in nodes and host.sees({"n1", "n2"})

    until(replaced, "no new node")
    assert most <= (1 if how == "run" else 2)  # the one that forks the node waits for it
    assert len(host.nodes) == 1
    assert_all_workers_share(host, browser)
    second = host.launch("second", clustersession("node"))
    assert second.wait(NODE_ENDS_S) == 78
    assert "is already the node" in host.logs()["second.log"]
    del host.programs["second"]
    assert len(host.nodes) == 1
    assert_ends_cleanly(cluster, host, how)
