"""Parallel writers on one session, in processes on three hosts: nothing that was answered is lost, nothing counts twice."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from tests.end_to_end.browser import Answer, Browser
from tests.end_to_end.cluster import Cluster, Host, session_of
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until

TURNS = 12


@pytest.fixture(scope="module")
def cluster(module_cluster: NewCluster) -> Iterator[Cluster]:
    made = module_cluster(3).start()
    yield made
    assert made.complaints() == []


class Writers:
    """Each in a thread of its own, on one host after the other. `acked` turns were answered with 200; of `open` ones nobody
    knows. `half_way` is set when half of all are answered."""

    def __init__(self, hosts: list[Host], browser: Browser, count: int) -> None:
        self._hosts, self._browser, self._count = hosts, browser, count
        self.acked: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.processes: Counter[tuple[str, int]] = Counter()
        self._done = 0
        self._lock = threading.Lock()
        self.half_way = threading.Event()

    def run(self) -> None:
        with ThreadPoolExecutor(self._count) as pool:
            for writer in [pool.submit(self._write, number) for number in range(self._count)]:
                writer.result()

    def _write(self, number: int) -> None:
        browser, name = self._browser.copy(), f"w{number}"
        for turn in range(TURNS):
            host, text = self._hosts[(number + turn) % len(self._hosts)], f"{name}.{turn}"
            try:
                answer = browser.get(host.app, "/count", writer=name, turn=text)
            except (OSError, HTTPException):
                answer = None
            with self._lock:
                self._took(name, text, answer)

    def _took(self, name: str, text: str, answer: Answer | None) -> None:
        if answer is not None and answer.status == 200:
            self.acked.setdefault(name, []).append(text)
            self.processes[answer.seen["node"], answer.seen["pid"]] += 1
        else:
            self.open.append(text)
        self._done += 1
        if self._done >= self._count * TURNS / 2:
            self.half_way.set()

    def check(self, answer: Answer) -> None:
        """What a host shows now: each acked turn once, those of which nobody knows once or never, and the count of both."""
        items = answer.items
        found, acked = Counter(items["turns"]), [text for each in self.acked.values() for text in each]
        assert set(found.values()) == {1}, [text for text in found if found[text] > 1]
        assert set(acked) <= found.keys() <= {*acked, *self.open}
        assert items["count"] == len(items["turns"])
        for name, turns in self.acked.items():
            assert items[name] == turns[-1] or (items[name] in self.open and _turn(items[name]) > _turn(turns[-1]))


def _turn(text: str) -> int:
    return int(text.partition(".")[2])


@pytest.mark.parametrize("count", [2, 8, 32])
def test_parallel_writers_in_processes_on_hosts(cluster: Cluster, count: int) -> None:
    """Each sets a key of its own, counts and appends; hosts have two processes with four threads each."""
    one, two, third = cluster
    browser = session_of(one, two)
    writers = Writers([one, two, third], browser, count)
    writers.run()
    for host in cluster:
        writers.check(host.look(browser))
    assert len(writers.acked) == count
    assert len(writers.open) <= count * TURNS / 20, "they are not written, they are refused"
    assert {node for node, _ in writers.processes} == {"n1", "n2", "n3"}
    assert len(writers.processes) >= (4 if count > 2 else 3)


@pytest.mark.parametrize("killed", ["master", "backup"])
@pytest.mark.parametrize("count", [2, 32])
def test_with_a_host_killed_in_the_middle(cluster: Cluster, count: int, killed: str) -> None:
    """kill -9 of everything on one of the session's hosts."""
    cluster.heal()
    one, two, third = cluster
    browser = session_of(one, two)
    victim = one if killed == "master" else two
    writers = Writers([one, two, third], browser, count)
    thread = threading.Thread(target=writers.run)
    thread.start()
    assert writers.half_way.wait(60.0)
    assert victim.kill()
    thread.join()
    left = [host for host in cluster if host is not victim]
    for host in left:
        writers.check(host.look(browser))
    assert writers.open, "it was over before the host was killed"
    victim.run()
    until(victim.serves, "it does not serve")
    writers.check(victim.look(browser))
