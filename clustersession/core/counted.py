"""Which operations the value of a key has in it, by the ids of the patches they came with.

What sets a value may be repeated: it sets the same. What counts must count once, also where the master that has counted it
fell silent and comes back with it in a merge. So the ids stay with the value: whichever value of a key wins brings its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, TypeAlias

PATCH_ID_BYTES: Final = 8
COUNTING_ID_BYTES: Final = 9  # the length tells them apart
COUNTING_IDS_KEPT: Final = 256  # for each key: 32 writers in a failover pass 64 while one of them retries
RETRIED_WITHIN_S: Final = 10.0  # several times the budget of a request

Counted: TypeAlias = Mapping[str, tuple[bytes, ...]]


def counts(patch_id: bytes) -> bool:
    return len(patch_id) > PATCH_ID_BYTES


def counted_with(counted: Counted, patch_id: bytes, keys: Iterable[str]) -> dict[str, tuple[bytes, ...]]:
    """`counted` after a counting patch that has set `keys`."""
    return {**counted, **{key: (*counted.get(key, ()), patch_id)[-COUNTING_IDS_KEPT:] for key in keys}}


def counted_merged(
    mine: Counted, theirs: Counted, winners: Collection[str], same: Collection[str]
) -> dict[str, tuple[bytes, ...]]:
    """That of a merge, in which the values of `winners` are theirs, and those of `same` are both sides' (one may have forgotten
    sooner)."""
    merged = {}
    for key in {**theirs, **mine}:
        if key in winners:
            ids = theirs.get(key, ())
        elif key in same:
            ids = tuple(dict.fromkeys((*theirs.get(key, ()), *mine.get(key, ()))))[-COUNTING_IDS_KEPT:]
        else:
            ids = mine.get(key, ())
        if ids:
            merged[key] = ids
    return merged


def done_by(counted: Counted, patch_id: bytes) -> set[str]:
    """The keys whose values have that patch in them."""
    return {key for key, ids in counted.items() if patch_id in ids}
