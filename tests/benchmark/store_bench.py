"""What the store costs: `python -m tests.benchmark.store_bench`, or its functions from the benchmark of the whole.

Every function makes a store of its own in shared memory (or the temporary directory) and removes it. Times in us.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from clustersession import hostclock
from clustersession.ports import Change
from clustersession.store import LmdbStore

SESSION_BYTES = 600  # a login and a small cart, sealed
_WRITERS = 4


class Timing(NamedTuple):
    """Of single operations, in microseconds; the clock's own 0.05 us are in it."""

    p50: float
    p99: float
    worst: float


class Writers(NamedTuple):
    """Changes by several busy processes at once: their single times, and how many there were in a second."""

    change: Timing
    per_second: float


class Memory(NamedTuple):
    """What `sessions` take: bytes of each in the file system, and in the pages LMDB uses."""

    sessions: int
    file_bytes: float
    page_bytes: float


@contextlib.contextmanager
def temporary_store(bytes_max: int = 2**31) -> Iterator[LmdbStore]:
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        store = _opened(base / "bench", bytes_max)
        yield store
        store.close()
    finally:
        shutil.rmtree(base)


def _opened(place: Path, bytes_max: int = 2**31) -> LmdbStore:
    return LmdbStore(place, cluster="bench", node="bench", now=hostclock.now, bytes_max=bytes_max)


def fill(store: LmdbStore, sessions: int) -> list[bytes]:
    """Fills in sessions as logged-in ones and anonymous ones in turn; their keys."""
    data, now = os.urandom(SESSION_BYTES), hostclock.now()
    filled = [os.urandom(16) for _ in range(sessions)]
    for at, key in enumerate(filled):
        store.change(key, _putting(Change(None, data, now + 1800 + at % 1800, (1, now) if at % 2 else None)))
    return filled


def _putting(change: Change) -> Callable[[bytes | None], Change]:
    return lambda _: change


def timed(operation: Callable[[], object], count: int) -> Timing:
    clock = time.perf_counter_ns
    taken = []
    for _ in range(count):
        begun = clock()
        operation()
        taken.append(clock() - begun)
    return _timing(taken)


def _timing(nanoseconds: list[int]) -> Timing:
    ordered = sorted(nanoseconds)
    return Timing(ordered[len(ordered) // 2] / 1e3, ordered[len(ordered) * 99 // 100] / 1e3, ordered[-1] / 1e3)


def bench_read(sessions: int, count: int = 100_000) -> Timing:
    """Reads of random ones among `sessions`."""
    with temporary_store() as store:
        keys = itertools.cycle(_spread(fill(store, sessions)))
        return timed(lambda: store.read(next(keys)), count)


def bench_board(count: int = 100_000) -> Timing:
    with temporary_store() as store:
        store.set_board("node", os.urandom(400))
        return timed(lambda: store.board("node"), count)


def bench_change(sessions: int, count: int = 20_000) -> Timing:
    """Rewrites of random ones among `sessions`, one process alone."""
    with temporary_store() as store:
        keys = itertools.cycle(_spread(fill(store, sessions)))
        return timed(rewriting(store, keys), count)


def bench_four_writers(seconds: float = 2.0) -> Writers:
    """Four processes that do nothing but change sessions of the same 10,000."""
    with temporary_store() as store:
        (store.place.parent / "keys").write_bytes(b"".join(fill(store, 10_000)))
        command = [sys.executable, "-m", "tests.benchmark.store_bench", "writer", str(store.place), str(seconds)]
        writers = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) for _ in range(_WRITERS)]
        taken = [msgspec.json.decode(writer.communicate()[0], type=list[int]) for writer in writers]
    return Writers(_timing(list(itertools.chain.from_iterable(taken))), sum(map(len, taken)) / seconds)


def bench_memory(sessions: int = 100_000) -> Memory:
    with temporary_store() as store:
        fill(store, sessions)
        in_files = sum(path.stat().st_blocks * 512 for path in store.place.rglob("data.mdb"))
        return Memory(sessions, in_files / sessions, store.stats().bytes_used / sessions)


def bench_sweep(sessions: int = 100_000, batch: int = 512) -> Timing:
    """Finding and deleting all of `sessions` by the due index, in batches: the time of one batch."""
    with temporary_store() as store:
        fill(store, sessions)
        late = hostclock.now() + 7200
        taken: list[int] = []
        while True:
            begun = time.perf_counter_ns()
            due = store.due(late, batch)
            for key in due:
                store.change(key, lambda _: Change(None, None))
            if not due:
                return _timing(taken)
            taken.append(time.perf_counter_ns() - begun)


def rewriting(store: LmdbStore, keys: Iterator[bytes]) -> Callable[[], object]:
    data, due = os.urandom(SESSION_BYTES), hostclock.now() + 1800
    return lambda: store.change(next(keys), lambda _: Change(None, data, due))


def _spread(keys: list[bytes]) -> list[bytes]:
    return sorted(keys, key=lambda key: key[::-1])


def _writer(place: Path, seconds: float) -> None:
    raw = (place.parent / "keys").read_bytes()
    keys = [raw[at : at + 16] for at in range(0, len(raw), 16)]
    store = _opened(place)
    change = rewriting(store, itertools.cycle(keys[os.getpid() % 97 :] + keys[: os.getpid() % 97]))
    clock = time.perf_counter_ns
    taken: list[int] = []
    end = clock() + int(seconds * 1e9)
    while (begun := clock()) < end:
        change()
        taken.append(clock() - begun)
    sys.stdout.buffer.write(msgspec.json.encode(taken))


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["writer"]:
        _writer(Path(arguments[1]), float(arguments[2]))
        return
    for sessions in (1_000, 100_000, 1_000_000)[: 3 if "full" in arguments else 2]:
        print(f"read, {sessions} sessions", bench_read(sessions))
    print("board", bench_board())
    print("change", bench_change(10_000))
    print("change, four writers", bench_four_writers())
    print("memory", bench_memory())
    print("sweep in batches of 512", bench_sweep())


if __name__ == "__main__":
    main(sys.argv[1:])
