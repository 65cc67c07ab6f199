"""The faults of the demo happen: silence drops packets, a kill leaves no process, a pause stops every one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo_app.network import Loopback, Namespaces, Network, open_network
from demo_app.processes import MARK, left_behind, marked, signal_all, stopped

TIMEOUT_S = 10.0
SLEEP = "import time; time.sleep(60)"
TREE = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True); {SLEEP}"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@contextmanager
def host_of_two(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A marked process with a child that has left its group and session."""
    process = subprocess.Popen([sys.executable, "-c", TREE], env={**os.environ, MARK: mark})
    try:
        until(lambda: len(marked(mark)) == 2)
        yield process
    finally:
        signal_all(marked(mark), signal.SIGKILL)
        process.wait(TIMEOUT_S)


def test_every_process_of_a_host_is_found_and_killed() -> None:
    """Also a process that left the group of its parent is found by its mark, and none is left after the kill."""
    mark = f"kill-{os.getpid()}"
    with host_of_two(mark) as process:
        signal_all(marked(mark), signal.SIGKILL)
        process.wait(TIMEOUT_S)
        until(lambda: not marked(mark))
        assert process.returncode == -signal.SIGKILL


def test_a_paused_host_has_every_process_stopped() -> None:
    """After SIGSTOP each process is seen as stopped, after SIGCONT none."""
    mark = f"pause-{os.getpid()}"
    with host_of_two(mark):
        assert not any(map(stopped, marked(mark)))
        signal_all(marked(mark), signal.SIGSTOP)
        until(lambda: all(map(stopped, marked(mark))))
        signal_all(marked(mark), signal.SIGCONT)
        until(lambda: not any(map(stopped, marked(mark))))


def test_hosts_end_when_the_demo_is_killed() -> None:
    """A host whose demo dies without a word gets SIGTERM."""
    mark = f"orphan-{os.getpid()}"
    starter = (
        "import subprocess, sys; from demo_app.processes import end_with_parent;"
        f"subprocess.Popen([sys.executable, '-c', {SLEEP!r}], preexec_fn=end_with_parent); {SLEEP}"
    )
    demo = subprocess.Popen([sys.executable, "-c", starter], env={**os.environ, MARK: mark})
    until(lambda: len(marked(mark)) == 2)
    demo.kill()
    demo.wait(TIMEOUT_S)
    until(lambda: not marked(mark))


@pytest.fixture
def namespaces() -> Iterator[Network]:
    network = open_network(("one", "two"))
    if not isinstance(network, Namespaces):
        pytest.skip("network namespaces need root, ip and nft")
    try:
        yield network
    finally:
        network.close()


def _reaches(network: Network, host: str) -> bool:
    """Whether a connection to a listener of `host` can be made within half a second."""
    script = f"import socket; s = socket.create_server(({network.addresses[host]!r}, 8000)); print('up', flush=True); s.accept()"
    listener = subprocess.Popen(network.wrap(host, [sys.executable, "-c", script]), stdout=subprocess.PIPE)
    assert listener.stdout is not None
    try:
        assert listener.stdout.readline() == b"up\n"
        with network.inside(), socket.create_connection((network.addresses[host], 8000), timeout=0.5):
            return True
    except TimeoutError:
        return False
    finally:
        listener.kill()
        listener.wait(TIMEOUT_S)
        listener.stdout.close()


def test_a_silent_host_is_not_told_of(namespaces: Network) -> None:
    """Packets of a silent host vanish, are counted, and flow again afterwards; the other host notices nothing."""
    assert _reaches(namespaces, "one")
    namespaces.silence("one")
    assert not _reaches(namespaces, "one")
    assert _reaches(namespaces, "two")
    assert namespaces.unsilence("one") > 0
    assert _reaches(namespaces, "one")


def test_the_own_network_is_left_alone(namespaces: Network) -> None:
    """Only the thread that goes inside sees the hub, and only while it is inside."""
    outside = _own_namespace()
    with namespaces.inside():
        assert _own_namespace() != outside
    assert _own_namespace() == outside


def _own_namespace() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_no_namespace_is_left_behind() -> None:
    """Closing the network removes every namespace it made."""
    network = open_network(("one", "two"))
    if not isinstance(network, Namespaces):
        pytest.skip("network namespaces need root, ip and nft")
    network.close()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert f"clustersession-demo-{os.getpid()}" not in listed


def test_what_a_killed_demo_left_is_known_by_its_process_id() -> None:
    """Only names with the id of a process that is gone count as left behind."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        assert ended.wait(TIMEOUT_S) == 0
    assert left_behind(f"demo-{ended.pid}-hub", "demo-")
    for name in (f"demo-{os.getpid()}-hub", f"other-{ended.pid}-hub", "demo-x-hub", "demo-"):
        assert not left_behind(name, "demo-")


def test_without_root_hosts_have_addresses_of_their_own() -> None:
    """On the loopback every host can be bound apart from the others, and dropping packets is refused with a reason."""
    network = Loopback(("one", "two"))
    listeners = [socket.create_server((address, 0)) for address in network.addresses.values()]
    assert len({listener.getsockname()[0] for listener in listeners}) == 2
    for listener in listeners:
        listener.close()
    with pytest.raises(OSError, match="root and nft"):
        network.silence("one")
