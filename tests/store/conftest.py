"""A place for a store, other processes on it, and a look at whether its rows agree."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clustersession.store import LmdbStore, rows, shard
from clustersession.store.sizing import SHARDS

from .actor import opened

Actors = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "base" / "c-n"


@pytest.fixture
def store(place: Path) -> Iterator[LmdbStore]:
    made = opened(place)
    yield made
    made.close()


@pytest.fixture
def act() -> Iterator[Actors]:
    """Starts actors; whatever is left of them is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.store.actor", *map(str, arguments)]
        actor = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        started.append(actor)
        return actor

    yield start
    for actor in started:
        actor.kill()
        actor.communicate()


@pytest.fixture
def heard() -> Callable[[subprocess.Popen[str]], str]:
    """The next line an actor says."""

    def hear(actor: subprocess.Popen[str]) -> str:
        assert actor.stdout is not None
        return actor.stdout.readline().strip()

    return hear


@pytest.fixture
def agree() -> Callable[[LmdbStore], int]:
    """Checks that every row belongs to an entry and every entry has its rows; how many entries there are."""

    def check(store: LmdbStore) -> int:
        return sum(_agree(store, number) for number in range(SHARDS))

    return check


def _agree(store: LmdbStore, number: int) -> int:
    with store._files.environment(number).begin() as txn:
        found = dict(txn.cursor().iternext())
        counts = shard.counts(txn)
    data = {row[1:]: value for row, value in found.items() if row.startswith(rows.DATA)}
    for row, index_row in ((rows.DUE, rows.due_row), (rows.EVICT, rows.evict_row)):
        expected = {index_row(value, key) for key, value in data.items()} - {None}
        assert {each for each in found if each.startswith(row)} == expected
    hints = [row[: rows.HINT_PREFIX_SIZE] for row in found if row.startswith(rows.HINT) and len(row) > rows.HINT_PREFIX_SIZE]
    for prefix in {*hints, *(row for row in found if row.startswith(rows.HINT) and len(row) == rows.HINT_PREFIX_SIZE)}:
        assert rows.number_of(found.get(prefix)) == hints.count(prefix) > 0
    assert (counts.entries, counts.hints) == (len(data), len(hints))
    assert all(key[0] >> 4 == number for key in data)
    return len(data)
