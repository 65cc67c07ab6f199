"""Hosts that end and come back: on their old files, and one after the other under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until

from .crowd import Load, logged_in, lost
from .proxy import Link, links
from .repaired import mended

IDLE: Final = 2000
ACTIVE: Final = 8
CHANGED: Final = 50
LARGE: Final = 3000  # characters of a value
DIGEST_BYTES: Final = 200  # of one session, asked and answered
HEARTBEATS_BYTES: Final = 100_000


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def carried(found: dict[str, Link]) -> int:
    """Bytes that have gone between the nodes."""
    return sum(link.passed.total() for link in found.values())


def test_a_host_that_was_killed_asks_only_for_what_has_changed(new_cluster: NewCluster, stack: ExitStack) -> None:
    """kill -9 and a start on its files: digests of what it has travel, and the sessions that others have changed meanwhile."""
    cluster = new_cluster(3, MAX_BYTES="64MiB", DEAD_TIMEOUT="20s")
    between = stack.enter_context(links(cluster))
    killed, other, third = cluster.start()
    users = logged_in(cluster.hosts, 600, extra="x" * LARGE)
    held = killed.status()["store"]["entries"]
    assert held > 300
    killed.kill()
    for number, user in enumerate(users[:CHANGED]):
        user.browser.get((other, third)[number % 2].app, "/set", cart=f"changed {number}")
        user.items["cart"] = f"changed {number}"
    until(lambda: other.member_states().get("n1") == third.member_states().get("n1") == "suspect", "it is not missed")
    before, began = carried(between), time.monotonic()
    killed.run()
    cluster.await_whole()
    took, moved = time.monotonic() - began, carried(between) - before
    whole = held * LARGE
    print(
        f"{held} sessions of {LARGE} bytes in the files, {CHANGED} changed: {moved:,} bytes between the nodes until it was back"
    )
    assert "its files are discarded" not in "".join(killed.logs().values())
    assert moved < held * DIGEST_BYTES + CHANGED * 2 * LARGE + took * HEARTBEATS_BYTES
    assert moved < whole / 2
    assert killed.status()["store"]["entries"] >= held
    assert lost(users, [killed]) == []
    assert lost(users, [other, third]) == []
    assert cluster.complaints() == []


def test_a_rolling_restart_under_load_logs_nobody_out(new_cluster: NewCluster) -> None:
    """Each host in turn hands over, ends with 0 and comes back; no request fails, and no session is lost, used or idle."""
    cluster = new_cluster(3, MAX_BYTES="64MiB").start()
    idle = logged_in(cluster.hosts, IDLE)
    load = Load(logged_in(cluster.hosts, ACTIVE, "active"), cluster.hosts)
    with load.running():
        load.await_more(50)
        for host in cluster:
            load.take_out(host)
            began = time.monotonic()
            assert host.end() == 0
            ended = time.monotonic()
            until(lambda host=host: mended(cluster.others(host.name), host), "not all are on two hosts")  # type: ignore[misc]
            host.run()
            cluster.await_whole()
            print(f"{host.name}: ended after {ended - began:.1f} s, back {time.monotonic() - ended:.1f} s later")
            load.put_back(host)
            load.await_more(50)
    print(f"meanwhile: {dict(load.done)}")
    load.assert_fine(at_least=100)
    assert lost(idle, cluster.hosts) == []
    assert cluster.complaints() == []
