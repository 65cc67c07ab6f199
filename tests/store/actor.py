"""Other processes on the same store, for the tests of it: `python -m tests.store.actor ROLE PLACE ...`."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from clustersession import hostclock
from clustersession.errors import StoreRefused
from clustersession.ports import Change
from clustersession.store import LmdbStore, NodeLock

PATIENCE_S = 30.0


def opened(place: Path, *, lock_s: float = 1.0, bytes_max: int | None = 64 * 2**20) -> LmdbStore:
    """The store as every process of these tests opens it."""
    return LmdbStore(place, cluster="c", node="n", now=hostclock.now, bytes_max=bytes_max, lock_s=lock_s)


def say(word: str) -> None:
    os.write(1, word.encode() + b"\n")


def sealed(key: bytes, number: int, size: int) -> bytes:
    """Data that shows whether it is whole and of this key."""
    body = key + number.to_bytes(8) + bytes([number % 256]) * size
    return zlib.crc32(body).to_bytes(4) + body


def number_in(key: bytes, data: bytes) -> int:
    """The number in sealed data. Raises `AssertionError` for torn or foreign data."""
    assert zlib.crc32(data[4:]) == int.from_bytes(data[:4])
    assert data[4:20] == key
    return int.from_bytes(data[20:28])


def key_of(number: int) -> bytes:
    return bytes([number * 37 % 256]) + number.to_bytes(15)


def counted(key: bytes, size: int = 20) -> Callable[[bytes | None], Change]:
    """A rule that counts its changes in the data, with all that a change can carry."""

    def rule(old: bytes | None) -> Change:
        number = 0 if old is None else number_in(key, old)
        if number % 50 == 49:
            return Change(number, None, unhint=("b",))
        data = sealed(key, number + 1, size)
        return Change(number, data, 100.0 * number, (number % 3, number) if number % 2 else None, ("b",), ("c",))

    return rule


def nursery(place: Path) -> None:
    """For each line of input, a writer that changes a hundred keys at random until it is killed: says its process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are not waited for
    nursery_pid = os.getpid()
    while sys.stdin.readline():
        if not os.fork():
            _write(place, nursery_pid)
            os._exit(0)


def _write(place: Path, nursery_pid: int) -> None:
    store = opened(place, lock_s=20.0)
    choice = random.Random(os.getpid())
    say(str(os.getpid()))
    while os.getppid() == nursery_pid:
        key = key_of(choice.randrange(100))
        store.change(key, counted(key, choice.choice((20, 600, 3000, 20_000))))


def hold(place: Path, key: str, how: str) -> None:
    """Enters a change of `key`, says so and stops inside it; killed there with `how` kill. Says when it is out again."""
    store = opened(place)

    def rule(_: bytes | None) -> Change:
        say("holding")
        os.kill(os.getpid(), signal.SIGKILL if how == "kill" else signal.SIGSTOP)
        return Change(None, b"held")

    store.change(bytes.fromhex(key), rule)
    say("released")
    sys.stdin.readline()


def count(place: Path, key: str, times: str) -> None:
    """Adds one to the number under `key`, `times` times."""
    store = opened(place, lock_s=20.0)
    for _ in range(int(times)):
        store.change(bytes.fromhex(key), add_one)
    store.close()


def add_one(old: bytes | None) -> Change:
    return Change(None, str(int(old or b"0") + 1).encode(), 1.0)


def fork(place: Path, times: str) -> None:
    """A parent that uses the store forks children that use it too, while two of its threads go on using it.

    Says whether all children ended well, and what is missing of what the threads counted.
    """
    store = opened(place, lock_s=20.0)
    store.set_board("parent", b"here")
    store.change(key_of(0), add_one)
    stop = threading.Event()
    done: dict[bytes, int] = {}

    def work(key: bytes) -> None:
        done[key] = 0
        while not stop.is_set():
            store.change(key, add_one)
            done[key] += 1
            store.keys(None, 5)

    threads = [threading.Thread(target=work, args=(key_of(number),)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    codes = [_forked(store, key_of(0)) for _ in range(int(times))]
    deadline = time.monotonic() + PATIENCE_S
    while min(done.values()) < 50 and time.monotonic() < deadline:
        time.sleep(0.002)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    missing = [count - int(store.read(key) or b"0") for key, count in done.items()]
    say(f"{codes == [0] * int(times)} {min(done.values()) >= 50} {missing}")


def c_fork(place: Path) -> None:
    """A child that C code forked, with Python told only afterwards, as servers written in C do: says what it got."""
    store = opened(place)
    store.change(key_of(1), add_one)
    fork_in_c = ctypes.PyDLL(None).fork
    if not fork_in_c():
        ctypes.pythonapi.PyOS_AfterFork_Child()
        for use in (lambda: store.read(key_of(1)), lambda: store.change(key_of(1), add_one)):
            try:
                use()
            except StoreRefused as error:
                say(str(error))
        os._exit(0)
    os.wait()
    store.change(key_of(1), add_one)
    say(f"{store.read(key_of(1))!r}")


def _forked(store: LmdbStore, key: bytes) -> int:
    child = os.fork()
    if not child:
        code = 1
        try:
            assert store.board("parent") == b"here"
            assert store.read(key) is not None
            store.change(key, add_one)
            grandchild = os.fork()
            if not grandchild:
                store.change(key, add_one)
            elif os.waitpid(grandchild, 0)[1] != 0:
                os._exit(2)
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def greenlets(place: Path, when: str) -> None:
    """Many greenlets on one key, with the patching of gevent before (`early`) or after (`late`) the store is opened."""
    from gevent import joinall, monkey, spawn

    if when == "early":
        monkey.patch_all()
    store = opened(place, lock_s=20.0)
    if when == "late":
        store.change(key_of(1), add_one)
        monkey.patch_all()
    say("ready")
    jobs = [spawn(lambda: [store.change(key_of(1), add_one) for _ in range(50)]) for _ in range(20)]
    joinall(jobs, timeout=PATIENCE_S, raise_error=True)
    say(f"{store.read(key_of(1))!r} {all(job.successful() for job in jobs)}")


def node(place: Path) -> None:
    """Takes the node lock, says whether it got it, and keeps it until its input ends."""
    lock = NodeLock(place)
    say(str(lock.acquire()))
    sys.stdin.readline()


def main(role: str, place: str, *rest: str) -> None:
    roles: dict[str, Callable[..., None]] = {
        "nursery": nursery,
        "hold": hold,
        "count": count,
        "fork": fork,
        "c_fork": c_fork,
        "greenlets": greenlets,
        "node": node,
    }
    roles[role](Path(place), *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
