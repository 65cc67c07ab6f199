"""Locks between processes that vanish with their holder: POSIX record locks on single bytes of a file.

LMDB's own writer lock waits for ever when its holder is stopped and cannot say who that is. So every writer first takes
the byte of its sixteenth here, which can be waited for with a limit and names its holder. Waiting is done in short sleeps
and never under another lock, so that greenlets get on too.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from pathlib import Path
from typing import Final

from ..errors import ShardDown, StoreRefused

NODE_LOCK_NAME: Final = "node.lock"
_FLOCK: Final = struct.Struct("@hhqqi0q")  # struct flock of 64-bit Linux, with its padding
_BUSY: Final = (errno.EACCES, errno.EAGAIN)
_YIELDS: Final = 8  # first tries after a yield only: a change takes some 20 us
_PAUSE_MIN_S: Final = 20e-6
_PAUSE_MAX_S: Final = 2e-3


class LockFile:
    """The bytes of one file as locks. A process must open a file once only: closing any descriptor drops all its locks."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StoreRefused(f"{path}: {error.strerror}. Give this user the right to write there.") from error

    def try_lock(self, byte: int, *, shared: bool = False) -> bool:
        """Takes the lock unless another process holds it; what this process holds already it gets again."""
        try:
            fcntl.lockf(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            raise
        return True

    def unlock(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)

    def holder(self, byte: int) -> int | None:
        """The other process that holds the lock in any way; 0 if it is in another PID namespace, None if there is none."""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else max(pid, 0)

    def close(self) -> None:
        os.close(self._fd)


class ShardLock:
    """The right to write to one sixteenth, among the threads of this process and all processes of the host.

    Entering raises `ShardDown` after `wait_s`. From then on the sixteenth is down for this process: as long as the same
    holder has it, entering raises at once.
    """

    __slots__ = ("_byte", "_down", "_down_by", "_file", "_thread", "_wait_s")

    def __init__(self, file: LockFile, byte: int, wait_s: float) -> None:
        self._file, self._byte, self._wait_s = file, byte, wait_s
        self._thread = threading.Lock()
        self._down = False
        self._down_by: int | None = None

    def __enter__(self) -> None:
        if not self._try():
            self._wait()

    def __exit__(self, *_: object) -> None:
        self._file.unlock(self._byte)
        self._thread.release()

    @property
    def down(self) -> bool:
        """Whether the last try gave up, and the same holder still has it."""
        return self._down and self.holder() == self._down_by

    def holder(self) -> int | None:
        """Who has it now: a process, this one too; 0 for one in another PID namespace."""
        other = self._file.holder(self._byte)
        return os.getpid() if other is None and self._thread.locked() else other

    def _try(self) -> bool:
        if not self._thread.acquire(blocking=False):
            return False
        if self._file.try_lock(self._byte):
            self._down = False
            return True
        self._thread.release()
        return False

    def _wait(self) -> None:
        if self.down:
            raise ShardDown(self._byte, self._down_by)
        deadline = time.monotonic() + self._wait_s
        for _ in range(_YIELDS):
            time.sleep(0)
            if self._try():
                return
        pause = _PAUSE_MIN_S
        while time.monotonic() < deadline:
            time.sleep(pause)
            if self._try():
                return
            pause = min(2 * pause, _PAUSE_MAX_S)
        self._down, self._down_by = True, self.holder()
        raise ShardDown(self._byte, self._down_by)


_node_locks: Final[dict[Path, int]] = {}  # those that this process holds, with its pid: a child inherits none


class NodeLock:
    """That one node process at most works on the files of a place. Gone with its process."""

    def __init__(self, place: Path) -> None:
        self._path = place.resolve() / NODE_LOCK_NAME
        self._file: LockFile | None = None

    def acquire(self, *, blocking: bool = False) -> bool:
        """Whether this process has it now; `blocking` waits until it does."""
        while not self._try():
            if not blocking:
                return False
            time.sleep(0.05)
        return True

    def release(self) -> None:
        if self._file is not None and _node_locks.get(self._path) == os.getpid():
            del _node_locks[self._path]
            self._file.close()
        self._file = None

    def holder(self) -> int | None:
        """The process that holds it; 0 if that is in another PID namespace, None if there is none."""
        if _node_locks.get(self._path) == os.getpid():
            return os.getpid()
        if not self._path.exists():
            return None
        file = LockFile(self._path)
        try:
            return file.holder(0)
        finally:
            file.close()

    def _try(self) -> bool:
        if _node_locks.get(self._path) == os.getpid():
            return False
        file = LockFile(self._path)
        if not file.try_lock(0):
            file.close()
            return False
        self._file = file
        _node_locks[self._path] = os.getpid()
        return True
