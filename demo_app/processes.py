"""All processes of one app host, found by a mark in their environment: supervisor, node, app server and its workers.

A process group would miss what a server puts into a group of its own, and the parent's id what has been orphaned.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

MARK = "DEMO_APP_HOST"
_PR_SET_PDEATHSIG = 1


def marked(mark: str) -> list[int]:
    """The living processes that were started with `MARK=mark`, oldest first."""
    wanted = f"{MARK}={mark}".encode()
    return sorted(pid for pid in _all_pids() if wanted in _environment(pid).split(b"\0"))


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send it to each, the oldest first, so that a supervisor goes before what it would restart."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def stopped(pid: int) -> bool:
    """Whether it has been stopped by SIGSTOP."""
    return _state(pid) == "T"


def alive(pid: int) -> bool:
    """Whether it still runs (a zombie does not)."""
    return _state(pid) not in ("", "Z", "X")


def left_behind(name: str, prefix: str) -> bool:
    """Whether `name` is `prefix`, the id of a demo's process that is gone, and `-...`."""
    owner = name.removeprefix(prefix).partition("-")[0]
    return name.startswith(prefix) and owner.isdigit() and not alive(int(owner))


def end_with_parent() -> None:
    """In a child before exec: get SIGTERM when the demo dies, whatever it dies of."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
