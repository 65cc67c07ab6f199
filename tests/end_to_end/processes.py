"""The processes of a host, found by a mark in their environment: a process group would miss what puts itself into one of its
own, a parent's id what has been orphaned. Zombies don't count: they have ended."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

MARK = "END_TO_END_HOST"
DEADLINE_S = 30.0
_PR_SET_PDEATHSIG = 1
_ENDED = ("", "Z", "X")
_COMPLAINT = re.compile(r"Traceback|Exception ignored|ResourceWarning|RuntimeWarning|\b(?:ERROR|CRITICAL)\b|never awaited")
_SERVERS_OWN = re.compile(r"ResourceWarning.*(?:Enable tracemalloc|unclosed <socket(?!.*raddr=))")

T = TypeVar("T")


def until(look: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The first true thing that `look` gives; fails with `what` if there is none in time."""
    deadline = time.monotonic() + deadline_s
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return found


def marked(prefix: str) -> list[int]:
    """The living processes whose mark begins with `prefix`, oldest first."""
    wanted = f"{MARK}={prefix}".encode()
    pids = sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if any(each.startswith(wanted) for each in _read(pid, "environ").split(b"\0"))]


def command_of(pid: int) -> str:
    return _read(pid, "cmdline").replace(b"\0", b" ").decode().strip()


def state_of(pid: int) -> str:
    """One letter as in ps (T: stopped), nothing if there is no such process."""
    return _read(pid, "stat").rpartition(b")")[2][1:2].decode()


def signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all(prefix: str) -> list[int]:
    """SIGKILL to everything marked, again for what was forked meanwhile, until all have ended; gives who it was."""
    killed: list[int] = []
    while left := marked(prefix):
        signal_all(left, signal.SIGKILL)
        killed += [pid for pid in left if pid not in killed]
    until(lambda: all(state_of(pid) in _ENDED for pid in killed), "a killed process did not end")  # its sockets close late
    return killed


def end_with_parent() -> None:
    """In a child before exec: SIGTERM when the test run itself is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def complaints(text: str) -> list[str]:
    """Lines of a log that nobody wants to see; without what app servers say about sockets they listen on and leave to exit."""
    return [line for line in text.splitlines() if _COMPLAINT.search(line) and not _SERVERS_OWN.search(line)]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
