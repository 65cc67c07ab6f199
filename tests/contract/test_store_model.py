"""Any sequence of changes leaves every store as a simple model of it says, indexes and counts included."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from clustersession.ports import KEEP, Change, Store
from clustersession.store import LmdbStore, MemoryStore
from clustersession.store.place import SHARED_MEMORY
from clustersession.store.rows import STEP_S

OWNERS = ("a", "b", "c")
keys = st.integers(0, 11).map(lambda number: bytes([number * 0x17 % 256]) * 16)
datas = st.one_of(st.none(), st.just(KEEP), st.binary(max_size=40), st.integers(0, 9000).map(bytes))
dues = st.one_of(st.floats(-1e3, 1e6), st.just(float("inf")))
evicts = st.one_of(st.none(), st.tuples(st.integers(0, 3), st.floats(0, 1e6)))
groups = st.sampled_from((None, b"g" * 8, b"h" * 8))
owners = st.lists(st.sampled_from(OWNERS), max_size=3, unique=True).map(tuple)


class Machine(RuleBasedStateMachine):
    """Big enough not to evict: what is evicted depends on the store."""

    kind = ""

    @initialize()
    def start(self) -> None:
        self.time = 1000.0
        self.directory = Path(tempfile.mkdtemp(dir=SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None))
        self.store: Store = MemoryStore(now=lambda: self.time) if self.kind == "memory" else self.opened()
        self.data: dict[bytes, tuple[bytes, float]] = {}
        self.group_of: dict[bytes, bytes | None] = {}
        self.hints: dict[str, dict[bytes, float]] = {owner: {} for owner in OWNERS}
        self.board: dict[str, bytes] = {}

    def opened(self) -> Store:
        return LmdbStore(self.directory / "place", cluster="c", node="n", now=lambda: self.time, bytes_max=64 * 2**20)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    @rule(key=keys, data=datas, due=dues, evict=evicts, hint=owners, unhint=owners, group=groups)
    def change(
        self, key: bytes, data: Any, due: float, evict: Any, hint: tuple[str, ...], unhint: tuple[str, ...], group: bytes | None
    ) -> None:
        seen = self.store.change(key, lambda old: Change(old, data, due, evict, hint, unhint, group))
        assert seen == self.data.get(key, (None, 0.0))[0]
        self.changed(key, data, due, evict, hint, unhint, group)

    def changed(
        self, key: bytes, data: Any, due: float, evict: Any, hint: tuple[str, ...], unhint: tuple[str, ...], group: bytes | None
    ) -> None:
        if isinstance(data, bytes):
            self.data[key] = (data, due)
            self.group_of[key] = group
        elif data is None:
            self.data.pop(key, None)
            for hinted in self.hints.values():
                hinted.pop(key, None)
        for owner in unhint:
            self.hints[owner].pop(key, None)
        for owner in hint:
            self.hints[owner].setdefault(key, self.time)

    @rule(group=st.sampled_from((b"g" * 8, b"h" * 8, b"i" * 8)), settled=st.booleans())
    def grouped(self, group: bytes, settled: bool) -> None:
        found = self.store.grouped(group, settled=settled)
        assert sorted(found) == sorted(key for key in self.data if self.group_of[key] == group)

    @rule(changes=st.lists(st.tuples(keys, datas, dues, evicts, owners, owners, groups), max_size=40))
    def change_each(self, changes: list[tuple[bytes, Any, float, Any, tuple[str, ...], tuple[str, ...], bytes | None]]) -> None:
        expected = []
        rules = [(each[0], lambda old, rest=each[1:]: Change(old, *rest)) for each in changes]
        seen = self.store.change_each(rules)
        for each in changes:
            expected.append(self.data.get(each[0], (None, 0.0))[0])
            self.changed(*each)
        assert seen == expected

    @rule(known=owners, ago=st.floats(0, 300))
    def drop_hints(self, known: tuple[str, ...], ago: float) -> None:
        old = {(o, k) for o, hinted in self.hints.items() for k, at in hinted.items() if o not in known and at < self.time - ago}
        assert self.store.drop_hints(known, self.time - ago, 1000) == len(old)
        for owner, key in old:
            del self.hints[owner][key]

    @rule(by=st.floats(0.1, 100))
    def time_passes(self, by: float) -> None:
        self.time += by

    @rule(name=st.sampled_from("xy"), data=st.one_of(st.none(), st.binary(max_size=9)))
    def set_board(self, name: str, data: bytes | None) -> None:
        self.store.set_board(name, data)
        self.board.pop(name, None)
        if data is not None:
            self.board[name] = data

    @rule(late=st.floats(-1e3, 1e6), limit=st.integers(0, 12))
    def due(self, late: float, limit: int) -> None:
        shown = self.store.due(late, limit)
        surely = {key for key, (_, due) in self.data.items() if due + STEP_S <= late and due >= 0}
        perhaps = {key for key, (_, due) in self.data.items() if max(due, 0) <= max(late, 0)}
        assert len(shown) == len(set(shown)) <= limit
        assert set(shown) <= perhaps
        assert surely <= set(shown) or len(shown) == limit

    @rule()
    def reopened(self) -> None:
        if self.kind == "lmdb":
            self.store.close()
            self.store = self.opened()

    @rule()
    def wiped(self) -> None:
        self.store.wipe()
        assert self.store.born == self.time
        self.data, self.hints, self.board = {}, {owner: {} for owner in OWNERS}, {}

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.keys(None, 100) == sorted(self.data)
        for key, (data, _) in self.data.items():
            assert self.store.read(key) == data
        for owner, hinted in self.hints.items():
            assert dict(self.store.hints(owner, 100)) == hinted
            assert self.store.hint_count(owner) == len(hinted)
        stats = self.store.stats()
        assert (stats.entries, stats.hints) == (len(self.data), sum(map(len, self.hints.values())))
        assert {name: self.store.board(name) for name in self.board} == self.board


@pytest.mark.parametrize("store", ["memory", "lmdb"])
def test_as_the_model_says(store: str) -> None:
    """Data, due times, hints, board and counts are those of the model after every step, also after reopening."""
    machine = type(f"{store.title()}Machine", (Machine,), {"kind": store})
    examples = min(settings().max_examples, 1000) // 4
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=30))
