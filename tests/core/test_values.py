"""Session values: round trips of everything a session can hold, and plain words about everything it cannot."""

from __future__ import annotations

import datetime as dt
import enum
import json
import math
import threading
import tracemalloc
from collections import Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import pytest
from django.utils.datastructures import MultiValueDict
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from flask import Flask
from flask.json.tag import TaggedJSONSerializer
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from clustersession.core.values import check_depth, decode_value, encode_value, is_immutable
from clustersession.errors import Corrupt, ValueNotSupported

BERLIN = ZoneInfo("Europe/Berlin")

offsets = st.builds(dt.timezone, st.timedeltas(min_value=dt.timedelta(hours=-23), max_value=dt.timedelta(hours=23)))
zones = st.none() | offsets | st.just(dt.UTC) | st.sampled_from([BERLIN, ZoneInfo("UTC"), ZoneInfo("America/St_Johns")])
hashables = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=-(2**200), max_value=2**200)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.dates()
    | st.times(timezones=zones)
    | st.builds(lambda moment: moment.replace(fold=1), st.datetimes(timezones=zones))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.builds(Markup, st.text())
)
hashables = st.recursive(
    hashables, lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3), max_leaves=5
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=20,
)


def shape(value: object) -> object:
    """A value with the exact type of every part of it, so that 1, 1.0 and True differ."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(shape(item)) for item in value)
    if isinstance(value, dt.datetime | dt.time):
        name = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        return type(value), value.isoformat(), value.fold, name
    return type(value), repr(value)


@given(values)
@example(dt.datetime(2000, 1, 1, tzinfo=dt.timezone(dt.timedelta(microseconds=1))))
@example(dt.datetime(2000, 1, 1, fold=1, tzinfo=dt.timezone(-dt.timedelta(microseconds=1))))
@example(dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(microseconds=999_999))))
def test_round_trip(value: object) -> None:
    """Every value comes back as the same types and contents at every depth, and has one encoding only."""
    data = encode_value(value)
    again = decode_value(data)
    assert shape(again) == shape(value)
    assert encode_value(again) == data


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, Decimal("NaN"), Decimal("-0E+5"), Decimal("sNaN12")])
def test_odd_numbers(value: object) -> None:
    """Not-a-number, infinities and signed zeros survive, and are not seen as changed."""
    data = encode_value([value])
    assert repr(decode_value(data)) == repr([value])
    assert encode_value(decode_value(data)) == data


def test_integers_of_any_size() -> None:
    """Around every border of the format, and far beyond 64 bits, an integer stays itself."""
    for bits in (0, 5, 7, 8, 15, 16, 31, 32, 63, 64, 65, 127, 128, 4096):
        for number in (2**bits - 1, 2**bits, 2**bits + 1):
            assert decode_value(encode_value([number, -number])) == [number, -number]


def test_zone_and_fold_of_a_moment() -> None:
    """The hour that comes twice keeps which of the two it was, a ZoneInfo its name, any other zone its offset."""
    second = dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)
    again = decode_value(encode_value(second))
    assert isinstance(again, dt.datetime)
    assert (again.utcoffset(), again.fold, again.tzinfo) == (dt.timedelta(hours=1), 1, BERLIN)
    assert b"+" not in encode_value(second)  # so that hosts with other time zone data don't take it for changed

    class Odd(dt.tzinfo):
        def utcoffset(self, moment: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(hours=5, minutes=45)

        def dst(self, moment: dt.datetime | None) -> None: ...

        def tzname(self, moment: dt.datetime | None) -> None: ...

    fixed = decode_value(encode_value(dt.datetime(2024, 1, 1, tzinfo=Odd())))
    assert fixed == dt.datetime(2024, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=5, minutes=45)))


class Pair(NamedTuple):
    left: int
    right: object


class Level(enum.IntEnum):
    HIGH = 3


class Colour(str, enum.Enum):  # noqa: UP042  (the older way is what apps have)
    RED = "red"


class Plain(enum.Enum):
    A = 1


class Huge(int): ...


class Text(str):
    def __str__(self) -> str:
        return "something else"


class Raw(bytes): ...


class Ratio(float): ...


class Items(list[int]): ...


class Keys(set[int]): ...


class Day(dt.date): ...


class Moment(dt.datetime):
    def isoformat(self, *_: Any) -> str:
        return "not ISO at all"


class Money(Decimal): ...


@pytest.mark.parametrize(
    ("value", "base"),
    [
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (MultiValueDict({"a": [1, 2]}), {"a": 2}),
        (Pair(1, Pair(2, [])), (1, (2, []))),
        (Level.HIGH, 3),
        (Colour.RED, "red"),
        (Huge(2**70), 2**70),
        (Huge(7), 7),
        (Text("text"), "text"),
        (Raw(b"raw"), b"raw"),
        (Ratio(0.5), 0.5),
        (Items([1]), [1]),
        (Keys({1}), {1}),
        (Day(2024, 2, 29), dt.date(2024, 2, 29)),
        (Moment(2024, 2, 29, 1), dt.datetime(2024, 2, 29, 1)),  # noqa: DTZ001
        (Money("1.20"), Decimal("1.20")),
        (bytearray(b"x"), b"x"),
        (memoryview(b"x"), b"x"),
        (mark_safe("<b>"), "<b>"),
        (lazystr("lazy"), "lazy"),
    ],
)
def test_subclasses_come_back_as_their_base(value: object, base: object) -> None:
    """A subclass is stored as what it is made of, also inside a container and as a key."""
    assert shape(decode_value(encode_value(value))) == shape(base)
    assert shape(decode_value(encode_value([{"x": value}]))) == shape([{"x": base}])
    assert encode_value(value) == encode_value(base)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=15,
)


@given(json_values)
def test_what_json_sessions_hold(value: object) -> None:
    """Django's and Starlette's sessions, which are JSON, move over without a change."""
    assert shape(decode_value(encode_value(value))) == shape(json.loads(json.dumps(value)))


@pytest.mark.parametrize(
    "value",
    [
        (1, ("x", [])),
        b"\x00\xff",
        Markup("<b>"),
        UUID(int=5),
        dt.datetime(2024, 2, 29, 12, 0, 1, tzinfo=dt.UTC),
        {"nested": ({"deep": (b"", Markup("&amp;"))},)},
    ],
)
def test_what_flask_sessions_hold(value: object) -> None:
    """Whatever Flask's tagged JSON can hold comes back as it does from there."""
    with Flask(__name__).app_context():
        serializer = TaggedJSONSerializer()
        assert shape(decode_value(encode_value(value))) == shape(serializer.loads(serializer.dumps(value)))


class Opaque:
    def __html__(self) -> str:
        return "<i>"


def cyclic() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


def nested(depth: int, wrap: Callable[[object], object] = lambda inner: [inner]) -> object:
    value: object = 1
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Opaque(), r"session\['cart'\] is of type .*Opaque, which no session can hold"),
        ({"a": [1, (2, {"b c": object()})]}, r"session\['cart'\]\['a'\]\[1\]\[1\]\['b c'\] is of type object"),
        ([{1: 1j}], r"session\['cart'\]\[0\]\[1\] is of type complex"),
        ({(1, Fraction(1, 2)): 1}, r"session\['cart'\] \(a key\)\[1\] is of type fractions.Fraction"),
        ({1, Opaque}, r"session\['cart'\] \(an element\) is of type type"),
        ([deque()], r"\[0\] is of type collections.deque"),
        (UserDict(a=1), "is of type collections.UserDict"),
        (lambda: None, "is of type function"),
        (Plain.A, "Plain, which no session"),
        (["\ud800"], r"\[0\] is text with lone surrogates"),
        ({"\udc80": 1}, r"\(a key\) is text with lone surrogates"),
        (Markup("\ud800"), "is text with lone surrogates"),
        (cyclic(), "contains itself or is nested too deeply"),
        (nested(5000), "contains itself or is nested too deeply"),
        (nested(5000, lambda inner: (inner,)), "contains itself or is nested too deeply"),
    ],
)
def test_what_no_session_can_hold_is_named(value: object, words: str) -> None:
    """The error says which part of which value is of what type, and what to do; it never shows the value."""
    with pytest.raises(ValueNotSupported, match=words):
        encode_value(value, "cart")
    assert decode_value(encode_value([1, "after a failure"])) == [1, "after a failure"]


def test_a_value_without_a_name() -> None:
    """Where no key is known the error speaks of the value."""
    with pytest.raises(ValueNotSupported, match="the value is of type object"):
        encode_value(object())


@pytest.mark.parametrize(
    "wrap", [lambda inner: [inner, 5], lambda inner: {"x": inner, "y": 5}, lambda inner: (5, inner), lambda inner: {(inner,): 5}]
)
def test_depth_is_limited(wrap: Callable[[object], object]) -> None:
    """Exactly as many levels as allowed pass; one more is refused, of whatever container, keys included."""
    value = wrap([[1]]) if wrap(1) != {(1,): 5} else {((1,),): 5}
    check_depth(value, 3)
    with pytest.raises(ValueNotSupported, match=r"session\['k'\] is nested in more than 2 levels"):
        check_depth(value, 2, "k")


def test_scalars_have_no_depth() -> None:
    """A scalar passes any limit, an empty container counts as a level."""
    check_depth("text", 0)
    check_depth([1, "x", Text("y")], 1)
    with pytest.raises(ValueNotSupported):
        check_depth([], 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_corrupt_at_worst(data: bytes) -> None:
    """Arbitrary bytes decode to something or raise `Corrupt`."""
    try:
        decode_value(data)
    except Corrupt:
        return


@given(values, st.data())
def test_damaged_bytes_are_corrupt_at_worst(value: object, data: st.DataObject) -> None:
    """Bytes cut off or with one byte changed decode to something or raise `Corrupt`."""
    encoded = bytearray(encode_value(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.integers(0, 255))
    for damaged in (bytes(encoded), bytes(encoded[:at])):
        try:
            decode_value(damaged)
        except Corrupt:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x01",
        b"\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000 + b"\x01",
        b"\x80\x05\x95.",
        msgpack.packb(msgpack.ExtType(99, b"later")),
        msgpack.packb(msgpack.ExtType(1, b"\x01")),
        msgpack.packb(msgpack.ExtType(2, msgpack.packb([[]]))),
        msgpack.packb(msgpack.ExtType(4, b"yesterday")),
        msgpack.packb(msgpack.ExtType(4, b"2024-01-01T00:00:00 0 Mars/Olympus")),
        msgpack.packb(msgpack.ExtType(4, b"2024-01-01T00:00:00 0 America")),
        msgpack.packb(msgpack.ExtType(4, b"2024-01-01T00:00:00 0 ../../etc/passwd")),
        msgpack.packb(msgpack.ExtType(4, b"2024-01-01T00:00:00 0")),
        msgpack.packb(msgpack.ExtType(7, msgpack.packb([10**18, 0, 0]))),
        msgpack.packb(msgpack.ExtType(8, b"ten")),
        msgpack.packb(msgpack.ExtType(9, b"short")),
        msgpack.packb(msgpack.ExtType(10, b"\xff")),
        msgpack.packb({msgpack.ExtType(2, b"\x90"): 1}),
    ],
)
def test_what_is_not_understood_is_corrupt(data: bytes) -> None:
    """Unknown types, impossible contents, endless nesting, unhashable keys and pickles are `Corrupt`, nothing else."""
    with pytest.raises(Corrupt):
        decode_value(data)


def test_two_threads_do_not_share_a_packer() -> None:
    """A value whose encoding runs Python code in the middle is not mixed up with what another thread encodes meanwhile."""
    inside, go_on, results = threading.Event(), threading.Event(), []

    class Slow(dict[str, int]):
        def items(self) -> Any:
            inside.set()
            assert go_on.wait(10)
            return super().items()

    thread = threading.Thread(target=lambda: results.append(encode_value(["a", Slow(x=1), "b"])))
    thread.start()
    assert inside.wait(10)
    assert encode_value([1, (2, 3)]) == encode_value([1, (2, 3)])
    go_on.set()
    thread.join(10)
    assert decode_value(results[0]) == ["a", {"x": 1}, "b"]


def test_a_large_value_leaves_no_large_buffer() -> None:
    """The memory for encoding one huge value is given back."""
    tracemalloc.start()
    try:
        size = len(encode_value("x" * 8_000_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 8_000_000 > 10 * held


def test_immutable_means_the_exact_type() -> None:
    """What can't change in place is known by its exact type; a subclass may have a changeable inside."""
    for value in (None, True, 1, 1.5, "", b"", Decimal(1), UUID(int=1), dt.date(2024, 1, 1), dt.timedelta(1)):
        assert is_immutable(value)
    for other in ([], {}, set(), (1,), Text("x"), Level.HIGH, object()):
        assert not is_immutable(other)
