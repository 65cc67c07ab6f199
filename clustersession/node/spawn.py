"""The node that nobody starts: the first worker that needs one starts it, and it ends after the last worker.

Each worker holds a *lifeline*, a shared `flock` on `workers.lock` in the place. It belongs to the open file, not to the
process, so it goes with the worker however that ends (kill -9 too), and what a worker forks keeps it. The node tries
the exclusive lock once a second; when it got it for `WORKERLESS_S`, no worker is left: it keeps the lock, so that a new
worker waits until this node is gone, and ends. Starting is done by one worker at a time, under `spawn.lock`.

The started process forks once more: the first one waits until the second serves or has failed, and exits with the outcome;
until then the worker keeps `spawn.lock`, and others that find the node's own lock taken wait too. So the worker has no child
to look after, and the node's parent is whoever takes in orphans.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ..config import Config
from ..errors import ConfigError
from ..settings import check_same_secret
from ..store.locks import NodeLock
from ..store.place import make_private
from .imprint import imprint, left
from .launch import node_command, node_environ

SPAWNED: Final = "--spawned"
WORKERLESS_S: Final = 3.0  # a server that restarts its workers one by one keeps its node
LOOK_EVERY_S: Final = 1.0
RETRY_S: Final = 1.0  # one failed start a second on a host, however many workers ask
LOG_BYTES_MAX: Final = 256 * 1024
_PAUSE_S: Final = 0.02
_WORKERS, _SPAWN, LOG = "workers.lock", "spawn.lock", "node.log"
log: Final = logging.getLogger("clustersession.spawn")

_lifelines: Final[dict[tuple[int, Path], int]] = {}  # by process and place: a forked worker takes its own


def ensure_node(config: Config, place: Path) -> None:
    """Starts the host's node if none runs there and the settings let a worker do it. Blocks for at most `ready_s`.

    Cheap when a node runs, so that a worker may ask again whenever the node seems to be gone. A worker that asks for the
    first time replaces a node that was started by a worker with other settings. Raises `ConfigError` with the node's last
    words if it cannot start, and for a secret of which the running node has no key; `StoreRefused` if the place is unfit; a
    node that is slow to start is only logged.
    """
    if not config.spawn:
        return
    make_private(place)
    deadline = time.monotonic() + config.timeouts.ready_s
    is_new = (os.getpid(), place) not in _lifelines
    while time.monotonic() < deadline:
        if _hold_lifeline(place):
            holder = NodeLock(place).holder()
            if holder is not None:
                if holder and is_new and _is_outdated(config, place):  # 0: in a container beside this one
                    _end(holder)
                elif not _is_being_started(place):
                    return
            else:
                with _try_lock(place / _SPAWN) as fd:
                    if fd is not None:
                        _spawn(config, place, fd)
                        return
        time.sleep(_PAUSE_S)
    log.warning("no node runs in %s after %g s", place, config.timeouts.ready_s)


def _is_being_started(place: Path) -> bool:
    """Whether a worker waits for the node, which may still find that it cannot listen."""
    with _try_lock(place / _SPAWN, fcntl.LOCK_SH) as fd:
        return fd is None


def _is_outdated(config: Config, place: Path) -> bool:
    """Whether a worker with other settings started the node. Without a common key this worker must not count as one of its
    workers: that node ends when they have gone, and only then may a new secret take over."""
    theirs, mine = left(place), imprint(config)
    if theirs is None or theirs == mine:
        return False
    if theirs.keys and mine.keys:
        try:
            check_same_secret(lambda _: theirs.keys.encode(), lambda *_: None, mine.keys)
        except ConfigError:
            os.close(_lifelines.pop((os.getpid(), place)))
            raise
    return True


def _end(node: int) -> None:
    log.info("the node was started with other settings; process %d is replaced", node)
    with suppress(ProcessLookupError):
        os.kill(node, signal.SIGTERM)


def _hold_lifeline(place: Path) -> bool:
    """Whether this process is now counted among the workers; not while a node is ending."""
    mine = (os.getpid(), place)
    if mine in _lifelines:
        return True
    fd = _opened(place / _WORKERS)
    if not _locked(fd, fcntl.LOCK_SH):
        os.close(fd)
        return False
    if _lifelines.setdefault(mine, fd) != fd:  # another thread was quicker
        os.close(fd)
    for other in [each for each in _lifelines if each[0] != mine[0]]:
        os.close(_lifelines.pop(other))  # the copy of a parent's: this process must not hold on for it
    return True


def _spawn(config: Config, place: Path, spawn_fd: int) -> None:
    if NodeLock(place).holder() is not None:
        return
    failure = os.pread(spawn_fd, 4096, 0).decode(errors="replace")
    if not failure or time.time() - os.fstat(spawn_fd).st_mtime > RETRY_S:
        failure = _started(config, place)
        os.truncate(spawn_fd, 0)
        os.pwrite(spawn_fd, failure.encode()[:4096], 0)
    if failure:
        raise ConfigError(
            "CLUSTERSESSION_SPAWN", f"the node of this host does not start: {failure}", f"Its log is {place / LOG}."
        )


def _started(config: Config, place: Path) -> str:
    """Starts the node; its last words if it failed at once, else nothing."""
    with _log_file(place).open("ab") as output:
        try:
            done = subprocess.run(
                node_command(SPAWNED),
                env=node_environ(config),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                timeout=config.timeouts.ready_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.warning("the node is slow to start; its log is %s", place / LOG)
            return ""
        except OSError as error:
            return f"{node_command()[0]} cannot be run ({error.strerror})"
    if done.returncode == 0:
        return ""
    return _last_words(place).removeprefix("clustersession: ").rstrip(".") or f"it ended with {done.returncode}"


def _log_file(place: Path) -> Path:
    path = place / LOG
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(place / f"{LOG}.1")
    path.touch(mode=0o600)
    return path


def _last_words(place: Path) -> str:
    with (place / LOG).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 2048))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def detach(place: Path, wait_s: float) -> Callable[[], None]:
    """In the process that a worker started: goes on in a child of its own, which calls what this gives as soon as it serves.
    This one exits, with 0 then."""
    heard, said = os.pipe()
    pid = os.fork()
    if pid:
        os.close(said)
        os._exit(_outcome(pid, heard, place, wait_s))
    os.close(heard)

    def serving() -> None:
        with suppress(BrokenPipeError):  # nobody waits any more
            os.write(said, b"1")
        os.close(said)

    return serving


def _outcome(pid: int, heard: int, place: Path, wait_s: float) -> int:
    if not select.select([heard], [], [], wait_s)[0] or os.read(heard, 1):
        return 0
    _, status = os.waitpid(pid, 0)  # the pipe was closed by its end
    if NodeLock(place).holder() is not None:
        return 0  # somebody else's node was quicker
    return max(os.waitstatus_to_exitcode(status), 1)


def end_after_last_worker(place: Path) -> None:
    """In the node: watches the lifelines from a thread, and sends this process SIGTERM when no worker is left."""
    threading.Thread(target=_watch, args=(place,), name="clustersession-lifelines", daemon=True).start()


def _watch(place: Path) -> None:
    fd = _opened(place / _WORKERS)
    workerless_since: float | None = None
    while True:
        time.sleep(LOOK_EVERY_S)
        if not _locked(fd, fcntl.LOCK_EX):
            workerless_since = None
            continue
        workerless_since = time.monotonic() if workerless_since is None else workerless_since
        if time.monotonic() - workerless_since >= WORKERLESS_S:
            log.info("the last worker has gone, and so does this node")
            os.kill(os.getpid(), signal.SIGTERM)
            return  # with the lock: a new worker waits for the end of this process
        fcntl.flock(fd, fcntl.LOCK_UN)


@contextmanager
def _try_lock(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[int | None]:
    """The file's descriptor with its lock, or None while another process has it."""
    fd = _opened(path)
    try:
        yield fd if _locked(fd, how) else None
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _locked(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
