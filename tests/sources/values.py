"""What sessions hold, as property tests draw it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from markupsafe import Markup

NOW = 1_790_000_000.0

texts = st.text(max_size=8)
keys = st.text(min_size=1, max_size=8).filter(lambda key: not key.startswith("_"))
scalars = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | texts
dates = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(lambda at: at.replace(microsecond=0))  # noqa: DTZ001
plain = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8)
json_items: st.SearchStrategy[dict[str, Any]] = st.dictionaries(keys, plain, max_size=4)
tag_like = st.sampled_from([" t", " b", " m", " u", " d", " di", " t__", "x"])
flask_values = st.recursive(
    scalars | st.binary(max_size=8) | st.uuids() | dates | texts.map(Markup),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts, inner, max_size=3)
        | st.dictionaries(tag_like, inner, min_size=1, max_size=1)
    ),
    max_leaves=8,
)
flask_items: st.SearchStrategy[dict[str, Any]] = st.dictionaries(keys, flask_values, max_size=4)
pickled_items: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    keys,
    flask_values | st.sets(st.integers()) | st.decimals(allow_nan=False) | st.timedeltas() | st.dates() | st.times(),
    max_size=4,
)


def flipped(text: str, place: int) -> str:
    """The same text with another character at `place`, of the same alphabet."""
    place %= len(text)
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def typed(value: Any) -> Any:
    """A value with its types, since 1, 1.0 and True are equal."""
    if isinstance(value, dict):
        return {key: typed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value).__name__, [typed(each) for each in value]
    return type(value).__name__, value
