"""The commands that stay, as real processes with a real node."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clustersession.cli.main import main
from clustersession.settings import load_settings, new_key
from clustersession.store.locks import NodeLock
from clustersession.store.place import place_for

TOP = Path(__file__).parents[2]
DEADLINE_S = 20.0
TOKEN = "t" * 24


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Host:
    """Settings of one host, in this process's environment and in that of the commands it starts."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, text in {
            "SECRET": new_key(1),
            "MODE": "on",
            "NODE": "a",
            "DATA_DIR": str(directory),
            "LISTEN": "127.0.0.1:0",
            "ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
            "MAX_BYTES": "16MiB",
            "READY_TIMEOUT": "15s",
        }.items():
            monkeypatch.setenv(f"CLUSTERSESSION_{name}", text)
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "clustersession", *arguments]
        found = subprocess.Popen(command, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._processes.append(found)
        return found

    def holder(self) -> int | None:
        return NodeLock(place_for(load_settings(), {})).holder()

    def clean_up(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    found = Host(tmp_path, monkeypatch)
    yield found
    found.clean_up()


def is_ready() -> bool:
    return main(["status"]) == 0


def test_a_node_serves_until_it_is_told_to_end(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """`clustersession node` becomes ready, tells `status` and `tags` what it knows, and ends with 0 on SIGTERM."""
    node = host.start("node")
    until(is_ready, "the node did not become ready")
    assert host.holder() == node.pid
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["node"], status["cluster"]) == ("a", "default")
    assert main(["tags"]) == 0
    tag, name, state, *key = capsys.readouterr().out.split()
    assert (len(tag), name, state, key) == (17, "a", "alive", ["key", "1"])
    node.terminate()
    assert node.wait(timeout=DEADLINE_S) == 0


def test_a_node_open_to_the_network_wants_its_token(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the right token `status` works on a listener for all addresses, with a wrong one it is refused."""
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", f"0.0.0.0:{free_port()}")
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", TOKEN)
    host.start("node")
    until(is_ready, "the node did not become ready")
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", TOKEN + "x")
    assert main(["status"]) == 69
    assert "refuses" in capsys.readouterr().err


def test_two_nodes_on_one_place_are_refused(host: Host) -> None:
    """The second node of a host waits a while for the first one's end, then says which process that is."""
    first = host.start("node")
    until(is_ready, "the node did not become ready")
    second = host.start("node")
    assert second.wait(timeout=3 * DEADLINE_S) == 78
    assert str(first.pid) in second.communicate()[0]


def test_run_gives_the_app_a_node_and_exits_as_the_app_does(host: Host) -> None:
    """When the app starts the node is there, the app starts none itself, and both end together."""
    app = "import os, sys; print('spawn', os.environ['CLUSTERSESSION_SPAWN']); sys.stdout.flush(); input(); sys.exit(5)"
    run = subprocess.Popen(
        [sys.executable, "-m", "clustersession", "run", "--", sys.executable, "-c", app],
        cwd=TOP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    assert run.stdout.readline() == "spawn 0\n"
    assert host.holder() is not None
    assert is_ready()
    run.stdin.write("\n")
    run.stdin.flush()
    assert run.wait(timeout=DEADLINE_S) == 5
    assert host.holder() is None
    run.communicate()


def test_run_refuses_wrong_settings_before_anything_starts(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong setting ends `run` with 78, and the app was never there."""
    monkeypatch.setenv("CLUSTERSESSION_PEERS", "http://b")
    run = host.start("run", "--", "echo", "the app")
    out, _ = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 78
    assert "CLUSTERSESSION_PEERS" in out
    assert "the app" not in out


def test_run_ends_with_78_where_the_node_refuses(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only the node can see, such as a port in use, ends `run` as well, with the setting in the output."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CLUSTERSESSION_LISTEN", f"127.0.0.1:{taken.getsockname()[1]}")
        run = host.start("run", "--", "echo", "the app")
        out, _ = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == 78
    assert "CLUSTERSESSION_LISTEN: cannot listen" in out
    assert "the app" not in out


def test_run_in_dev_mode_is_the_app(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dev mode has no node: `run` becomes the app itself, and no port is opened."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "dev")
    run = host.start("run", "--", sys.executable, "-c", "import os; print(os.getpid())")
    out, _ = run.communicate(timeout=DEADLINE_S)
    assert out.split()[-1] == str(run.pid)


@pytest.mark.parametrize(("command", "code"), [("/nowhere/app", 127), (str(TOP), 126)], ids=["missing", "directory"])
@pytest.mark.parametrize("mode", ["dev", "on"])
def test_run_without_such_a_command_exits_as_shells_do(
    host: Host, monkeypatch: pytest.MonkeyPatch, mode: str, command: str, code: int
) -> None:
    """In dev mode too, where `run` becomes the command."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", mode)
    run = host.start("run", "--", command)
    out, _ = run.communicate(timeout=DEADLINE_S)
    assert run.returncode == code
    assert command in out
    assert "Traceback" not in out


def test_a_killed_node_is_back_under_run(host: Host) -> None:
    """kill -9 of the node under `run`: another one holds the place soon after, the app runs on."""
    run = host.start("run", "--", "sleep", "60")
    until(is_ready, "the node did not become ready")
    first = host.holder()
    assert first
    os.kill(first, signal.SIGKILL)
    until(lambda: host.holder() not in (None, first), "no new node")
    assert run.poll() is None
    run.terminate()
    assert run.wait(timeout=DEADLINE_S) == 128 + signal.SIGTERM
