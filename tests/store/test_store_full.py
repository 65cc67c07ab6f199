"""A file system without room: a clean error, nothing lost, and work again when there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clustersession.errors import ConfigError, StoreFull
from clustersession.ports import Change
from clustersession.store import LmdbStore

from .actor import key_of, number_in, opened, sealed

MIB = 2**20

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="LOUD: only root can mount a small tmpfs, full disks are not tested here"
)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts a file system in memory of some MiB."""
    point = tmp_path / "small"
    point.mkdir()

    def mount(mib: int) -> Path:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0700", "tmpfs", point], check=True)
        return point

    yield mount
    subprocess.run(["umount", "-l", point], check=False)


def without_room(point: Path, left: int) -> Path:
    """Fills the file system up to `left` bytes; the file that does it."""
    found = os.statvfs(point)
    ballast = point / "ballast"
    ballast.write_bytes(bytes(found.f_bavail * found.f_frsize - left))
    return ballast


def put(store: LmdbStore, number: int, evict: tuple[int, float] | None = None, size: int = 600) -> None:
    key = key_of(number)
    store.change(key, lambda _: Change(None, sealed(key, number, size), 1e9, evict))


def whole(store: LmdbStore) -> list[int]:
    """The numbers of all entries, each of them read and checked."""
    return sorted(number_in(key, data) for key in store.keys(None, 10**6) if (data := store.read(key)) is not None)


def fill_up(store: LmdbStore, first: int) -> int:
    """Puts entries from `first` on until one is refused; that one's number."""
    for number in range(first, 20_000):
        try:
            put(store, number)
        except StoreFull:
            return number
    raise AssertionError("the store takes everything")


@needs_root
def test_full_file_system(small: Callable[[int], Path], agree: Callable[[LmdbStore], int]) -> None:
    """With no room in the file system new sessions are refused with StoreFull and the old ones are whole; then it goes on."""
    point = small(24)
    store = opened(point / "base" / "place", bytes_max=16 * MIB)
    for number in range(500):
        put(store, number)
    ballast = without_room(point, 64 * 1024)
    written = fill_up(store, 500)
    with pytest.raises(StoreFull, match="MAX_BYTES"):
        put(store, written)
    assert os.statvfs(point).f_bavail < 16  # the fault is there: it was not the store's own limit
    assert whole(store) == list(range(written))
    assert agree(store) == written
    store.set_board("x", b"the board goes on in the pages it has")
    ballast.unlink()
    for number in range(written, written + 200):
        put(store, number)
    assert agree(store) == written + 200
    store.close()


@needs_root
def test_anonymous_ones_make_room(small: Callable[[int], Path], agree: Callable[[LmdbStore], int]) -> None:
    """With no room in the file system anonymous sessions go, oldest first, so that logged-in ones still fit."""
    point = small(24)
    store = opened(point / "base" / "place", bytes_max=16 * MIB)
    for number in range(6000):
        put(store, number, evict=(0, 100.0 * number))
    ballast = without_room(point, 0)
    for number in range(6000, 9000):
        put(store, number)
    numbers = whole(store)
    assert set(range(6000, 9000)) <= set(numbers)
    anonymous = [number for number in numbers if number < 6000]
    assert 1000 < len(anonymous) < 5900
    for sixteenth in range(16):
        before = [number for number in range(6000) if key_of(number)[0] >> 4 == sixteenth]
        after = [number for number in anonymous if number in set(before)]
        assert after == before[-len(after) :]
    assert agree(store) == len(numbers)
    ballast.unlink()
    for number in range(9000, 10_000):
        put(store, number)
    assert store.stats().entries == len(numbers) + 1000  # there is room again: nobody had to go
    store.close()


@needs_root
def test_too_small_a_place(small: Callable[[int], Path]) -> None:
    """A place without room for a store is refused when it is opened, with the ways to mend it."""
    with pytest.raises(ConfigError, match=r"CLUSTERSESSION_DATA_DIR.*3\.\d MiB.*shm_size"):
        opened(small(4) / "base" / "place", bytes_max=None)


@needs_root
def test_default_container(small: Callable[[int], Path]) -> None:
    """In the 64 MB that a container has for shared memory the store takes nine tenths, and holds tens of thousands."""
    store = opened(small(64) / "base" / "place", bytes_max=None)
    assert 54 * MIB < store.stats().bytes_max < 58 * MIB
    for number in range(30_000):
        put(store, number, size=500)
    assert store.stats().entries == 30_000
    store.close()


def test_lock_files_are_whole(place: Path, store: LmdbStore) -> None:
    """Lock files, which all processes write to by memory mapping, have all their room from the start, and the data some ahead."""
    store.set_board("x", b"y")
    for lock in place.glob("*/lock.mdb"):
        assert lock.stat().st_blocks * 512 >= 2**16 <= lock.stat().st_size
    assert {data.stat().st_blocks * 512 >= 40 * 4096 for data in place.glob("*/data.mdb")} == {True}
