"""Whose files a store opens: those of this node, this boot and this PID namespace, whole and of a size all agree on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clustersession import hostclock
from clustersession.errors import ConfigError, Corrupt, StoreError, StoreRefused
from clustersession.ports import Change
from clustersession.store import LmdbStore

from .actor import PATIENCE_S, key_of, opened
from .conftest import Actors

Heard = Callable[[subprocess.Popen[str]], str]
MIB = 2**20


def rewritten(place: Path, **changes: Any) -> None:
    """Lets the record beside the files say something else."""
    meta = place / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), **changes}))


def filled(place: Path) -> LmdbStore:
    store = opened(place)
    for number in range(1, 51):
        store.change(key_of(number), lambda _: Change(None, b"kept", 1.0, hint=("b",)))
    store.set_board("members", b"table")
    return store


def test_files_outlive_their_processes(place: Path) -> None:
    """A store opened again holds what it held, board and birth included."""
    store = filled(place)
    born = store.born
    store.close()
    store = opened(place)
    assert (len(store.keys(None, 100)), store.hint_count("b"), store.board("members")) == (50, 50, b"table")
    assert store.born == born <= hostclock.now()
    store.close()


def test_born_survives_a_wipe(place: Path) -> None:
    """The birth that a wipe sets is what other processes and later ones see."""
    times = iter([100.0, 200.0])
    store = LmdbStore(place, cluster="c", node="n", now=lambda: next(times), bytes_max=16 * MIB)
    store.wipe()
    store.close()
    store = opened(place)
    assert store.born == 200.0
    store.close()


def test_other_boot(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files of before a reboot are discarded, with a word in the log, and born anew."""
    filled(place).close()
    rewritten(place, boot="before", born=1e9)
    with caplog.at_level(logging.WARNING, "clustersession.store"):
        store = opened(place)
    assert "discarded" in caplog.text
    assert str(place) in caplog.text
    assert (store.keys(None, 10), store.hint_count("b"), store.board("members")) == ([], 0, None)
    assert store.born <= hostclock.now()
    store.close()


def test_other_boot_in_use(place: Path) -> None:
    """Files of another boot that somebody uses are another host's, and refused."""
    store = opened(place)
    rewritten(place, boot="elsewhere")
    command = [sys.executable, "-m", "tests.store.actor", "count", str(place), key_of(1).hex(), "1"]
    other = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "another host uses these files" in other.stderr
    store.close()


@pytest.mark.parametrize(("cluster", "node"), [("c", "other"), ("other", "n")])
def test_other_node(place: Path, cluster: str, node: str) -> None:
    """Files of another node or cluster are refused, both named, whether they are open in this process or not."""
    store = opened(place)
    for _ in range(2):
        with pytest.raises(StoreRefused) as caught:
            LmdbStore(place, cluster=cluster, node=node, now=hostclock.now)
        for word in (str(place), "'n'", "'c'"):
            assert word in str(caught.value)
        store.close()


def test_other_format(place: Path) -> None:
    """Files of a later format are refused untouched, even if nothing else in their record is known."""
    filled(place).close()
    (place / "meta.json").write_text('{"format": 99, "novel": true}')
    with pytest.raises(StoreRefused, match=r"format 99.*format 2.*remove"):
        opened(place)
    assert (place / "0" / "data.mdb").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": "x"}'])
def test_unreadable_record(place: Path, text: str) -> None:
    """A record that cannot be read is refused with what to do."""
    filled(place).close()
    (place / "meta.json").write_text(text)
    with pytest.raises(StoreRefused, match=r"meta\.json cannot be read.*remove"):
        opened(place)


def test_files_without_a_record(place: Path) -> None:
    """Leftovers of a process that died while it made the files are not taken for data."""
    filled(place).close()
    (place / "meta.json").unlink()
    store = opened(place)
    assert store.keys(None, 10) == []
    store.close()


def test_pid_namespace_of_the_dead(place: Path) -> None:
    """Files of a PID namespace that nobody uses any more, as after a restart of a container, are taken over."""
    filled(place).close()
    rewritten(place, pid_namespace=1)
    store = opened(place)
    assert len(store.keys(None, 100)) == 50
    store.change(key_of(1), lambda _: Change(None, b"new"))
    store.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="LOUD: no PID namespace can be made, not tested")
def test_pid_namespace_of_the_living(place: Path) -> None:
    """A process of another PID namespace is refused while this one uses the files, and takes over afterwards."""
    store = filled(place)
    command = ["unshare", "--pid", "--fork", sys.executable, "-m", "tests.store.actor", "count", str(place), "00" * 16, "1"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert "another PID namespace" in refused.stderr
    assert "StoreRefused" in refused.stderr
    store.close()
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    store = opened(place)
    assert (store.read(bytes(16)), len(store.keys(None, 100))) == (b"1", 51)
    store.close()


def test_cut_off_file(place: Path) -> None:
    """A data file that was cut off is refused instead of ending the process with a bus error."""
    filled(place).close()
    os.truncate(place / "3" / "data.mdb", 8192)
    store = opened(place)
    with pytest.raises(StoreRefused, match=r"3/data\.mdb is cut off.*remove"):
        store.keys(None, 100)
    store.close()


def test_rubbish_file(place: Path) -> None:
    """A data file that is none is refused by name."""
    filled(place).close()
    (place / "3" / "data.mdb").write_bytes(b"rubbish" * 4000)
    store = opened(place)
    with pytest.raises(StoreRefused, match=f"{place}/3"):
        store.read(b"\x30" * 16)
    store.close()


def test_broken_page(place: Path) -> None:
    """A page that LMDB finds broken is Corrupt, never an absent record; the other sixteenths work on."""
    store = filled(place)
    hit = next(key for key in store.keys(None, 100) if key[0] >> 4 == 3)
    store.close()
    data = place / "3" / "data.mdb"
    pages = data.read_bytes()
    data.write_bytes(pages[:8192] + b"\xff" * (len(pages) - 8192))
    store = opened(place)
    for _ in range(2):
        with pytest.raises(Corrupt, match="sixteenth 3"):
            store.read(hit)
    with pytest.raises(Corrupt, match="sixteenth 3"):
        store.change(hit, lambda old: Change(old, b"x"))
    other = next(key for key in store.keys(b"\x40" + bytes(15), 100))
    assert store.read(other) == b"kept"
    store.close()


def test_many_start_at_once(place: Path, act: Actors) -> None:
    """Processes that find no files at the same moment make them once, and all write to them."""
    actors = [act("count", place, key_of(1).hex(), 50) for _ in range(5)]
    assert [actor.wait(PATIENCE_S) for actor in actors] == [0] * 5
    store = opened(place)
    assert store.read(key_of(1)) == b"250"
    store.close()


def test_size_is_settled_while_in_use(place: Path, act: Actors, heard: Heard, caplog: pytest.LogCaptureFixture) -> None:
    """Another size is taken only when nobody else uses the files: processes with different maps would not see all pages."""
    nursery = act("nursery", place)
    print(file=nursery.stdin, flush=True)
    int(heard(nursery))
    with caplog.at_level(logging.WARNING, "clustersession.store"):
        store = opened(place, bytes_max=128 * MIB)
    assert 60 * MIB < store.stats().bytes_max <= 64 * MIB
    assert "until all processes" in caplog.text
    store.close()
    nursery.kill()
    nursery.wait(PATIENCE_S)
    place_in_use = place / "locks"
    assert place_in_use.exists()


def test_size_can_be_changed(place: Path) -> None:
    """After all processes have ended the store may grow or shrink, and keeps its size where none is asked for."""
    filled(place).close()
    for asked, size in ((128, 128), (None, 128), (32, 32)):
        store = opened(place, bytes_max=None if asked is None else asked * MIB)
        assert 0.9 * size * MIB < store.stats().bytes_max <= size * MIB
        assert len(store.keys(None, 100)) == 50
        store.close()


def test_wish_that_does_not_fit(place: Path) -> None:
    """More bytes than the place has is an error of the setting, and leaves nothing open."""
    with pytest.raises(ConfigError, match="CLUSTERSESSION_MAX_BYTES"):
        opened(place, bytes_max=2**60)
    opened(place).close()


def test_closed(place: Path) -> None:
    """A closed store says so; closing it twice is nothing."""
    store = filled(place)
    store.close()
    store.close()
    assert "closed" in repr(store)
    for use in (lambda: store.read(key_of(1)), lambda: store.change(key_of(1), lambda _: Change(None)), lambda: store.board("x")):
        with pytest.raises(StoreError, match="closed"):
            use()
    with pytest.raises(StoreError, match="closed"):
        store.hinted("b", key_of(1))


def test_private_files(place: Path) -> None:
    """Every file and directory of the store is for this user alone."""
    filled(place).close()
    for path in place.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.parent == place


def test_closed_under_a_change(place: Path) -> None:
    """A fork in another thread that closes the environments just before a commit undoes the change, and it is done again."""
    store = opened(place)
    runs: list[bytes | None] = []

    class Closing(tuple[str, ...]):
        __slots__ = ()

        def __iter__(self) -> Iterator[str]:
            if len(runs) == 1:
                store._files.close_environments()
            return iter(())

    def rule(old: bytes | None) -> Change:
        runs.append(old)
        return Change(len(runs), b"stored", hint=Closing())

    assert store.change(key_of(1), rule) == 2
    assert runs == [None, None]
    assert store.read(key_of(1)) == b"stored"
    store.close()
