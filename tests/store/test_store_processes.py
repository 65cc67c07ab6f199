"""The store among processes that fork, stop and are killed at any moment."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clustersession.errors import ShardDown
from clustersession.ports import Change
from clustersession.store import LmdbStore

from .actor import PATIENCE_S, add_one, count, key_of, number_in, opened
from .conftest import Actors

Heard = Callable[[subprocess.Popen[str]], str]

STUCK = bytes.fromhex("50") + bytes(15)
KILLS = 100


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_processes_see_each_other(store: LmdbStore, place: Path, act: Actors) -> None:
    """What several processes write at once to one key adds up, and every process sees it."""
    actors = [act("count", place, STUCK.hex(), 300) for _ in range(3)]
    for _ in range(300):
        store.change(STUCK, add_one)
    assert [actor.wait(PATIENCE_S) for actor in actors] == [0, 0, 0]
    assert store.read(STUCK) == b"1200"


def test_spawned_process(store: LmdbStore, place: Path) -> None:
    """A process of multiprocessing's spawn method opens the store anew."""
    process = multiprocessing.get_context("spawn").Process(target=count, args=(place, STUCK.hex(), "5"))
    process.start()
    process.join(PATIENCE_S)
    assert process.exitcode == 0
    assert store.read(STUCK) == b"5"


def test_two_stores_in_one_process(store: LmdbStore, place: Path) -> None:
    """Two apps of one process may each open the place; it stays open until the last one closes."""
    second = opened(place)
    second.change(STUCK, add_one)
    assert store.read(STUCK) == b"1"
    second.close()
    store.change(STUCK, add_one)
    assert store.read(STUCK) == b"2"


def test_forked_children(place: Path, act: Actors, heard: Heard) -> None:
    """Children and grandchildren of a process that uses the store use it too; each change of the parent's threads counts once."""
    actor = act("fork", place, 15)
    assert heard(actor) == "True True [0, 0]"
    assert actor.wait(PATIENCE_S) == 0
    store = opened(place)
    assert store.read(key_of(0)) == b"31"
    store.close()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="Python 3.13 itself ends a process that is forked like this")
def test_forked_by_c(place: Path, act: Actors, heard: Heard) -> None:
    """A child that could not be prepared is refused with what to do, and the parent is none the worse."""
    actor = act("c_fork", place)
    assert ["lazy-apps" in heard(actor) for _ in range(2)] == [True, True]
    assert heard(actor) == "b'2'"


@pytest.mark.parametrize("when", ["early", "late"])
def test_greenlets(place: Path, act: Actors, heard: Heard, when: str) -> None:
    """Greenlets don't lock each other out, while another process writes the same key."""
    pytest.importorskip("gevent")
    actor = act("greenlets", place, when)
    assert heard(actor) == "ready"
    rival = act("count", place, key_of(1).hex(), 500)
    said = heard(actor)
    assert rival.wait(PATIENCE_S) == 0
    assert said.endswith(" True")
    store = opened(place)
    assert store.read(key_of(1)) == str(1000 + 500 + (when == "late")).encode()
    store.close()


def test_killed_writers(store: LmdbStore, place: Path, act: Actors, heard: Heard, agree: Callable[[LmdbStore], int]) -> None:
    """Writers killed at random moments leave no torn value, no index out of step, no count wrong and no lock held."""
    choice = random.Random(7)
    nursery = act("nursery", place)
    writers: list[int] = []

    def kill_one() -> None:
        os.kill(writers[0], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{writers[0]}").exists())
        writers.pop(0)

    for kill in range(KILLS):
        while len(writers) < 3:
            print(file=nursery.stdin, flush=True)
            writers.append(int(heard(nursery)))
        time.sleep(choice.uniform(0.0, 0.03))  # the moment of the kill
        kill_one()
        if kill % 10 == 9:
            agree(store)
    while writers:
        kill_one()
    entries = agree(store)
    numbers = [number_in(key, data) for key in store.keys(None, 1000) if (data := store.read(key)) is not None]
    assert entries == len(numbers) >= 50
    assert sum(numbers) >= 500
    for number in range(100):
        store.change(key_of(number), lambda _: Change(None, None, unhint=("b",)))
    assert (agree(store), store.stats().hints) == (0, 0)


def test_killed_inside_a_change(store: LmdbStore, place: Path, act: Actors, heard: Heard) -> None:
    """A writer killed inside its transaction leaves nothing of it, and the next writer gets in at once."""
    store.change(STUCK, lambda _: Change(None, b"before"))
    actor = act("hold", place, STUCK.hex(), "kill")
    assert heard(actor) == "holding"
    assert actor.wait(PATIENCE_S) == -signal.SIGKILL
    assert store.change(STUCK, lambda old: Change(old, b"after")) == b"before"
    assert store.read(STUCK) == b"after"


def test_stopped_writer(store: LmdbStore, place: Path, act: Actors, heard: Heard) -> None:
    """A writer stopped inside its transaction takes its sixteenth down after a second, named by its process; nothing else."""
    store.change(STUCK, lambda _: Change(None, b"before"))
    actor = act("hold", place, STUCK.hex(), "stop")
    assert heard(actor) == "holding"
    until(lambda: "\nState:\tT" in Path(f"/proc/{actor.pid}/status").read_text())
    begun = time.monotonic()
    with pytest.raises(ShardDown, match=f"process {actor.pid}") as caught:
        store.change(STUCK, add_one)
    assert 0.9 < time.monotonic() - begun < 1.2
    assert (caught.value.shard, caught.value.holder_pid) == (5, actor.pid)
    assert store.down_shards() == {5: actor.pid}
    assert (store.lock_holder(5), store.lock_holder(4)) == (actor.pid, None)

    begun = time.monotonic()
    for _ in range(20):  # down: nobody waits for it again
        with pytest.raises(ShardDown):
            store.change(STUCK, add_one)
    assert store.read(STUCK) == b"before"
    assert store.keys(None, 10) == [STUCK]
    assert store.stats().entries == 1
    for number in range(16):
        if number != 5:
            store.change(bytes([number << 4]) + bytes(15), add_one)
    store.set_board("x", b"y")
    assert time.monotonic() - begun < 0.5

    newcomer = opened(place.parent / "other")  # a whole new store beside it is none of its business
    newcomer.close()
    fresh = act("count", place, (b"\x10" + bytes(15)).hex(), 1)  # a process that opens the store only now
    assert fresh.wait(PATIENCE_S) == 0

    actor.send_signal(signal.SIGCONT)
    assert heard(actor) == "released"
    assert store.change(STUCK, lambda old: Change(old, b"after")) == b"held"
    assert store.down_shards() == {}


def test_stopped_thread_of_this_process(place: Path) -> None:
    """A change that does not come out of its own rule is named too: by this process."""
    store = opened(place, lock_s=0.05)

    def inner(_: bytes | None) -> Change:
        with pytest.raises(ShardDown) as caught:
            store.change(STUCK, add_one)
        return Change(caught.value.holder_pid)

    assert store.change(STUCK, inner) == os.getpid()
    assert store.change(STUCK, add_one) is None
    store.close()


def test_hints_are_dropped_beside_one_that_is_stuck(place: Path) -> None:
    """Its own stay until it moves again."""
    store = opened(place, lock_s=0.05)
    for number in range(16):
        store.change(bytes([number << 4]) + bytes(15), lambda _: Change(None, b"x", hint=("gone",)))

    def inner(_: bytes | None) -> Change:
        return Change(store.drop_hints((), 1e12, 100))

    assert (store.change(STUCK, inner), store.hint_count("gone")) == (15, 1)
    assert (store.drop_hints((), 1e12, 100), store.hint_count("gone")) == (1, 0)
    store.close()


def test_busy_is_not_down(store: LmdbStore, place: Path, act: Actors, heard: Heard) -> None:
    """A sixteenth that is busy all the time, but moves, never counts as down."""
    actor = act("count", place, STUCK.hex(), 4000)
    until(lambda: store.read(STUCK) is not None)
    changes = 0
    while actor.poll() is None:
        store.change(STUCK, add_one)
        changes += 1
    assert store.read(STUCK) == str(4000 + changes).encode()
    assert changes > 0
    assert store.down_shards() == {}
