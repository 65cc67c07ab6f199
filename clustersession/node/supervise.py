"""`clustersession run -- CMD`: the host's node and the app as two children of one process, which may be PID 1.

The node is started first; the app once the node is ready, or after a bounded wait. A node that dies is started again. When
the app ends, so does the node, and this process exits as the app did. Signals go on to the app; what the terminal sends
to the whole foreground group (Ctrl-C) has reached it already, and the node is kept out of that group, so that it outlives the
app's shutdown. Should this process be killed itself, the kernel sends both children SIGTERM.

Of the signals that end the app the node is told first, and the app some seconds later if a notice is set: `/readyz` says 503
meanwhile, so a balancer sends no new requests when the app stops to listen. One more such signal goes on at once.

All signals are blocked and fetched by `sigtimedwait`, so that nothing runs in a signal handler.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from .launch import OWED_EXIT
from .notify import VARIABLE, ReadySocket

FORWARDED: Final = frozenset(
    {
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGWINCH,
    }
)
ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
STEADY_S: Final = 5.0  # a node that lived so long is started again at once
RESTART_S_MIN: Final = 0.1
RESTART_S_MAX: Final = 5.0
NODE_STOP_S: Final = 5.0  # beyond the time it may take to hand over its sessions
LEAVING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
CONFIG_EXIT: Final = 78  # EX_CONFIG of sysexits(3): starting again would not help
NOT_FOUND_EXIT: Final = 127  # as shells say it
NOT_EXECUTABLE_EXIT: Final = 126

_PR_SET_PDEATHSIG: Final = 1
_SI_KERNEL: Final = 0x80
log: Final = logging.getLogger("clustersession.run")


class Commands(NamedTuple):
    """What is run: the node and the app, each with its environment."""

    node: Sequence[str]
    node_environ: Mapping[str, str]
    app: Sequence[str]
    app_environ: Mapping[str, str]


class _Held(NamedTuple):
    """A signal that goes on to the app later."""

    number: int
    until: float


class Supervisor:
    """Runs `commands` until the app ends. `ready_s`: how long the app waits for the node; `notice_s`: how long it goes on after
    the first signal to end; `on_app` is called at its start."""

    def __init__(
        self,
        commands: Commands,
        *,
        ready_s: float,
        drain_s: float = 0.0,
        notice_s: float = 0.0,
        on_app: Callable[[], object] = lambda: None,
    ) -> None:
        self._commands, self._ready_s, self._stop_s, self._on_app = commands, ready_s, drain_s + NODE_STOP_S, on_app
        self._notice_s = notice_s
        self._node: subprocess.Popen[bytes] | None = None
        self._app: subprocess.Popen[bytes] | None = None
        self._node_started = 0.0
        self._quick_deaths = 0
        self._restart_at: float | None = None
        self._stopping = False
        self._leaving = False
        self._held: _Held | None = None

    def run(self) -> int:
        """Returns the exit code: the app's, 128 + n if signal n ended it, 78 if the node refuses its settings at start."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a parent may have left it ignored: then nothing could be awaited
        before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED | {signal.SIGCHLD})
        try:
            with ReadySocket() as ready:
                code = self._run(ready)
        finally:
            self._stop_node()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        owes = self._node is not None and self._node.returncode == OWED_EXIT
        return OWED_EXIT if code == 0 and owes else code

    def _run(self, ready: ReadySocket) -> int:
        self._start_node(ready)
        refused = self._await_node(ready)
        if refused is not None:
            return refused
        try:
            self._app = self._started(self._commands.app, self._commands.app_environ)
        except OSError as error:
            return cannot_run(self._commands.app[0], error)
        self._on_app()
        while self._app.returncode is None:
            self._forward(self._event(self._until_due()))
            self._pass_on_when_due()
            self._restart_when_due(ready)
        return _exit_code(self._app.returncode)

    def _await_node(self, ready: ReadySocket) -> int | None:
        """Waits for the node, no longer than `ready_s`. An exit code means: do not start the app."""
        deadline = time.monotonic() + self._ready_s
        while not ready.heard():
            event = self._event(0.02)
            if event is not None and event.si_signo in ENDING:
                return 128 + event.si_signo
            if self._node is not None and self._node.returncode == CONFIG_EXIT:
                return CONFIG_EXIT
            if time.monotonic() > deadline:
                log.warning("the node is not ready after %g s; the app is started all the same", self._ready_s)
                return None
            self._restart_when_due(ready)
        return None

    def _start_node(self, ready: ReadySocket) -> None:
        environ = {**self._commands.node_environ, VARIABLE: ready.address}
        self._node = self._started(self._commands.node, environ, own_group=True)
        self._node_started, self._restart_at = time.monotonic(), None

    def _started(self, command: Sequence[str], environ: Mapping[str, str], *, own_group: bool = False) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env=environ,
            stdin=subprocess.DEVNULL if own_group else None,
            process_group=0 if own_group else None,
            preexec_fn=_in_child(os.getpid()),  # noqa: PLW1509  (this process has one thread)
        )

    def _event(self, timeout: float | None) -> signal.struct_siginfo | None:
        """The next signal, None after `timeout` seconds. Children that ended have been reaped before it returns."""
        waited = FORWARDED | {signal.SIGCHLD}
        event = signal.sigwaitinfo(waited) if timeout is None else signal.sigtimedwait(waited, timeout)
        if event is not None and event.si_signo == signal.SIGCHLD:
            self._reap()
        return event

    def _reap(self) -> None:
        """Takes the status of every child that ended, also of strangers: as PID 1 this process inherits orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if self._app is not None and pid == self._app.pid:
                self._app.returncode = code
            elif self._node is not None and pid == self._node.pid:
                self._node.returncode = code
                if not self._stopping:
                    self._node_ended(code)

    def _node_ended(self, code: int) -> None:
        if code == CONFIG_EXIT and self._app is None:
            return  # it has said why, and is not started again
        quick = time.monotonic() - self._node_started < STEADY_S
        delay = min(RESTART_S_MIN * 2**self._quick_deaths, RESTART_S_MAX) if quick and self._quick_deaths else 0.0
        self._quick_deaths = self._quick_deaths + 1 if quick else 0
        self._restart_at = time.monotonic() + delay
        log.warning("the node ended with %d; it is started again in %g s", code, delay)

    def _until_due(self) -> float | None:
        due = [at for at in (self._restart_at, self._held and self._held.until) if at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _restart_when_due(self, ready: ReadySocket) -> None:
        app_ended = self._app is not None and self._app.returncode is not None
        if self._restart_at is not None and time.monotonic() >= self._restart_at and not app_ended:
            self._start_node(ready)

    def _forward(self, event: signal.struct_siginfo | None) -> None:
        if event is None or event.si_signo not in FORWARDED or event.si_code == _SI_KERNEL:
            return
        if event.si_signo not in LEAVING:
            self._pass_on(event.si_signo)
            return
        if self._node is not None and self._node.returncode is None:
            os.kill(self._node.pid, signal.SIGUSR1)  # it hands over beside the app's own grace
        first, self._leaving = not self._leaving, True
        if first and self._notice_s:
            self._held = _Held(event.si_signo, time.monotonic() + self._notice_s)
            log.info("the app is told to end in %g s, and serves until then", self._notice_s)
        else:
            self._held = None
            self._pass_on(event.si_signo)

    def _pass_on_when_due(self) -> None:
        if self._held is not None and time.monotonic() >= self._held.until:
            number, self._held = self._held.number, None
            self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._app is not None and self._app.returncode is None:
            os.kill(self._app.pid, number)

    def _stop_node(self) -> None:
        node, self._stopping = self._node, True
        if node is None or node.returncode is not None:
            return
        self._reap()
        deadline = time.monotonic() + self._stop_s
        if node.returncode is None:
            os.kill(node.pid, signal.SIGTERM)
        while node.returncode is None:
            event = self._event(max(0.0, deadline - time.monotonic()))
            if event is None:
                log.error("the node does not end within %g s and is killed", self._stop_s)
                os.kill(node.pid, signal.SIGKILL)
                deadline = time.monotonic() + NODE_STOP_S
            elif event.si_signo in ENDING:
                os.kill(node.pid, event.si_signo)


def cannot_run(command: str, error: OSError) -> int:
    """Says so, and gives the exit code that shells have for it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        log.error("there is no command %s", command)
        return NOT_FOUND_EXIT
    log.error("cannot run %s: %s", command, error.strerror)
    return NOT_EXECUTABLE_EXIT


def _exit_code(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode


def _in_child(parent: int) -> Callable[[], None]:
    """What the child does before it becomes its command: take all signals again, and end with its parent."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it died in between: the signal will not come any more
                os.kill(os.getpid(), signal.SIGKILL)

    return prepare
