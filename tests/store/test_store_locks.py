"""Locks that vanish with their process, and the lock of the one node of a place."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clustersession.errors import StoreRefused
from clustersession.store import NodeLock
from clustersession.store.locks import LockFile

from .actor import PATIENCE_S
from .conftest import Actors

Heard = Callable[[subprocess.Popen[str]], str]


def test_one_node_at_a_time(tmp_path: Path, act: Actors, heard: Heard) -> None:
    """Of several processes one gets the node lock; the others are told which."""
    first, lock = act("node", tmp_path), NodeLock(tmp_path)
    assert heard(first) == "True"
    assert not lock.acquire()
    assert lock.holder() == first.pid
    assert heard(act("node", tmp_path)) == "False"


def test_a_killed_node_leaves_no_lock(tmp_path: Path, act: Actors, heard: Heard) -> None:
    """The lock is free as soon as its process is killed."""
    first, lock = act("node", tmp_path), NodeLock(tmp_path)
    assert heard(first) == "True"
    first.kill()
    first.wait(PATIENCE_S)
    assert lock.holder() is None
    assert lock.acquire(blocking=True)
    lock.release()


def test_one_node_in_a_process(tmp_path: Path, act: Actors, heard: Heard) -> None:
    """A second NodeLock of the process that holds it does not get it, and asking for the holder does not lose it."""
    first, second = NodeLock(tmp_path), NodeLock(tmp_path)
    assert first.holder() is None
    assert first.acquire()
    assert not second.acquire()
    assert not first.acquire()
    assert second.holder() == os.getpid()
    second.release()
    assert heard(act("node", tmp_path)) == "False"
    first.release()
    assert first.holder() is None
    assert second.acquire()
    second.release()


def test_bytes_are_separate(tmp_path: Path, act: Actors, heard: Heard) -> None:
    """Each byte of a lock file is a lock of its own, and shared holders keep a sole one out."""
    file = LockFile(tmp_path / "node.lock")
    assert heard(act("node", tmp_path)) == "True"
    assert not file.try_lock(0)
    assert not file.try_lock(0, shared=True)
    assert file.try_lock(1)
    assert file.holder(1) is None  # what this process holds is not in its own way
    file.unlock(1)
    file.close()


def test_no_lock_behind_a_link(tmp_path: Path) -> None:
    """A lock file that is a symbolic link is refused by name."""
    (tmp_path / "locks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreRefused, match="locks"):
        LockFile(tmp_path / "locks")
