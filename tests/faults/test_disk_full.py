"""The place of one host's store has no room: not at the start, or not any more."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until

from .calling import Caller, in_parallel
from .crowd import Load, logged_in, lost

ANONYMOUS: Final = 1600
ACTIVE: Final = 6
REFUSED_EXIT: Final = 78


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[None]:
    """A file system of that size at `path`. Skips the test where this process may not mount one."""
    path.mkdir(parents=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"NO FULL DISK IS TESTED HERE: mount says {done.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(path: Path) -> int:
    """Takes all room that is left with a file of somebody else's; its bytes."""
    with path.open("wb", buffering=0) as file:
        page = shutil.disk_usage(path.parent).free // 4096 * b"x" * 4096
        assert file.write(page) == len(page)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            file.write(b"x")
    assert shutil.disk_usage(path.parent).free == 0
    return path.stat().st_size


def counted(host: Host, name: str) -> float:
    lines = host.ask_admin("/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith(f"clustersession_{name} "))


def test_a_place_without_room_is_refused_with_a_word(new_cluster: NewCluster) -> None:
    """1 MB is too little for a store: the host does not start, and says what to do; the others serve without it."""
    cluster = new_cluster(3)
    host, *others = cluster
    with tmpfs(host.directory / "data", "1m"):
        del host.environ["CLUSTERSESSION_MAX_BYTES"]
        for each in cluster:
            each.run()
        assert host.programs.pop("run").wait(20.0) == REFUSED_EXIT
        assert "has room for" in (said := host.logs()["run.log"])
        assert "is started again" not in said
    for each in others:
        until(lambda each=each: each.serves() and each.sees({"n2", "n3"}), f"{each.name} does not serve")  # type: ignore[misc]
    users = logged_in(others, 20)
    assert lost(users, others) == []
    assert cluster.complaints() == []


def test_a_disk_that_fills_up_costs_anonymous_sessions_only(new_cluster: NewCluster) -> None:
    """Somebody else's file takes all room, and visitors go on coming. No process dies, no logged-in user loses anything, requests
    go on on all hosts; with room again everything is as before."""
    cluster = new_cluster(3)
    host, *_ = cluster
    ballast = host.directory / "data" / "somebody.log"
    with tmpfs(ballast.parent, "12m"):
        del host.environ["CLUSTERSESSION_MAX_BYTES"]
        cluster.start()
        pids = host.pids
        users = logged_in(cluster.hosts, 90)
        load = Load(logged_in(cluster.hosts, ACTIVE, "active"), cluster.hosts, pause_s=0.02)
        with load.running():
            load.await_more(50)
            taken = fill(ballast)
            statuses = in_parallel(lambda caller, number: visit(caller, host, number), range(ANONYMOUS))
            load.await_more(100)
            stats = host.status()["store"]
            late = logged_in(cluster.hosts, 30, "late")
            assert lost([*users, *late], cluster.hosts) == []
            assert shutil.disk_usage(ballast.parent).free == 0
            ballast.unlink()
            load.await_more(100)
        print(f"{taken:,} bytes of somebody else's; the store has {stats}; full {counted(host, 'store_full_total'):.0f} times")
        print(
            {status: statuses.count(status) for status in set(statuses)},
            f"{load.done.total()} requests, {len(load.refused)} refused",
        )
        assert statuses.count(200) > ANONYMOUS / 2
        assert host.pids == pids
        load.assert_fine(at_least=100)
        assert lost([*users, *late, *logged_in(cluster.hosts, 30, "after")], cluster.hosts) == []
        assert cluster.complaints() == []
        cluster.__exit__(None, None, None)


def visit(caller: Caller, host: Host, number: int) -> int:
    """Somebody who is not logged in puts something into a cart."""
    return caller.get(host.app, "/set", Browser(), cart=str(number) * 200).status
