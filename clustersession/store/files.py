"""This process's one handle on the files of a place: joined once, opened lazily, closed around every fork.

LMDB forbids to open an environment twice in a process and to carry it into a child. So all stores of a process at one
place share one `Files`, and every environment is closed before a fork and opened again when it is next used, on both sides.
Nothing here sleeps while it holds a lock: with gevent the lock may be a native one, made before the patching.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import lmdb
import msgspec

from ..errors import StoreError, StoreRefused
from . import environments
from .locks import LockFile, ShardLock
from .meta import Meta, Setting, fits, here, new_meta, read_meta, write_meta
from .place import make_private
from .sizing import SHARDS, Sizes, sizes, store_bytes
from .space import Space

log: Final = logging.getLogger("clustersession.store")

Begin: TypeAlias = Callable[[], "lmdb.Transaction[bytes]"]

_SET_UP: Final = SHARDS + 1  # bytes of the lock file: whoever looks after the files as a whole
_USE: Final = SHARDS + 2  # shared by all processes that use the files
_SET_UP_WAIT_S: Final = 5.0


class Plan(NamedTuple):
    """Which files, whose, how large (None: what is there), and how long a writer waits for another."""

    place: Path
    cluster: str
    node: str
    bytes_max: int | None
    lock_s: float


class Files:
    """Environments and locks of the sixteenths (0 to 15) and of the board (16)."""

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self.plan, self._now = plan, now
        self.users = 0
        self.meta: Meta
        self.sizes: Sizes
        self.begins: list[Begin] = [functools.partial(self._first, number) for number in environments.NUMBERS]
        self._environments: list[lmdb.Environment | None] = [None for _ in environments.NUMBERS]
        self._spaces: dict[int, Space] = {}
        self._carried: list[lmdb.Environment | None] = []
        self._joined = False
        self._lock_file: LockFile | None = None
        self._locks: list[ShardLock] = []

    def lock(self, number: int) -> ShardLock:
        """The right to write to environment `number`."""
        if not self._joined:
            self.join()
        return self._locks[number]

    def environment(self, number: int) -> lmdb.Environment:
        """The open environment. Raises `StoreRefused`, `StoreError` once the last store has been closed."""
        environment = self._environments[number]
        if environment is None:
            self.join()
            with _gate:
                environment = self._environments[number] or self._opened(number)
        return environment

    def space(self, number: int) -> Space:
        """The pages of an environment that is open."""
        return self._spaces[number]

    def _first(self, number: int) -> lmdb.Transaction[bytes]:
        return self.environment(number).begin()

    def join(self) -> None:
        """Finds or makes the files, and says that this process uses them. Raises `StoreRefused`."""
        deadline = time.monotonic() + _SET_UP_WAIT_S
        while not self._joined:
            with _gate:
                word = self._try_join()
            if word is not None:
                if word:
                    log.warning("%s: %s", self.plan.place, word)
                return
            if time.monotonic() > deadline:
                holder = self._lock_file and self._lock_file.holder(_SET_UP)
                raise StoreRefused(f"{self.plan.place}: process {holder} sets the files up and does not move. Resume or kill it.")
            time.sleep(0.002)

    def _try_join(self) -> str | None:
        """None: another process is at it. Else what is worth a word in the log."""
        if self._joined:
            return ""
        if not self.users:
            raise StoreError(f"the store at {self.plan.place} is closed")
        if self._carried:
            raise StoreRefused(
                f"{self.plan.place}: this process was forked after its parent had used the store, and not by Python. Let each "
                "worker load the app itself (uWSGI: lazy-apps = true)."
            )
        make_private(self.plan.place)
        file = self._lock_file = self._lock_file or LockFile(self.plan.place / "locks")
        if not file.try_lock(_SET_UP):
            return None
        try:
            word = self._set_up(here(self.plan.cluster, self.plan.node), in_use=file.holder(_USE) is not None)
            file.try_lock(_USE, shared=True)
        finally:
            file.unlock(_SET_UP)
        self._locks = [ShardLock(file, number, self.plan.lock_s) for number in environments.NUMBERS]
        self._joined = True
        return word

    def _set_up(self, setting: Setting, *, in_use: bool) -> str:
        place, asked = self.plan.place, self.plan.bytes_max
        found = read_meta(place)
        reason = "new" if found is None else fits(place, found, setting, in_use=in_use)
        try:
            if found is None or reason in ("new", "boot"):
                environments.remove(place, environments.DATA_NAME, environments.LOCK_NAME)
                meta = new_meta(setting, self._now(), store_bytes(place, asked))
            else:
                if reason == "namespace":
                    environments.remove(place, environments.LOCK_NAME)
                meta = msgspec.structs.replace(found, pid_namespace=setting.pid_namespace)
                if not in_use and asked is not None and asked != found.bytes_max:
                    meta = msgspec.structs.replace(meta, bytes_max=store_bytes(place, asked, environments.used_bytes(place)))
            if not in_use:
                environments.allocate_locks(place)
            self.meta, self.sizes = meta, sizes(meta.bytes_max)
            if reason in ("new", "boot"):
                for number in environments.NUMBERS:  # all have their first pages, should the place fill up before they are used
                    with environments.opened(place, number, self.sizes) as environment:
                        Space(environment, environments.data_of(place, number)).keep_ahead(step=0)
            if meta != found:
                write_meta(place, meta)
        except OSError as error:
            raise StoreRefused(f"{error.filename or place}: {error.strerror}. Make room and see to the rights there.") from error
        if reason == "boot":
            return "the sessions of before the reboot are discarded: their times mean nothing any more"
        if asked not in (None, meta.bytes_max):
            return f"the store keeps {meta.bytes_max} bytes until all processes of this node have been restarted"
        return ""

    def _opened(self, number: int) -> lmdb.Environment:
        environment = environments.opened(self.plan.place, number, self.sizes)
        self._environments[number] = environment
        self._spaces[number] = Space(environment, environments.data_of(self.plan.place, number))
        self.begins[number] = environment.begin
        return environment

    def reopen(self, number: int) -> None:
        """LMDB has given up on this environment: its next use opens it anew."""
        with _gate:
            self._close(number)

    def _close(self, number: int) -> None:
        environment, self._environments[number] = self._environments[number], None
        self.begins[number] = functools.partial(self._first, number)
        if environment is not None:
            environment.close()

    def down(self) -> dict[int, int | None]:
        """The numbers this process has given up on for now, with the processes that hold their locks."""
        return {number: lock.holder() for number, lock in enumerate(self._locks) if lock.down}

    def close_environments(self) -> None:
        for number in environments.NUMBERS:
            self._close(number)

    def renew(self) -> None:
        """In a child: nothing of the parent's is used; the locks are the parent's, so the child joins anew."""
        for number in environments.NUMBERS:
            if self._environments[number] is not None:  # forked by C code that ran no hook before
                self._carried.append(self._environments[number])  # never closed: that would write to the parent's lock file
                self._environments[number] = None
                self.begins[number] = functools.partial(self._first, number)
        file, self._lock_file, self._locks, self._joined = self._lock_file, None, [], False
        if file is not None:
            file.close()  # at once: closing it later would drop the locks that the child takes

    def leave(self) -> None:
        """Closes everything: no store of this process uses the files any more."""
        self.close_environments()
        self.renew()


# --- one `Files` for each place in this process -----------------------------------------------------------------------

_gate = threading.Lock()  # held while environments are opened or closed, and through a fork
_files: Final[dict[Path, Files]] = {}


def use(plan: Plan, now: Callable[[], float]) -> Files:
    """The files of `plan`, joined. `release` them once for each use."""
    with _gate:
        files = _files.get(plan.place)
        if files is None:
            files = _files[plan.place] = Files(plan, now)
        elif files.plan[:3] != plan[:3]:
            raise StoreRefused(f"{plan.place}: this process uses it for node {files.plan.node!r} of {files.plan.cluster!r}.")
        files.users += 1
    try:
        files.join()
    except BaseException:
        release(files)
        raise
    return files


def release(files: Files) -> None:
    """The last one closes them."""
    with _gate:
        files.users -= 1
        if not files.users:
            del _files[files.plan.place]
            files.leave()


def _before_fork() -> None:
    _gate.acquire()
    for files in _files.values():
        files.close_environments()


def _after_fork_in_parent() -> None:
    _gate.release()


def _after_fork_in_child() -> None:
    global _gate  # noqa: PLW0603  (the parent's may have waiters that do not exist here)
    _gate = threading.Lock()
    for files in _files.values():
        files.renew()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
