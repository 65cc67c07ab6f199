"""Four workers are one node, under `clustersession run`: recycled, killed, without their node, without their supervisor."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Final

import pytest

from clustersession.cli.balancer_forms import AppHost, Plan, haproxy
from clustersession.config import Address as ConfigAddress
from tests.end_to_end.balanced import Balancer
from tests.end_to_end.cluster import Cluster, Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import command_of, until
from tests.end_to_end.servers import FLASK, STARLETTE, Address, clustersession, gunicorn, uvicorn

from .calling import in_parallel
from .crowd import Load, logged_in, lost

WORKERS: Final = 4
REQUESTS_MAX: Final = 40
SERVERS_OWN: Final = (
    "was sent SIGKILL! Perhaps out of memory?",
    "unclosed file <_io.TextIOWrapper name=0 ",
    # gunicorn's file of a worker it had to kill at its end: one that was told to end before it listened to signals (for gevent
    # a tenth of a second after "Booting worker") never hears it. Nothing of ours opens a file so.
    "mode='rb+' closefd=True>",
)
Server = Callable[[Address], list[str]]
GUNICORN: Final = {
    "sync": ["--worker-class", "sync"],
    "gthread": ["--worker-class", "gthread", "--threads", "4"],
    "gevent": ["--worker-class", "gevent"],
}


def server(kind: str, *, recycled: bool) -> Server:
    """Four workers of a kind; `recycled`: each ends after some requests, and another one takes its place."""
    if kind == "uvicorn":
        flags = ["--limit-max-requests", str(REQUESTS_MAX), "--limit-max-requests-jitter", "40"] if recycled else []
        return lambda at: uvicorn(STARLETTE, at, *flags, workers=WORKERS)
    flags = ["--max-requests", str(REQUESTS_MAX), "--max-requests-jitter", "20"] if recycled else []
    return lambda at: gunicorn(FLASK, at, *GUNICORN[kind], *flags, workers=WORKERS)


def started(new_cluster: NewCluster, serve: Server) -> tuple[Cluster, Host]:
    """A host whose app is served so, and another one that is only a node."""
    cluster = new_cluster(2)
    host, peer = cluster
    peer.launch("node", clustersession("node"))
    host.run(serve(host.app))
    until(host.serves, "the app does not serve")
    until(lambda: host.sees({"n1", "n2"}) and peer.sees({"n1", "n2"}), "the nodes don't see each other")
    return cluster, host


@contextmanager
def repeating_reads(host: Host, directory: Path) -> Iterator[None]:
    """HAProxy in front of the host's app, with the generated backend for this one host; `host.app` is the balancer then."""
    balancer = Balancer("haproxy", directory, host.app[0])
    app = ConfigAddress(host=host.app[0], port=host.app[1])
    balancer.made.write_text(haproxy(Plan((AppHost(host.name, app, ("0" * 8,)),), (1,), ("cs",))))
    with balancer:
        host.app = balancer.at
        yield


def workers(host: Host) -> set[int]:
    """The processes that answer now."""
    return {pid for pid in host.pids if has_open(pid, host.place) and not is_node(pid)}


def with_new(seen: set[int], host: Host) -> set[int]:
    """Those that were seen before, and those that answer now."""
    seen |= workers(host)
    return seen


def is_node(pid: int) -> bool:
    return "-m clustersession node" in command_of(pid)


def has_open(pid: int, place: Path) -> bool:
    """Whether it has the store's files mapped: who has only begun to start, or waits for its predecessor, has not."""
    try:
        return f"{place}/" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@contextmanager
def never_two_nodes(host: Host) -> Iterator[None]:
    """Looks all the time who is the node of these files; fails if two ever were at once."""
    over, seen, two = threading.Event(), set[int](), list[list[int]]()

    def watch() -> None:
        while not over.wait(0.02):
            now = [pid for pid in host.pids if is_node(pid) and has_open(pid, host.place)]
            seen.update(now)
            if len(now) > 1:
                two.append(now)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    assert seen, "nobody watched"
    assert two == []


def complaints(cluster: Cluster) -> list[str]:
    return [line for line in cluster.complaints() if not any(word in line for word in SERVERS_OWN)]


KINDS: Final = [*GUNICORN, "uvicorn"]


@pytest.mark.parametrize("kind", KINDS)
def test_recycled_workers_are_not_noticed(new_cluster: NewCluster, kind: str, tmp_path: Path) -> None:
    """Workers that end after some requests, under load: no error, nobody logged out, and the node stays the same process.

    uvicorn's own shutdown closes connections whose request it has not read yet (`connection.shutdown()` without a cycle), so its
    users come through the balancer, which repeats what was cut so.
    """
    cluster, host = started(new_cluster, server(kind, recycled=True))
    with never_two_nodes(host), repeating_reads(host, tmp_path) if kind == "uvicorn" else nullcontext():
        [node] = host.nodes
        idle = logged_in([host], 50)
        before = workers(host)
        load = Load(logged_in([host], 6, "active"), [host], pause_s=0.02)
        seen = set(before)
        with load.running():
            until(lambda: len(with_new(seen, host) - before) >= WORKERS, "they are not recycled")
        load.assert_fine(at_least=REQUESTS_MAX)
        print(f"{len(seen - before)} new workers, {load.done.total()} requests")
        assert host.nodes == [node]
        assert lost(idle, [host]) == []
    assert host.end() == 0
    assert host.stray() == []
    assert complaints(cluster) == []


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_is_killed_is_replaced(new_cluster: NewCluster, kind: str) -> None:
    """kill -9 of a worker, of the node, of the supervisor: each time the host goes on or comes back with all its sessions, and
    never is there a second node on its files."""
    cluster, host = started(new_cluster, server(kind, recycled=False))
    users = logged_in([host], 60)
    with never_two_nodes(host):
        victim = min(workers(host))
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in (now := workers(host)) and asked(host) and len(now) == WORKERS, "no new worker")
        assert lost(users, [host]) == []

        [node] = host.nodes
        os.kill(node, signal.SIGKILL)
        assert lost(users, [host]) == []
        until(lambda: node not in host.nodes and host.sees({"n1", "n2"}), "no new node")
        assert len(host.nodes) == 1
        assert lost(users, [host]) == []

        before = set(host.pids)
        assert host.end(number=signal.SIGKILL) == -signal.SIGKILL
        host.run(server(kind, recycled=False)(host.app))
        until(lambda: not before & set(host.pids), f"they outlive their supervisor: {host.stray()}")
        until(lambda: host.serves() and host.sees({"n1", "n2"}), "it does not come back")
        assert lost(users, [host]) == []
    assert host.end() == 0
    assert host.stray() == []
    assert complaints(cluster) == []


def asked(host: Host) -> bool:
    """Brings requests to all workers, so that each has opened the store."""
    return all(in_parallel(lambda caller, _: caller.look(host.app, "/look", [], spin=0.01).status == 200, range(16), threads=8))
