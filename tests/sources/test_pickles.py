"""What is unpickled, and what is not."""

from __future__ import annotations

import fractions
import os
import pickle
from collections import OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from clustersession.errors import SourceRefused
from clustersession.sources.pickles import restricted_unpickle
from tests.sources.values import pickled_items, typed


class Touching:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@given(pickled_items, st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_values_come_back(items: dict[str, Any], protocol: int) -> None:
    """With their types, from every protocol since 2."""
    assert typed(restricted_unpickle(pickle.dumps(items, protocol))) == typed(items)


def test_an_ordered_dict_and_text_that_is_safe_come_back() -> None:
    """Both are types of their own."""
    value = OrderedDict(a=Markup("<b>"), b=datetime(2026, 1, 1, tzinfo=UTC))
    assert restricted_unpickle(pickle.dumps(value)) == value


def test_nothing_runs(tmp_path: Path) -> None:
    """A pickle that runs code when it is read is refused, and has not run."""
    data = pickle.dumps({"user": 1, "x": Touching(tmp_path / "ran")})
    with pytest.raises(SourceRefused, match=r"posix\.mkdir"):
        restricted_unpickle(data)
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists(), "the pickle is one that runs code"


@pytest.mark.parametrize("value", [fractions.Fraction(1, 2), eval, getattr, object(), Path("x"), type, bytearray(b"x")])
def test_other_types_are_refused(value: object) -> None:
    """Also harmless ones, and builtins that do something."""
    with pytest.raises(SourceRefused, match="not on the list"):
        restricted_unpickle(pickle.dumps({"x": value}))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.",
        b"\x80\x04\x8c\x08builtins\x8c\x0cbytes.decode\x93.",
        b"\x80\x02\x82\x01.",
        b"Pname\n.",
    ],
    ids=["another codec", "an attribute of an allowed type", "a registered extension", "a reference outwards"],
)
def test_what_reaches_outside_is_refused(data: bytes) -> None:
    """The ways around the list of types."""
    with pytest.raises(SourceRefused):
        restricted_unpickle(data)


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"\x80\x04" + data + b"."))
@example(b"\x80\x02Nr\xff\xff\xff\xff.")
@example(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.")
@example(b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.")
def test_garbage_is_a_value_error(data: bytes) -> None:
    """Or refused, or a plain value; nothing else."""
    try:
        restricted_unpickle(data)
    except (ValueError, SourceRefused):
        pass


def test_cut_pickles_are_value_errors() -> None:
    """At every place."""
    data = pickle.dumps({"a": [1, 2.5, b"x", datetime(2026, 1, 1, tzinfo=UTC)]})
    for place in range(len(data)):
        with pytest.raises(ValueError, match="not a pickle"):
            restricted_unpickle(data[:place])


def reduced(name: str, *arguments: object) -> bytes:
    """A pickle that calls this builtin."""
    return b"\x80\x03cbuiltins\n" + name.encode() + b"\n" + pickle.dumps(arguments, 3)[2:-1] + b"R."


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("bytes", (300_000_000,)), ("int", (Decimal("1e300000"),)), ("str", ([[1], [2]],)), ("str", (7,))],
)
def test_a_small_pickle_makes_no_large_value(name: str, arguments: tuple[object, ...]) -> None:
    """Calls of types on the list whose result has little to do with the size of their argument."""
    data = reduced(name, *arguments)
    assert pickle.loads(reduced("bytes", b"x")) == restricted_unpickle(reduced("bytes", b"x")) == b"x"
    with pytest.raises(SourceRefused, match=f"would make {name} of"):
        restricted_unpickle(data)


def test_what_is_held_at_many_places_is_refused_before_it_unfolds() -> None:
    """A hundred bytes that would be a thousand million when they are written, a long text a thousand times, and a circle."""
    twice: Any = []
    for _ in range(30):
        twice = [twice, twice]
    circle: list[Any] = []
    circle.append(circle)
    for value, why in ((twice, "many places"), (["x" * 10_000] * 1000, "many places"), (circle, "contains itself")):
        with pytest.raises(SourceRefused, match=why):
            restricted_unpickle(pickle.dumps({"a": value}))
    cart = ["apple"]
    assert restricted_unpickle(pickle.dumps({"a": cart, "b": cart})) == {"a": cart, "b": cart}
