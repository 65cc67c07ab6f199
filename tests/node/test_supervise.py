import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

TOP = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-m", "tests.node.supervised"]
DEADLINE_S = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Run:
    """One supervisor with its two commands, and the story they write."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.touch()
        self._process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *,
        node: list[str] | None = None,
        app: list[str] | None = None,
        ready_s: float = 20.0,
        notice_s: float = 0.0,
        terminal: str = "",
    ) -> None:
        node = node or [*PROGRAM, "part", str(self.log), "node"]
        app = app or [*PROGRAM, "part", str(self.log), "app", "7"]
        command = [*PROGRAM, "supervise", str(self.log), str(ready_s), str(notice_s), terminal, json.dumps(node), *app]
        self._process = subprocess.Popen(command, cwd=TOP, start_new_session=True)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def story(self) -> list[tuple[str, str, int]]:
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(name, what, int(pid)) for name, what, pid in lines]

    def told(self) -> list[str]:
        return [f"{name} {what}" for name, what, _ in self.story()]

    def pids(self, name: str) -> list[int]:
        return [pid for who, what, pid in self.story() if (who, what) == (name, "runs")]

    def await_told(self, line: str, times: int = 1) -> None:
        until(lambda: self.told().count(line) >= times, f"{line!r} {times} times in {self.told()}")

    def end(self) -> int:
        return self.process.wait(timeout=DEADLINE_S)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for pid in self.pids("node") + self.pids("app"):
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    found = Run(tmp_path / "story")
    yield found
    found.clean_up()


def test_the_app_starts_once_the_node_is_ready_and_the_node_ends_after_the_app(run: Run) -> None:
    """The node is there for the whole life of the app; at SIGTERM the node is told to
    leave, and to end when the app has ended."""
    run.start()
    run.await_told("app waits")
    run.process.terminate()
    assert run.end() == 7
    node, app = ["runs", "waits", "SIGUSR1", "SIGTERM", "ended"], ["runs", "waits", "SIGTERM", "ended"]
    story = run.told()
    assert [line for line in story if line.startswith("node")] == [f"node {each}" for each in node]
    assert [line for line in story if line.startswith("app")] == [f"app {each}" for each in app]
    assert story.index("app ended") < story.index("node SIGTERM")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, 137), (signal.SIGTERM, 7)])
def test_it_exits_as_the_app_did(run: Run, how: signal.Signals, code: int) -> None:
    """The exit code is the app's, and 128 + n if a signal ended it; the node is ended in both cases."""
    run.start()
    run.await_told("app waits")
    os.kill(run.pids("app")[0], how)
    assert run.end() == code
    assert "node ended" in run.told()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_a_notice_the_node_is_told_first_and_the_app_later(run: Run, number: signal.Signals) -> None:
    """The app goes on for as long as the notice lasts, then gets the very signal, once; the node hears of it at the start."""
    run.start(notice_s=1.0)
    run.await_told("app waits")
    told = time.monotonic()
    run.process.send_signal(number)
    run.await_told(f"app {number.name}")
    assert time.monotonic() - told >= 1.0
    assert run.end() == 7
    assert run.told().index("node SIGUSR1") < run.told().index(f"app {number.name}")
    assert [line for line in run.told() if line.startswith("app")] == ["app runs", "app waits", f"app {number.name}", "app ended"]
    assert run.told().count("node SIGUSR1") == 1


def test_a_second_signal_ends_the_notice(run: Run) -> None:
    """Who does not want to wait says it again: the app gets that signal at once, and no other one after it."""
    run.start(notice_s=600.0)
    run.await_told("app waits")
    run.process.terminate()
    run.await_told("node SIGUSR1")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 7
    assert [line for line in run.told() if line.startswith("app SIG")] == ["app SIGINT"]


def test_during_the_notice_all_else_goes_on(run: Run) -> None:
    """Other signals reach the app, a node that dies is started again, and the app's own end is the end."""
    run.start(notice_s=600.0)
    run.await_told("app waits")
    run.process.terminate()
    run.await_told("node SIGUSR1")
    run.process.send_signal(signal.SIGHUP)
    run.await_told("app SIGHUP")
    os.kill(run.pids("node")[0], signal.SIGKILL)
    run.await_told("node waits", times=2)
    os.kill(run.pids("app")[0], signal.SIGKILL)
    assert run.end() == 137
    assert "app SIGTERM" not in run.told()


def test_a_held_signal_comes_also_when_a_node_must_be_started_meanwhile(run: Run) -> None:
    """A node that dies again and again during the notice does not keep the app's signal back."""
    node = f"echo node waits $$ >> {run.log}; trap 'echo node SIGUSR1 $$ >> {run.log}; exit 1' USR1; while :; do sleep 0.01; done"
    run.start(node=["/bin/sh", "-c", node], ready_s=0.0, notice_s=0.5)
    run.await_told("app waits")
    run.await_told("node waits")
    run.process.terminate()
    run.await_told("node waits", times=2)
    run.await_told("app SIGTERM")
    assert run.end() == 7


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_other_signals_go_on_to_the_app(run: Run, number: signal.Signals) -> None:
    """A reload or a log rotation is the app's business."""
    run.start()
    run.await_told("app waits")
    run.process.send_signal(number)
    run.await_told(f"app {number.name}")
    run.process.terminate()
    assert run.end() == 7
    leaving = number is signal.SIGUSR1  # what the node is told at the end
    assert run.told().count(f"node {number.name}") == leaving


def test_a_dead_node_is_started_again_at_once(run: Run) -> None:
    """A node that is killed has a successor within a second, and the app does not notice."""
    run.start()
    run.await_told("app waits")
    killed = time.monotonic()
    os.kill(run.pids("node")[0], signal.SIGKILL)
    run.await_told("node waits", times=2)
    assert time.monotonic() - killed < 2.0
    first, second = run.pids("node")
    assert first != second
    run.process.terminate()
    assert run.end() == 7
    assert run.pids("app") == [run.story()[run.told().index("app ended")][2]]


def test_a_node_that_dies_again_and_again_is_started_less_often(run: Run) -> None:
    """A node that cannot live does not keep the host busy: pauses between its starts double."""
    run.start(node=["/bin/sh", "-c", f"echo node runs $$ >> {run.log}; exit 1"], ready_s=0.0)
    run.await_told("node runs", times=4)
    began = time.monotonic()
    run.await_told("node runs", times=5)
    assert time.monotonic() - began > 0.5  # 0.8 s, less what had passed when the fourth was seen
    run.process.terminate()
    assert run.end() == 7


def test_both_children_end_with_a_killed_supervisor(run: Run) -> None:
    """kill -9 of the supervisor leaves neither a node nor an app behind."""
    run.start()
    run.await_told("app waits")
    run.process.kill()
    run.process.wait()
    until(lambda: not any(map(psutil.pid_exists, run.pids("node") + run.pids("app"))), "a child outlived its supervisor")
    assert {"node SIGTERM", "app SIGTERM"} <= set(run.told())


def test_a_node_that_refuses_its_settings_ends_it_all(run: Run) -> None:
    """Exit code 78 of the node at start is the exit code of the whole, and no app is started."""
    run.start(node=["/bin/sh", "-c", "exit 78"])
    assert run.end() == 78
    assert run.story() == []


def test_the_wait_for_the_node_is_bounded(run: Run) -> None:
    """An app is started beside a node that does not become ready: its sessions may be on other hosts."""
    run.start(node=[*PROGRAM, "slow_node", str(run.log)], ready_s=0.3)
    run.await_told("app waits")
    run.process.terminate()
    assert run.end() == 7
    assert "node ended" in run.told()


def test_a_signal_during_the_wait_ends_it(run: Run) -> None:
    """SIGTERM while the node is still starting ends the node, and no app is started."""
    run.start(node=[*PROGRAM, "slow_node", str(run.log)])
    run.await_told("node waits")
    run.process.terminate()
    assert run.end() == 128 + signal.SIGTERM
    assert run.told()[-1] == "node ended"
    assert run.pids("app") == []


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), (str(TOP / "LICENSE"), 126)])
def test_an_app_that_cannot_be_run_is_said_as_shells_do(run: Run, command: str, code: int) -> None:
    """127 for a command that is not there, 126 for one that is no program; the node is ended."""
    run.start(app=[command])
    assert run.end() == code
    assert run.told()[-1] == "node ended"


def test_orphans_are_reaped(run: Run) -> None:
    """As PID 1 of a container it inherits processes, and leaves no zombie of them."""
    run.start(app=[*PROGRAM, "orphaning", str(run.log)])
    assert run.end() == 0
    assert "orphan reaped" in run.told()


def test_ctrl_c_reaches_the_app_once_and_the_node_not_at_all(run: Run) -> None:
    """The terminal interrupts the app itself; it is not told a second time, and the node lives until the app has ended."""
    ours, theirs = pty.openpty()
    run.start(terminal=os.ttyname(theirs))
    run.await_told("app waits")
    os.write(ours, b"\x03")
    assert run.end() == 7
    assert run.told().count("app SIGINT") == 1
    assert "node SIGINT" not in run.told()
    assert run.told().index("app ended") < run.told().index("node SIGTERM")
    os.close(ours)
    os.close(theirs)
