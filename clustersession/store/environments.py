"""The LMDB environments of a place, one by one: made, opened and removed. Nothing here is shared between threads."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

import lmdb

from ..errors import StoreRefused
from .sizing import LOCK_BYTES, SHARDS, Sizes

BOARD: Final = SHARDS  # the number of the board's environment
NUMBERS: Final = range(SHARDS + 1)
DATA_NAME: Final = "data.mdb"
LOCK_NAME: Final = "lock.mdb"
_READERS_MAX: Final = LOCK_BYTES // 64 - 8  # a slot has 64 bytes


def directory_of(place: Path, number: int) -> Path:
    return place / ("host" if number == BOARD else f"{number:x}")


def data_of(place: Path, number: int) -> Path:
    return directory_of(place, number) / DATA_NAME


def allocate_locks(place: Path) -> None:
    """Takes all the room of LMDB's lock files at once: every process writes to them by memory mapping, so a page that a
    full file system cannot give would end it with SIGBUS. Only while nobody uses the files. Raises `OSError`."""
    for number in NUMBERS:
        directory = directory_of(place, number)
        directory.mkdir(mode=0o700, exist_ok=True)
        file = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(file, 0, LOCK_BYTES)
        finally:
            os.close(file)


def opened(place: Path, number: int, sizes: Sizes) -> lmdb.Environment:
    """Raises `StoreRefused` for files that are not LMDB's or not whole."""
    directory = directory_of(place, number)
    try:
        environment = lmdb.Environment(
            str(directory),
            map_size=sizes.board if number == BOARD else sizes.shard,
            mode=0o600,
            sync=False,  # the files need to outlive processes, not the kernel
            metasync=False,
            writemap=False,  # with it a full file system is a SIGBUS
            readahead=False,
            max_readers=_READERS_MAX,
            max_spare_txns=1,  # keeps its reader slot, so that a read takes no lock
        )
    except (OSError, lmdb.Error) as error:
        remedy = "Make room there" if isinstance(error, lmdb.DiskError) else _start_anew(place)
        raise StoreRefused(f"{directory}: {error}. {remedy}.") from error
    with contextlib.ExitStack() as on_error:
        on_error.callback(environment.close)
        data = data_of(place, number)
        # a file that was cut off would end a reader of its missing pages with SIGBUS
        if data.stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]:
            raise StoreRefused(f"{data} is cut off. {_start_anew(place)}.")
        environment.reader_check()  # frees the slots of processes that were killed
        on_error.pop_all()
    return environment


def _start_anew(place: Path) -> str:
    return f"Stop all processes of this node and remove {place}; its sessions are on the other hosts too"


def remove(place: Path, *names: str) -> None:
    """Removes LMDB's files of these names. Only while nobody uses them."""
    for number in NUMBERS:
        for name in names:
            (directory_of(place, number) / name).unlink(missing_ok=True)


def used_bytes(place: Path) -> int:
    """Bytes that LMDB's files take in the file system."""
    files = (directory_of(place, number) / name for number in NUMBERS for name in (DATA_NAME, LOCK_NAME))
    return sum(file.stat().st_blocks * 512 for file in files if file.exists())
