"""Records: what a patch does, who is newer, limits of age, and bytes that later releases may have written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clustersession.core.counted import COUNTING_ID_BYTES, COUNTING_IDS_KEPT, RETRIED_WITHIN_S
from clustersession.core.record import (
    DELETED_KEYS_KEPT,
    PATCH_IDS_KEPT,
    Digest,
    Ending,
    Item,
    Lifetime,
    Patch,
    Record,
    Stamp,
    accepted,
    decode_record,
    digest,
    encode_record,
    ended,
    expired,
    floor_of,
    is_live,
    live_items,
    merged_items,
    moved_to_clock,
    newer_items,
    patched,
    pointer_to,
    rank,
    same_history,
    touch_interval,
)

from .records import KEY, NOW, item, patch, pending, pointer, record, tombstone

names = st.sampled_from("abcde")
nodes = st.sampled_from(("a", "b", "c"))
stamps = st.builds(Stamp, st.integers(0, 4), st.integers(0, 4), nodes)
times = st.integers(-(10**6), 10**6).map(float)
maybe_times = st.none() | times


def written(name: str, stamp: Stamp) -> Item:
    """One stamp sets one value: equal stamps never carry different ones."""
    return stamp, None if stamp.version == 2 else f"{name} {stamp}".encode()


items_dicts = st.dictionaries(names, stamps).map(lambda found: {name: written(name, stamp) for name, stamp in found.items()})
owners_pairs = st.tuples(nodes, st.none() | nodes)
raws = st.sampled_from([b"\x01", b"\xa3abc", b"\x92\x01\x02"]).map(msgspec.Raw)
records = st.builds(
    Record,
    epoch=st.integers(0, 5),
    version=st.integers(0, 5),
    owners=owners_pairs,
    items=items_dicts,
    accepted=st.booleans(),
    base=st.integers(0, 5),
    pointer=st.booleans(),
    ended=st.none() | st.builds(Ending, st.text(max_size=5), times, maybe_times),
    created=times,
    auth_time=maybe_times,
    last_seen=times,
    lifetime=st.builds(Lifetime, st.none() | st.just(30.0), maybe_times),
    principal=st.none() | st.text(max_size=5),
    patches=st.lists(st.binary(min_size=8, max_size=8), max_size=3).map(tuple),
    frozen_until=maybe_times,
    extra=st.dictionaries(st.text(max_size=5), raws, max_size=2),
)


# --- merge -------------------------------------------------------------------------------------------------------------------


@given(items_dicts, items_dicts, items_dicts)
def test_merging_items_is_commutative_associative_and_idempotent(a: Any, b: Any, c: Any) -> None:
    """Whatever meets in whatever order, and however often, the same values are left."""
    assert merged_items(a, b) == merged_items(b, a)
    assert merged_items(merged_items(a, b), c) == merged_items(a, merged_items(b, c))
    assert merged_items(a, a) == a
    assert merged_items(merged_items(a, b), b) == merged_items(a, b)


@given(items_dicts, items_dicts)
def test_a_merge_keeps_the_highest_stamp_of_every_key(a: Any, b: Any) -> None:
    """No key is lost and none is set back, deleted ones included."""
    merged = merged_items(a, b)
    assert set(merged) == set(a) | set(b)
    for name, (stamp, _) in merged.items():
        assert stamp == max(side[name][0] for side in (a, b) if name in side)
    assert newer_items(a, b) == {name: merged[name] for name in a if name not in b or a[name][0] > b[name][0]}


def test_a_deletion_stays_a_deletion_in_a_merge() -> None:
    """An older value does not revive a deleted key, from either side; a newer one sets it again."""
    old, gone, new = item(b"old", 1, 1), item(None, 1, 2), item(b"new", 2, 1)
    assert merged_items({"x": old}, {"x": gone}) == merged_items({"x": gone}, {"x": old}) == {"x": gone}
    assert merged_items({"x": gone}, {"x": new}) == {"x": new}


def test_the_epoch_of_a_stamp_decides_before_its_version() -> None:
    """A request that waited at the old master cannot beat a write of the new one (finding F7)."""
    assert Stamp(2, 1, "a") > Stamp(1, 99, "z")
    assert Stamp(1, 2, "a") > Stamp(1, 1, "z")
    assert Stamp(1, 1, "b") > Stamp(1, 1, "a")


# --- rank --------------------------------------------------------------------------------------------------------------------


def history(each: Record) -> tuple[Any, ...]:
    return each.accepted, each.epoch if each.accepted else each.base, each.epoch, each.owners


histories = st.builds(Record, st.integers(0, 5), st.just(1), owners_pairs, accepted=st.booleans(), base=st.integers(0, 5))


@given(histories, histories, histories)
def test_rank_is_a_total_order_of_histories(a: Record, b: Record, c: Record) -> None:
    """Any two histories compare, transitively, and equal ranks mean the same change of owners."""
    assert (rank(a) == rank(b)) == (history(a) == history(b))
    assert (rank(a) < rank(b)) + (rank(a) == rank(b)) + (rank(b) < rank(a)) == 1
    if rank(a) <= rank(b) <= rank(c):
        assert rank(a) <= rank(c)


@given(st.integers(1, 5), st.integers(1, 5), owners_pairs, owners_pairs)
def test_a_pending_change_ranks_between_its_base_and_later_accepted_epochs(base: int, far: int, one: Any, two: Any) -> None:
    """Above the epoch it started from, below every accepted one after that, whatever its own number (finding F4)."""
    change = pending(base + far, owners=one, base=base)
    assert rank(record(base, owners=two)) < rank(change) < rank(record(base + 1, owners=two))


# --- patches -----------------------------------------------------------------------------------------------------------------


def test_a_patch_sets_its_keys_with_the_stamp_of_its_write_and_leaves_the_others() -> None:
    """Epoch, number and master of the write go to the keys it set, and to no other."""
    before = record(3, 4, ("b", "a"), items={"x": item(b"1", 2, 9), "y": item(b"2", 3, 4)})
    after = patched(before, patch(7, x=b"new", z=None), 5)
    assert after.version == 5
    stamp = Stamp(3, 5, "b")
    assert after.items == {"x": (stamp, b"new"), "y": item(b"2", 3, 4), "z": (stamp, None)}
    assert live_items(after) == {"x": b"new", "y": b"2"}
    assert before.items["x"] == item(b"1", 2, 9)


def test_a_patch_changes_the_lifetime_only_if_it_says_so() -> None:
    """`permanent` may be switched on by one request; others carry no lifetime."""
    before = record(lifetime=Lifetime(30.0, 99.0))
    assert patched(before, patch(), 2).lifetime == Lifetime(30.0, 99.0)
    assert patched(before, patch(lifetime=Lifetime(60.0)), 2).lifetime == Lifetime(60.0)


def test_the_newest_patch_ids_are_kept() -> None:
    """So that a retry is known again; not more of them than could be under way."""
    now = record()
    for number in range(PATCH_IDS_KEPT + 3):
        now = patched(now, patch(number), now.version + 1)
    assert now.patches == tuple(number.to_bytes(8) for number in range(3, PATCH_IDS_KEPT + 3))


def counting(number: int, *keys: str) -> Patch:
    return Patch(number.to_bytes(COUNTING_ID_BYTES), dict.fromkeys(keys, b"1"))


def test_the_id_of_a_patch_that_counts_is_known_for_as_long_as_it_may_be_sent_again() -> None:
    """Not only the newest, whatever else is written: what sets a value twice does no harm, what counts twice does."""
    now = patched(record(), counting(0, "n", "m"), 2, NOW)
    for number in range(1, COUNTING_IDS_KEPT):
        now = patched(patched(now, counting(number, "n"), now.version + 1, NOW), patch(number, n=b"0"), now.version + 2, NOW)
    first, last = counting(0).id, counting(COUNTING_IDS_KEPT).id
    assert (len(now.patches), len(now.counted["n"]), now.counted["n"][0]) == (PATCH_IDS_KEPT, COUNTING_IDS_KEPT, first)
    now = patched(now, counting(COUNTING_IDS_KEPT, "n"), now.version + 1, NOW)
    assert (now.counted["n"][0], now.counted["n"][-1], now.counted["m"]) == (counting(1).id, last, (first,))


def test_the_ids_of_what_counted_are_forgotten_when_nobody_can_send_it_again() -> None:
    """Nothing was written for longer than a request may go on. So they are with a value that is forgotten."""
    now = patched(patched(record(), counting(0, "n"), 2, NOW), counting(1, "m"), 3, NOW + RETRIED_WITHIN_S)
    assert now.counted.keys() == {"n", "m"}
    assert patched(now, patch(2), 4, now.last_seen + RETRIED_WITHIN_S + 1).counted == {}
    assert patched(now, counting(2, "n"), 4, now.last_seen + RETRIED_WITHIN_S + 1).counted == {"n": (counting(2).id,)}
    for number in range(DELETED_KEYS_KEPT + 1):
        now = patched(now, Patch(counting(number).id, {f"k{number}": None}), now.version + 1, now.last_seen)
    assert "k0" not in now.items
    assert now.counted.keys() == {"n", "m"} | {f"k{number}" for number in range(1, DELETED_KEYS_KEPT + 1)}


def test_only_the_newest_deletions_are_kept() -> None:
    """Deleting keys for ever does not make a session grow for ever; values are never dropped."""
    now = record(items={"kept": item(b"1", 1, 0)})
    for number in range(DELETED_KEYS_KEPT + 2):
        now = patched(now, patch(number, **{f"n{number}": None}), now.version + 1)
    deleted = {name for name, (_, value) in now.items.items() if value is None}
    assert deleted == {f"n{number}" for number in range(2, DELETED_KEYS_KEPT + 2)}
    assert live_items(now) == {"kept": b"1"}


# --- kinds of records --------------------------------------------------------------------------------------------------------


@given(records)
def test_a_tombstone_has_no_values_without_a_grace_and_is_settled(each: Record) -> None:
    """What was stored is gone at once; in a grace it can still be read, and nothing else of it is under way."""
    final = ended(each, Ending("logout", 5.0))
    assert final.items == {}
    graced = ended(each, Ending("rotated", 5.0, 15.0))
    assert graced.items == each.items
    for tomb in (final, graced):
        assert (tomb.accepted, tomb.base, tomb.pointer, tomb.frozen_until) == (True, each.epoch, False, None)
        assert not is_live(tomb)
        assert floor_of(tomb) == floor_of(each)


@given(records)
def test_a_pointer_has_the_owners_but_no_data(each: Record) -> None:
    """Only what must be retained stays in it; a pointer is no live copy."""
    to = pointer_to(each)
    assert (to.epoch, to.owners, to.items, to.patches, to.frozen_until) == (each.epoch, each.owners, {}, (), None)
    assert not is_live(to)
    assert pointer_to(each, each.items).items == each.items


def test_accepting_settles_a_change_at_its_own_epoch() -> None:
    """It then ranks as its epoch; a record that is accepted already is the same object."""
    assert (accepted(pending(5, base=2)).accepted, accepted(pending(5, base=2)).base) == (True, 5)
    settled = record()
    assert accepted(settled) is settled


def test_a_digest_says_nothing_about_versions_without_data() -> None:
    """Tombstones and pointers have none that could differ."""
    assert digest(KEY, pointer(2, version=7)) == Digest(KEY, 2, 0, ("b", "c"), ended=False, base=2)
    assert digest(KEY, tombstone(2)) == Digest(KEY, 2, 0, ("a", "b"), ended=True, base=2)
    assert digest(KEY, record(2, 7)).version == 7


def test_a_digest_places_its_record_in_the_order_of_histories() -> None:
    """Who is shown one can tell whether it ranks above what is held: a change that is pending does not rank as accepted."""
    for each in (record(4), pending(4, base=2), pointer(4, accepted=False, base=2)):
        assert (digest(KEY, each).accepted, digest(KEY, each).base) == (each.accepted, each.base)


def test_equal_digests_mean_equal_contents() -> None:
    """A merge by a backup adds values without a new version: the digest shows it, in whatever order the values came."""
    one, two = item(b"1", 1, 1), item(b"2", 1, 2)
    mine = digest(KEY, record(2, 7, items={"x": one, "y": two}))
    assert digest(KEY, record(2, 7, items={"y": two, "x": one})) == mine
    assert digest(KEY, record(2, 7, items={"x": one})) != mine
    assert digest(KEY, record(2, 7, items={"x": one, "z": two})) != mine
    assert digest(KEY, record(2, 7, items={"x": one, "y": one})) != mine


def test_the_other_owner() -> None:
    """Of two owners each one's other, and none of a single one."""
    assert (record().other("a"), record().other("b"), record(owners=("a", None)).other("a")) == ("b", "a", None)
    assert record().master == "a"


def test_the_same_history_is_epoch_and_owners() -> None:
    """Versions and acceptance differ within one history; equal epochs with other owners are another one."""
    assert same_history(record(2, 1), pending(2, 9))
    assert not same_history(record(2), record(2, owners=("a", "c")))
    assert not same_history(record(2), record(3))


# --- age ---------------------------------------------------------------------------------------------------------------------


def test_a_session_expires_by_its_absolute_limit_and_by_idleness() -> None:
    """The absolute limit to the second, idleness within how coarsely the last use is known; the slack is added to both."""
    each = record(last_seen=100.0, lifetime=Lifetime(50.0, 140.0))
    assert expired(each, 139.9) is None
    assert expired(each, 140.0) == "expired: absolute"
    assert expired(each, 140.0, slack=1.0) is None
    idle = record(last_seen=100.0, lifetime=Lifetime(50.0))
    assert touch_interval(50.0) == 5.0
    assert expired(idle, 154.9) is None
    assert expired(idle, 155.0) == "expired: idle"
    assert expired(idle, 155.0, slack=1.0) is None
    assert expired(record(last_seen=100.0), 1e12) is None


def test_the_last_use_is_known_to_a_minute_at_the_coarsest() -> None:
    """A tenth of the idle time, never more than 60 s, also without an idle limit."""
    assert [touch_interval(idle) for idle in (None, 100.0, 600.0, 1e6)] == [60.0, 10.0, 60.0, 60.0]


# --- bytes -------------------------------------------------------------------------------------------------------------------


@given(records)
def test_a_record_survives_its_bytes(each: Record) -> None:
    """Encoding and decoding gives an equal record, unknown fields of `extra` included."""
    assert decode_record(encode_record(each)) == each


@given(records, st.integers(-(10**6), 10**6).map(float))
@example(tombstone(ended=Ending("rotated", 1.0, 2.0)), 5.0)
def test_moving_to_another_clock_and_back_changes_nothing(each: Record, by: float) -> None:
    """Every time moves by the same amount, so ages stay what they are; nothing else moves."""
    moved = moved_to_clock(each, by)
    assert moved_to_clock(moved, -by) == each
    assert times_of(moved) == [None if time is None else time + by for time in times_of(each)]
    assert untimed(moved) == untimed(each)


def times_of(each: Record) -> list[float | None]:
    ending = each.ended
    more = (None, None) if ending is None else (ending.at, ending.grace_until)
    return [each.created, each.last_seen, each.auth_time, each.frozen_until, each.lifetime.deadline, *more]


def untimed(each: Record) -> list[Any]:
    timed = ("created", "last_seen", "auth_time", "frozen_until", "lifetime", "ended")
    return [each.lifetime.idle, *(getattr(each, name) for name in each.__struct_fields__ if name not in timed)]


@given(records, st.lists(st.integers(-9, 9) | st.text(max_size=3), min_size=1, max_size=3))
def test_fields_that_a_later_release_appends_are_read_over(each: Record, more: list[Any]) -> None:
    """An older host reads the record of a newer one: what it knows it keeps, further elements of the array don't stop it."""
    array = msgspec.msgpack.decode(encode_record(each))
    assert decode_record(msgspec.msgpack.encode([*array, *more])) == each


def test_what_a_later_release_adds_is_handed_on_through_writes() -> None:
    """`extra` is kept byte for byte through decoding, patches, moves and encoding (rolling releases)."""
    later = {"labels": msgspec.Raw(msgspec.msgpack.encode({"a": [1, 2, {"deep": None}]})), "n": msgspec.Raw(b"\x07")}
    stored = decode_record(encode_record(record(extra=later)))
    written_again = decode_record(encode_record(moved_to_clock(patched(stored, patch(), 2), 5.0)))
    assert {name: bytes(raw) for name, raw in written_again.extra.items()} == {n: bytes(raw) for n, raw in later.items()}
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(Patch(b"1" * 8, {}, None, later)), type=Patch)
    assert sent.extra == later
    taken = patched(record(extra={"n": msgspec.Raw(b"\x01"), "kept": msgspec.Raw(b"\x02")}), sent, 2)
    assert taken.extra == {**later, "kept": msgspec.Raw(b"\x02")}


@given(st.binary(max_size=40) | records.map(encode_record).map(lambda data: data[: len(data) // 2]))
def test_what_is_no_record_is_refused_with_one_error(data: bytes) -> None:
    """Cut or foreign bytes raise `DecodeError`, or are a record by chance; nothing else is raised."""
    try:
        assert isinstance(decode_record(data), Record)
    except msgspec.DecodeError:
        return


@pytest.mark.parametrize(
    "array",
    [
        [],
        ["1", 1, ["a", "b"]],
        [1, 1, ["a", 5]],
        [1, 1, ["a"]],
        [1, 1, ["a", "b"], {"x": [[1, 1], b"v"]}],
        [1, 1, ["a", "b"], {"x": [[1, 1, "a"], "text"]}],
        [1, 1, ["a", "b"], {}, 1],
    ],
)
def test_a_record_with_a_field_of_the_wrong_type_is_refused(array: list[Any]) -> None:
    """Nothing is guessed: not a number for a text, not text for bytes, not one owner for two."""
    with pytest.raises(msgspec.DecodeError):
        decode_record(msgspec.msgpack.encode(array))
