"""What every store does: run for the one in memory and for the one that the processes of a host share."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from clustersession.errors import Corrupt, StoreFull
from clustersession.ports import KEEP, Change, Rule, Store
from clustersession.store import LmdbStore, MemoryStore
from clustersession.store.rows import STEP_S

KEY = bytes.fromhex("00112233445566778899aabbccddeeff")
FULL_MIB = 16
ROOMY_MIB = 64


class Clock:
    """A host clock that stands until a test moves it."""

    def __init__(self) -> None:
        self.time = 10_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    yield from opened(request.param, tmp_path, clock, FULL_MIB)


@pytest.fixture(params=["memory", "lmdb"])
def roomy(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    """One that has room for transactions of several changes."""
    yield from opened(request.param, tmp_path, clock, ROOMY_MIB)


def opened(kind: str, directory: Path, clock: Clock, mib: int) -> Iterator[Store]:
    made: Store
    if kind == "memory":
        made = MemoryStore(bytes_max=mib * 2**20, now=clock)
    else:
        made = LmdbStore(directory / "base" / "place", cluster="c", node="n", now=clock, bytes_max=mib * 2**20)
    yield made
    made.close()


def key(number: int) -> bytes:
    """Different keys, spread over the sixteenths."""
    return bytes([number % 16 << 4 | number % 7]) + number.to_bytes(15)


def put(store: Store, at: bytes, data: bytes = b"data", due: float = 99_999.0, evict: tuple[int, float] | None = None) -> None:
    store.change(at, lambda _: Change(None, data, due, evict))


def test_absent(store: Store) -> None:
    """A key that nobody wrote reads as None, and so does one that begins or ends like another."""
    put(store, KEY)
    assert store.read(key(1)) is None
    assert store.read(KEY[:-1]) is None
    assert store.read(KEY + b"\x00") is None


def test_written_is_read(store: Store) -> None:
    """What a rule wants stored is what the next reader and the next rule see, byte for byte."""
    before = None
    for data in (b"", b"\x00" * 3, bytes(range(256)) * 300):
        assert store.change(KEY, lambda old, data=data: Change(old, data, 1.0)) == before  # type: ignore[misc]
        assert store.read(KEY) == data
        before = data


def test_result_is_handed_back(store: Store) -> None:
    """`change` returns the rule's result, whatever it did."""
    result = object()
    assert store.change(KEY, lambda _: Change(result)) is result
    assert store.change(KEY, lambda _: Change(result, b"x")) is result
    assert store.change(KEY, lambda _: Change(result, None)) is result


def test_keep_changes_nothing(store: Store) -> None:
    """KEEP leaves data, due time and order of eviction as they are."""
    put(store, KEY, b"kept", due=50.0)
    store.change(KEY, lambda _: Change(None, KEEP, due=1e6))
    assert store.read(KEY) == b"kept"
    assert store.due(50.0 + STEP_S, 10) == [KEY]


def test_keep_creates_nothing(store: Store) -> None:
    """KEEP on an absent key stores nothing."""
    store.change(KEY, lambda _: Change(None))
    assert (store.read(KEY), store.stats().entries, store.keys(None, 10)) == (None, 0, [])


def test_deleted_is_gone(store: Store) -> None:
    """None deletes the data with its place in every index; deleting what is not there is nothing."""
    put(store, KEY, due=1.0, evict=(0, 0.0))
    for _ in range(2):
        store.change(KEY, lambda _: Change(None, None))
        assert store.read(KEY) is None
        assert (store.keys(None, 10), store.due(1e6, 10), store.stats().entries) == ([], [], 0)


def test_rule_that_raises_changes_nothing(store: Store) -> None:
    """An error of the rule reaches the caller, the stored data is as before, and the store goes on working."""
    put(store, KEY, b"before")

    def fail(_: bytes | None) -> Change:
        raise KeyError("rule")

    with pytest.raises(KeyError, match="rule"):
        store.change(KEY, fail)
    assert store.read(KEY) == b"before"
    put(store, KEY, b"after")
    assert store.read(KEY) == b"after"


@pytest.mark.parametrize("wrong", [b"", b"short", KEY + b"x"])
def test_only_whole_keys_are_written(store: Store, wrong: bytes) -> None:
    """A key of another length never makes an entry."""
    with pytest.raises(ValueError, match="16 bytes"):
        put(store, wrong)
    assert store.stats().entries == 0


def test_due_shows_what_has_passed(store: Store) -> None:
    """A key is shown once its due time has passed: never early, at most a step late, until it is changed."""
    for number, due in enumerate((100.0, 160.0, 161.0)):
        put(store, key(number), due=due)
    assert store.due(99.9, 10) == []
    assert set(store.due(160.0, 10)) <= {key(0), key(1)}
    assert store.due(100.0 + STEP_S, 10) == [key(0)] == store.due(100.0 + STEP_S, 10)
    assert set(store.due(161.0 + STEP_S, 10)) == {key(0), key(1), key(2)}


def test_due_moves_with_the_data(store: Store) -> None:
    """New data comes with a new due time; the old one no longer counts."""
    put(store, KEY, due=100.0)
    put(store, KEY, due=1000.0)
    assert store.due(500.0, 10) == []
    put(store, KEY, due=100.0)
    assert store.due(500.0, 10) == [KEY]


def test_never_due(store: Store) -> None:
    """An infinite due time never comes, one before the start of the clock has come."""
    put(store, key(0), due=float("inf"))
    put(store, key(1), due=-5.0)
    assert store.due(1e12, 10) == [key(1)]


def test_due_is_limited(store: Store) -> None:
    """`due` gives as many keys as there are, up to the limit, wherever they are."""
    one_sixteenth = [bytes([0x30]) + number.to_bytes(15) for number in range(40)]
    for at in one_sixteenth:
        put(store, at, due=1.0)
    assert len(store.due(100.0, 0)) == 0
    assert len(store.due(100.0, 7)) == 7
    assert sorted(store.due(100.0, 40)) == one_sixteenth == sorted(store.due(100.0, 1000))


def test_keys_in_order_and_in_steps(store: Store) -> None:
    """`keys` walks over all of them in order, a step at a time, from any key that is there or not."""
    expected = sorted(key(number) for number in range(50))
    for at in reversed(expected):
        put(store, at)
    walked: list[bytes] = []
    while step := store.keys(walked[-1] if walked else None, 7):
        assert len(step) <= 7
        walked += step
    assert walked == expected
    assert store.keys(b"\xff" * 16, 10) == []
    assert store.keys(expected[10][:-1] + b"\xff", 1) == [expected[11]] or expected[11][:-1] == expected[10][:-1]
    assert store.keys(None, 0) == []


def test_hints(store: Store, clock: Clock) -> None:
    """A hint is for one owner and one key, is dated once, and goes when it is taken back."""
    store.change(KEY, lambda _: Change(None, b"x", hint=("b", "c")))
    clock.time += 5
    store.change(KEY, lambda _: Change(None, hint=("b",)))
    assert store.hints("b", 10) == [(KEY, 10_000.0)]
    assert store.hinted("b", KEY)
    assert store.hinted("c", KEY)
    assert not store.hinted("a", KEY)
    assert not store.hinted("b", key(1))
    store.change(KEY, lambda _: Change(None, unhint=("b", "nobody")))
    assert not store.hinted("b", KEY)
    assert (store.hints("b", 10), store.hint_count("b"), store.hint_count("c")) == ([], 0, 1)


def test_hints_of_many_keys(store: Store) -> None:
    """Hints are counted and listed by owner, up to the limit, whatever the first byte of their keys."""
    numbers = range(100)
    for number in numbers:
        store.change(key(number), lambda _, number=number: Change(None, hint=("b",) if number % 4 else ("b", "c")))  # type: ignore[misc]
    assert (store.hint_count("b"), store.hint_count("c"), store.stats().hints) == (100, 25, 125)
    assert len(store.hints("b", 30)) == 30
    assert len(store.hints("b", 0)) == 0
    assert {at for at, _ in store.hints("b", 1000)} == {key(number) for number in numbers}
    assert len(store.hints("c", 25)) == 25


def test_hint_without_data(store: Store) -> None:
    """A hint may stand for a key that this store holds nothing of."""
    store.change(KEY, lambda _: Change(None, hint=("b",)))
    assert store.hinted("b", KEY)
    assert (store.read(KEY), store.stats().entries) == (None, 0)


def test_hint_and_unhint_at_once(store: Store) -> None:
    """An owner that is both hinted and unhinted is to be told."""
    store.change(KEY, lambda _: Change(None, hint=("b",)))
    store.change(KEY, lambda _: Change(None, hint=("b",), unhint=("b",)))
    assert store.hinted("b", KEY)
    assert store.hint_count("b") == 1


def test_hints_go_with_the_data(store: Store) -> None:
    """Those of a key that is deleted, whoever they are for; not those of others, nor one that is left just then."""
    near = KEY[:-1] + bytes([KEY[-1] ^ 1])
    for at in (KEY, near):
        store.change(at, lambda _: Change(None, b"x", hint=("b", "c", "")))
    store.change(KEY, lambda _: Change(None, None, hint=("c",), unhint=("c",)))
    assert [store.hinted(owner, KEY) for owner in ("b", "c", "")] == [False, True, False]
    assert [store.hint_count(owner) for owner in ("b", "c", "")] == [1, 2, 1]
    assert store.change_each([(KEY, lambda _: Change(1, None)), (near, lambda _: Change(2, None))]) == [1, 2]
    assert (store.stats().hints, store.stats().entries) == (0, 0)


def test_old_hints_of_strangers_can_be_dropped(store: Store, clock: Clock) -> None:
    """Those left before a time for owners that are not known, some at a time; what they are about stays."""
    numbers = range(40)
    for number in numbers:
        store.change(key(number), lambda _: Change(None, b"x", hint=("b", "gone", "")))
    clock.time += 100
    store.change(key(50), lambda _: Change(None, b"x", hint=("gone",)))
    assert store.drop_hints(("b", ""), 10_000.0, 100) == 0
    pieces: list[int] = []
    while not pieces or pieces[-1]:
        pieces.append(store.drop_hints(("b", ""), 10_001.0, 16))
        assert sum(pieces) <= len(numbers)
    assert (sum(pieces), max(pieces) <= 16) == (40, True)
    assert store.hints("gone", 100) == [(key(50), 10_100.0)]
    assert (store.hint_count("b"), store.hint_count(""), store.stats().entries) == (40, 40, 41)
    assert store.drop_hints((), 20_000.0, 1000) == 81
    assert store.drop_hints((), 20_000.0, 0) == store.stats().hints == 0


def test_board(store: Store) -> None:
    """The board holds values by name, apart from the entries."""
    assert store.board("members") is None
    store.set_board("members", b"table")
    store.set_board("", b"nameless")
    assert (store.board("members"), store.board(""), store.board("member")) == (b"table", b"nameless", None)
    assert store.stats().entries == 0
    store.set_board("members", None)
    store.set_board("members", None)
    assert store.board("members") is None


def test_boards_by_prefix(store: Store) -> None:
    """Small values are found by how their names begin, and only those."""
    for name in ("bar", "bar 1", "bar 2", "baz", "ba"):
        store.set_board(name, name.encode())
    store.set_board("bar 2", None)
    assert store.boards("bar") == {"bar": b"bar", "bar 1": b"bar 1"}
    assert store.boards("bar 1") == {"bar 1": b"bar 1"}
    assert store.boards("x") == {}


def test_groups(store: Store) -> None:
    """A key is found by the group it was last written with, until it is deleted or written with another one."""
    one, other = b"one-----", b"other---"
    for number in range(20):
        store.change(key(number), lambda _: Change(None, b"data", 99_999.0, group=one))
    store.change(key(3), lambda _: Change(None, b"data", 99_999.0, group=other))
    store.change(key(4), lambda _: Change(None, None))
    store.change(key(5), lambda _: Change(None, b"more data", 99_999.0))
    store.change(key(6), lambda _: Change(None, KEEP))
    assert sorted(store.grouped(one)) == sorted(key(number) for number in range(20) if number not in (3, 4, 5))
    assert store.grouped(other) == [key(3)]
    assert store.grouped(b"nothing-") == []


def test_settled_groups_wait_for_changes_under_way(store: Store) -> None:
    """What a change that has begun is about to put into a group shows in the settled list."""
    begun, listing = threading.Event(), threading.Event()
    found: list[bytes] = []

    def rule(_: bytes | None) -> Change:
        begun.set()
        assert listing.wait(10)
        return Change(None, b"data", 99_999.0, group=b"group---")

    def look() -> None:
        listing.set()
        found.extend(store.grouped(b"group---", settled=True))

    writer = threading.Thread(target=store.change, args=(KEY, rule))
    writer.start()
    assert begun.wait(10)
    looking = threading.Thread(target=look)
    looking.start()
    looking.join()
    writer.join()
    assert found == [KEY]


@pytest.mark.parametrize("wrong", [b"short", bytes(8), b"too long for it"])
def test_only_whole_groups(store: Store, wrong: bytes) -> None:
    """A group of another length, or of zeros only, is refused and nothing is written."""
    with pytest.raises(ValueError, match="a group has 8 bytes"):
        store.change(KEY, lambda _: Change(None, b"data", 1.0, group=wrong))
    assert store.read(KEY) is None


def test_counts_add_up(store: Store) -> None:
    """Each process adds its own; they are no entries and no board values."""
    assert store.counts() == {}
    store.add_counts({"late_write": 2, "session_lost": 1})
    store.set_board("late_write", b"table")
    store.add_counts({"late_write": 3, "störung": 1})
    assert store.counts() == {"late_write": 5, "session_lost": 1, "störung": 1}
    assert (store.stats().entries, store.board("session_lost")) == (0, None)
    store.wipe()
    assert store.counts() == {}


def test_stats(store: Store) -> None:
    """Entries are counted, bytes grow with them and stay under their maximum."""
    empty = store.stats()
    for number in range(100):
        put(store, key(number), b"x" * 500)
        put(store, key(number), b"y" * 500)
    full = store.stats()
    assert (empty.entries, full.entries) == (0, 100)
    assert empty.bytes_used + 100 * 500 <= full.bytes_used <= full.bytes_max <= FULL_MIB * 2**20


def test_born_and_wiped(store: Store, clock: Clock) -> None:
    """A store is born when it is made, and again when it is wiped: then nothing is left in it."""
    assert store.born == 10_000.0
    clock.time += 60
    for number in range(40):
        store.change(key(number), lambda _: Change(None, b"x", 1.0, (0, 0.0), hint=("b",)))
    store.set_board("members", b"table")
    store.wipe()
    assert store.born == 10_060.0
    assert (store.keys(None, 100), store.due(1e9, 100), store.hints("b", 100), store.board("members")) == ([], [], [], None)
    assert store.stats()[:1] + store.stats()[3:] == (0, 0)
    put(store, KEY)
    assert store.keys(None, 10) == [KEY]


def test_nothing_is_down(store: Store) -> None:
    """Without a stuck writer no sixteenth is down."""
    assert store.down_shards() == {}


# --- several changes -----------------------------------------------------------------------------------------------------


def test_several_changes_are_as_one_after_the_other(roomy: Store) -> None:
    """Results in the order of the rules, wherever the keys are; each rule sees what the ones before made of its key."""

    def add(data: bytes) -> Rule:
        return lambda old: Change(old, (old or b"") + data, 50.0, hint=("b",))

    numbers = [number % 40 for number in range(100)]
    results = roomy.change_each([(key(number), add(b"%d " % turn)) for turn, number in enumerate(numbers)])
    assert results[:40] == [None] * 40
    assert results[40:80] == [b"%d " % turn for turn in range(40)]
    assert results[80:] == [b"%d %d " % (turn, turn + 40) for turn in range(20)]
    assert [roomy.read(key(number)) for number in (0, 39)] == [b"0 40 80 ", b"39 79 "]
    assert (roomy.stats().entries, roomy.hint_count("b"), len(roomy.due(100.0, 1000))) == (40, 40, 40)
    assert roomy.change_each([]) == []


def test_several_changes_in_one_place_delete_and_take_back(roomy: Store) -> None:
    """Counts and indexes are right also where rules of one sixteenth write, keep and delete in turn."""
    near = [bytes([0x50]) + number.to_bytes(15) for number in range(200)]
    roomy.change_each([(at, lambda _: Change(None, b"x" * 900, 1.0, (0, 5.0), hint=("b", "c"))) for at in near])
    made = roomy.stats()
    changes = [Change("gone", None, unhint=("b",)), Change("kept", KEEP, unhint=("c",)), Change("new", b"y", 1e6)]
    results = roomy.change_each([(at, lambda _, n=n: changes[n % 3]) for n, at in enumerate(near)])  # type: ignore[misc]
    assert results == [changes[n % 3].result for n in range(200)]
    assert (made.entries, made.hints, roomy.stats().entries) == (200, 400, 133)
    assert (roomy.hint_count("b"), roomy.hint_count("c")) == (133, 66)
    assert roomy.keys(None, 1000) == [at for n, at in enumerate(near) if n % 3]
    assert sorted(roomy.due(100.0, 1000)) == [at for n, at in enumerate(near) if n % 3 == 1]


def test_an_error_among_several_changes_stands_in_its_place(roomy: Store) -> None:
    """A rule that refuses changes nothing of its own and nothing of others."""
    near = [bytes([0x50]) + number.to_bytes(15) for number in range(5)]
    put(roomy, near[2], b"before")
    broken = Corrupt("not a record")

    def fail(_: bytes | None) -> Change:
        raise broken

    write: Rule = lambda _: Change("done", b"after", 1.0)  # noqa: E731
    results = roomy.change_each([(at, fail if at == near[2] else write) for at in near])
    assert results == ["done", "done", broken, "done", "done"]
    assert [roomy.read(at) for at in near] == [b"after", b"after", b"before", b"after", b"after"]


def test_only_whole_keys_are_among_several_changes(store: Store) -> None:
    """As in a single one."""
    with pytest.raises(ValueError, match="16 bytes"):
        store.change_each([(b"short", lambda _: Change(None, b"x"))])
    assert store.stats().entries == 0


def test_threads_count_right(roomy: Store) -> None:
    """Rules of several threads on one key run one after the other: no increment is lost."""
    ready = threading.Barrier(4)

    def add(old: bytes | None) -> Change:
        return Change(None, str(int(old or b"0") + 1).encode(), 1.0)

    def work() -> None:
        ready.wait(10)
        for _ in range(100):
            roomy.change(KEY, add)
            roomy.change_each([(KEY, add)])
            roomy.change_each([(KEY, add), (KEY[:-1] + b"x", add), (KEY, add)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (roomy.read(KEY), roomy.read(KEY[:-1] + b"x")) == (b"1600", b"400")


# --- full ---------------------------------------------------------------------------------------------------------------


def filled(store: Store, evict: tuple[int, float] | None, first: int = 0, data: bytes = b"x" * 1500) -> int:
    """Puts entries until the store is full or begins to evict; how many."""
    for number in range(first, 100_000):
        try:
            put(store, key(number), data, evict=evict)
        except StoreFull:
            return number - first
        if store.stats().entries <= number - first:
            return number - first
    raise AssertionError("the store takes everything")


def test_full_refuses_and_keeps(store: Store) -> None:
    """A full store of what may never go refuses more with StoreFull; all it held is whole and can be rewritten or ended."""
    count = filled(store, evict=None)
    assert count * 1500 > 0.3 * store.stats().bytes_max
    with pytest.raises(StoreFull, match="MAX_BYTES"):
        put(store, key(count), b"x" * 60_000)
    assert all(store.read(key(number)) == b"x" * 1500 for number in range(count))
    for number in range(count):
        put(store, key(number), b"y" * 1500)
    for number in range(count):
        put(store, key(number), b"tombstone")
        assert store.read(key(number)) == b"tombstone"
    put(store, key(count), b"fits again")


def test_full_refuses_new_anonymous_ones(store: Store) -> None:
    """When nothing may go, what could be evicted itself is refused."""
    count = filled(store, evict=None)
    with pytest.raises(StoreFull):
        put(store, key(count + 50_000), b"x" * 60_000, evict=(1, 1e9))


def test_several_changes_in_a_full_store(roomy: Store) -> None:
    """What has room is done, what has none is refused, each by itself; and what is there can be rewritten and ended."""

    def written(numbers: Sequence[int], data: bytes) -> list[bool]:
        """Which of them were, the others having been refused."""
        results = roomy.change_each([(key(number), lambda _: Change(True, data)) for number in numbers])
        assert all(result is True or isinstance(result, StoreFull) for result in results)
        return [result is True for result in results]

    held: list[int] = []
    for first in range(0, 100_000, 1000):
        taken = written(range(first, first + 1000), b"x" * 1500)
        held += [first + place for place, done in enumerate(taken) if done]
        if not any(taken):
            break
    assert not any(taken)
    assert roomy.stats().entries == len(held)
    assert len(held) * 1500 > 0.3 * roomy.stats().bytes_max
    for data in (b"y" * 1500, b"z" * 1500, b"tombstone", b"TOMBSTONE"):
        assert all(written(held, data))
        assert all(roomy.read(key(number)) == data for number in held)
    assert all(written(range(100_000, 100_100), b"fits again"))
    assert roomy.stats().bytes_used <= roomy.stats().bytes_max


def test_several_new_ones_evict_as_single_ones_do(store: Store) -> None:
    """A flood in numbers: logged-in ones stay, the size is held."""
    store.change_each([(key(number), lambda _: Change(None, b"u" * 1500)) for number in range(300)])
    for first in range(300, 12_000, 100):
        batch = [(key(n), lambda _, n=n: Change("in", b"x" * 1500, 0.0, (0, 100.0 * n))) for n in range(first, first + 100)]
        assert store.change_each(batch) == ["in"] * 100
    stats = store.stats()
    assert stats.bytes_used <= stats.bytes_max
    assert all(store.read(key(number)) == b"u" * 1500 for number in range(300))
    assert 0.25 * stats.bytes_max / 1500 < stats.entries < 12_000


def test_flood_of_anonymous_ones(store: Store) -> None:
    """However many anonymous sessions come, the logged-in ones stay and the size is held."""
    for number in range(300):
        put(store, key(number), b"u" * 1500)
    for number in range(300, 7_000):
        put(store, key(number), b"x" * 1500, evict=(0, 100.0 * number))
    stats = store.stats()
    assert stats.bytes_used <= stats.bytes_max
    assert all(store.read(key(number)) == b"u" * 1500 for number in range(300))
    assert stats.entries * 1500 > 0.25 * stats.bytes_max
    assert store.read(key(6_999)) is not None


def test_lowest_class_goes_first_then_oldest(store: Store) -> None:
    """Eviction takes the lowest class, and in it the oldest, of those in the same sixteenth at least."""
    one_sixteenth = [bytes([0x40]) + number.to_bytes(15) for number in range(40_000)]
    for number, at in enumerate(one_sixteenth[:60]):
        put(store, at, b"x" * 1500, evict=(1 - number % 2, 10_000.0 - 100.0 * number))
    for at in one_sixteenth[60:]:
        put(store, at, b"x" * 1500)
        gone = {early for early in range(60) if store.read(one_sixteenth[early]) is None}
        if len(gone) >= 20:
            break
    order = [*range(59, 0, -2), *range(58, -1, -2)]  # odd ones are class 0, and the later ones are older
    assert gone == set(order[: len(gone)])
    assert len(gone) >= 20


def test_evicted_leave_no_trace(store: Store) -> None:
    """What is evicted goes with its hints and its place in the indexes."""
    at = bytes([0x40]) + bytes(15)
    store.change(at, lambda _: Change(None, b"x" * 1500, 1.0, (0, 0.0), hint=("b", "c")))
    store.change(at[:-1] + b"\x01", lambda _: Change(None, b"x" * 1500, 1.0, hint=("b",)))
    for number in range(1000, 40_000):
        put(store, bytes([0x40]) + number.to_bytes(15), b"x" * 1500)
        if store.read(at) is None:
            break
    assert store.read(at) is None
    assert (store.hint_count("b"), store.hint_count("c"), store.hinted("b", at)) == (1, 0, False)
    assert store.due(100.0, 10) == [at[:-1] + b"\x01"]
    assert at not in store.keys(None, 10_000)


def test_growing_evicts_others_not_itself(store: Store) -> None:
    """An evictable entry that grows in a full store makes others go, though it would be the first."""
    for number in range(7_000):
        put(store, key(number), b"x" * 1500, evict=(0, 100.0 * number))
    oldest = next(number for number in range(7_000) if store.read(key(number)) is not None)
    change = Change(None, b"y" * 20_000, 99_999.0, (0, 100.0 * oldest))
    seen: list[bytes | None] = []

    def grow(old: bytes | None) -> Change:
        seen.append(old)
        return change

    store.change(key(oldest), grow)
    assert set(seen) == {b"x" * 1500}
    assert store.read(key(oldest)) == b"y" * 20_000
