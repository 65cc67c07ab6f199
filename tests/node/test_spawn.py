import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from clustersession.config import Config
from clustersession.errors import ConfigError
from clustersession.node.spawn import WORKERLESS_S, ensure_node
from clustersession.settings import load_settings, new_key
from clustersession.store.locks import NodeLock
from clustersession.store.place import make_private, place_for

TOP = Path(__file__).parents[2]
DEADLINE_S = 20.0


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Here:
    """A host in a directory of the test: its settings, its place, its workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ = {
            "CLUSTERSESSION_SECRET": new_key(1),
            "CLUSTERSESSION_MODE": "on",
            "CLUSTERSESSION_NODE": "a",
            "CLUSTERSESSION_DATA_DIR": str(directory),
            "CLUSTERSESSION_LISTEN": "127.0.0.1:0",
            "CLUSTERSESSION_ADMIN_LISTEN": "off",
            "CLUSTERSESSION_MAX_BYTES": "16MiB",
            "CLUSTERSESSION_READY_TIMEOUT": "15s",
        }
        self._workers: list[subprocess.Popen[str]] = []

    @property
    def config(self) -> Config:
        return load_settings(self.environ)

    @property
    def place(self) -> Path:
        return place_for(self.config, {})

    def worker(self) -> subprocess.Popen[str]:
        found = subprocess.Popen(
            [sys.executable, "-m", "tests.node.worker"],
            cwd=TOP,
            env={**os.environ, **self.environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._workers.append(found)
        return found

    def holder(self) -> int | None:
        return NodeLock(self.place).holder()

    def nodes(self) -> list[int]:
        """Processes that are the node of this host, or on their way to it."""
        return [each.pid for each in psutil.process_iter() if self._is_node(each)]

    def _is_node(self, process: psutil.Process) -> bool:
        try:
            mine = process.environ().get("CLUSTERSESSION_DATA_DIR") == str(self.directory)
            return mine and "--spawned" in process.cmdline()
        except psutil.Error:  # it ended meanwhile, or belongs to somebody else
            return False

    def clean_up(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.communicate()
        for pid in self.nodes():
            os.kill(pid, signal.SIGKILL)


def tell(worker: subprocess.Popen[str], line: str) -> None:
    assert worker.stdin is not None
    worker.stdin.write(line + "\n")
    worker.stdin.flush()


def hear(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    found = Here(tmp_path)
    yield found
    found.clean_up()


def lock_of_workers(place: Path) -> int:
    make_private(place)
    return os.open(place / "workers.lock", os.O_RDWR | os.O_CREAT, 0o600)


def workers_are_gone(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def test_many_workers_at_once_start_one_node(here: Here) -> None:
    """Whoever comes first starts the node, the others find it; no worker has it as a child."""
    workers = [here.worker() for _ in range(4)]
    seen: set[int] = set()

    def all_answered() -> bool:
        seen.update(here.nodes())
        return len(select.select([each.stdout for each in workers if each.stdout], [], [], 0)[0]) == len(workers)

    for worker in workers:
        tell(worker, "ensure")
    until(all_answered, "a worker got no answer")
    assert [hear(worker).split()[0] for worker in workers] == ["ok"] * 4
    until(lambda: here.nodes() == [here.holder()], "another process than the node is left")
    assert len(seen | set(here.nodes())) <= 2  # the node, and the one that forked it
    assert [psutil.Process(worker.pid).children() for worker in workers] == [[]] * 4


def test_the_node_outlives_the_worker_that_started_it_and_ends_after_the_last(here: Here) -> None:
    """kill -9 of one worker after the other: the node stays as long as one is there, and not longer."""
    first, second = here.worker(), here.worker()
    for worker in (first, second):
        tell(worker, "ensure")
        assert hear(worker).startswith("ok")
    node = here.holder()
    first.kill()
    first.wait()
    with pytest.raises(AssertionError, match="still there"):
        until(lambda: here.holder() != node, "still there", deadline_s=WORKERLESS_S + 2.0)
    second.kill()
    second.wait()
    until(lambda: not here.nodes(), "the node outlived its workers")


def test_a_node_that_was_killed_is_replaced_when_a_worker_asks_again(here: Here) -> None:
    """Asking is cheap while a node runs, and starts another one when it has gone."""
    worker = here.worker()
    tell(worker, "ensure")
    assert hear(worker).startswith("ok")
    node = here.holder()
    assert node
    tell(worker, "ensure")
    assert float(hear(worker).removeprefix("ok ")) < 0.1
    os.kill(node, signal.SIGKILL)
    until(lambda: here.holder() is None, "the lock outlived its holder")
    tell(worker, "ensure")
    assert hear(worker).startswith("ok")
    assert here.holder() not in (None, node)


def test_a_forked_child_holds_on_for_its_parent(here: Here) -> None:
    """A worker that was killed after a fork still counts until its child has gone too."""
    make_private(here.place)
    held = NodeLock(here.place)
    assert held.acquire()  # no node is started: this process stands for it
    fd = lock_of_workers(here.place)
    worker = here.worker()
    tell(worker, "ensure")
    assert hear(worker).startswith("ok")
    tell(worker, "fork")
    child = int(hear(worker))
    worker.kill()
    worker.wait()
    assert not workers_are_gone(fd)
    os.kill(child, signal.SIGKILL)
    until(lambda: workers_are_gone(fd), "a lifeline outlived its processes")
    held.release()
    os.close(fd)


def test_a_worker_that_comes_while_the_node_is_ending_waits_for_that(here: Here) -> None:
    """The ending node has the workers' lock: a new worker starts a node of its own only after it."""
    fd = lock_of_workers(here.place)
    fcntl.flock(fd, fcntl.LOCK_EX)  # as a node does that has seen its last worker go
    worker = here.worker()
    tell(worker, "ensure")
    with pytest.raises(AssertionError, match="none yet"):
        until(here.nodes, "none yet", deadline_s=1.0)
    os.close(fd)
    assert hear(worker).startswith("ok")
    assert here.holder() is not None


def started_by_a_worker(here: Here) -> tuple[subprocess.Popen[str], int]:
    worker = here.worker()
    tell(worker, "ensure")
    assert hear(worker).startswith("ok")
    node = here.holder()
    assert node
    return worker, node


@pytest.mark.parametrize("change", [{"PEERS": "127.0.0.1:1"}, {"SECRET": "both"}], ids=["peers", "ring"])
def test_an_app_restarted_with_other_settings_gets_a_node_that_obeys_them(here: Here, change: dict[str, str]) -> None:
    """The first request of a worker with newer settings replaces the node; an older worker does not change it back."""
    old, node = started_by_a_worker(here)
    ring = f"{new_key(2)},{here.environ['CLUSTERSESSION_SECRET']}"
    here.environ.update({f"CLUSTERSESSION_{name}": text.replace("both", ring) for name, text in change.items()})
    _, replaced = started_by_a_worker(here)
    assert replaced != node
    tell(old, "ensure")
    assert hear(old).startswith("ok")
    assert here.holder() == replaced


def test_apps_that_differ_in_their_own_settings_share_the_node(here: Here) -> None:
    """Cookies and lifetimes are no business of the node: a second app of the host leaves it alone."""
    _, node = started_by_a_worker(here)
    here.environ |= {"CLUSTERSESSION_COOKIE_NAME": "__Host-other", "CLUSTERSESSION_IDLE_TIMEOUT": "1h"}
    assert started_by_a_worker(here)[1] == node


def test_a_worker_with_another_secret_is_refused_and_does_not_count(here: Here) -> None:
    """A random secret per worker is an error for all but the first; a secret that was replaced is taken after the old workers."""
    worker, node = started_by_a_worker(here)
    here.environ["CLUSTERSESSION_SECRET"] = new_key(1)
    other = here.worker()
    tell(other, "ensure")
    assert hear(other).startswith("refused CLUSTERSESSION_SECRET: this process has another secret")
    assert here.holder() == node
    worker.kill()
    worker.wait()
    fd = lock_of_workers(here.place)
    assert workers_are_gone(fd)
    os.close(fd)
    until(lambda: here.holder() is None, "the node outlived its workers")
    tell(other, "ensure")
    assert hear(other).startswith("ok")


def test_a_node_that_somebody_runs_is_not_replaced(here: Here) -> None:
    """`clustersession node` is left alone by workers with other settings, also in a place where workers had started one."""
    worker, node = started_by_a_worker(here)
    worker.kill()
    worker.wait()
    os.kill(node, signal.SIGKILL)
    until(lambda: here.holder() is None, "the lock outlived its holder")
    by_hand = subprocess.Popen([sys.executable, "-m", "clustersession", "node"], cwd=TOP, env={**os.environ, **here.environ})
    try:
        until(here.holder, "no node")
        here.environ["CLUSTERSESSION_PEERS"] = "127.0.0.1:1"
        assert started_by_a_worker(here)[1] == by_hand.pid
    finally:
        by_hand.kill()
        by_hand.wait()


def test_nothing_is_started_where_that_is_switched_off(here: Here) -> None:
    """With SPAWN=0 a worker leaves the node to whoever runs it, and touches nothing."""
    here.environ["CLUSTERSESSION_SPAWN"] = "0"
    ensure_node(here.config, here.place)
    assert not here.place.exists()


def test_a_node_that_cannot_start_is_said_with_its_last_words(here: Here) -> None:
    """The worker's error carries what the node said and where its log is; one try a second is made, not one a request."""
    ring = here.directory / "ring"
    ring.write_text(here.environ.pop("CLUSTERSESSION_SECRET"))
    here.environ["CLUSTERSESSION_SECRET_FILE"] = str(ring)
    config, place = here.config, here.place
    ring.unlink()  # between the worker's start and the node's
    with pytest.raises(ConfigError, match=r"does not start: .*ring cannot be read") as first:
        ensure_node(config, place)
    log = place / "node.log"
    assert str(log) in str(first.value)
    written = log.stat().st_size
    with pytest.raises(ConfigError, match="does not start"):
        ensure_node(config, place)
    assert log.stat().st_size == written
    ring.write_text(config.secret)
    os.utime(place / "spawn.lock", (time.time() - 5, time.time() - 5))  # a second later
    ensure_node(config, place)
    until(here.holder, "no node after the mistake was mended")


@pytest.mark.parametrize("setting", ["LISTEN", "ADMIN_LISTEN"])
def test_a_node_that_cannot_listen_is_said_to_all_workers_that_wait_for_it(here: Here, setting: str) -> None:
    """It has its files already when it finds its port taken: that is no start, neither for the worker that started it nor for
    those that came meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        here.environ[f"CLUSTERSESSION_{setting}"] = f"127.0.0.1:{taken.getsockname()[1]}"
        workers = [here.worker() for _ in range(3)]
        for worker in workers:
            tell(worker, "ensure")
        said = [hear(worker) for worker in workers]
    for words in said:
        assert words.startswith("refused CLUSTERSESSION_SPAWN: the node of this host does not start: ")
        assert f"CLUSTERSESSION_{setting}: cannot listen on" in words
        assert str(here.place / "node.log") in words
    os.utime(here.place / "spawn.lock", (time.time() - 5, time.time() - 5))  # a second later
    tell(workers[0], "ensure")
    assert hear(workers[0]).startswith("ok")
    assert here.holder() is not None


def test_a_worker_waits_for_the_node_that_another_one_is_starting(here: Here) -> None:
    """Its lock alone does not show that it serves; who is about to know has the other lock."""
    make_private(here.place)
    held = NodeLock(here.place)
    assert held.acquire()  # this process stands for the node
    fd = os.open(here.place / "spawn.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)  # and for the worker that has started it
    worker = here.worker()
    tell(worker, "ensure")
    assert worker.stdout is not None
    assert select.select([worker.stdout], [], [], 1.0)[0] == []
    os.close(fd)
    assert hear(worker).startswith("ok")
    held.release()
