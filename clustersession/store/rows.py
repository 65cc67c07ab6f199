"""How one sixteenth of the store is laid out: rows of one B-tree, by kind.

| row                                   | value                         |
|---------------------------------------|-------------------------------|
| `d` key                               | head (17 bytes), then the data|
| `e` class (1), since (4), key         | empty: who is evicted first   |
| `g`                                   | number of `d` rows            |
| `h` owner (8)                         | number of hints for the owner |
| `h` owner (8), key                    | when first hinted (double)    |
| `t` due (4), key                      | empty: what is due first      |
| `u` group (8), key                    | empty: what is of one group   |

The head repeats where the entry stands in `e`, `t` and `u`, so that its old index rows can be found. One tree, because every
change writes a few of these rows: in trees of their own each would cost another page and the naming of the trees.
Due and since are counted in steps, so that a session used all the time moves in its index once a step and not each time.
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from typing import Final, NamedTuple

KEY_SIZE: Final = 16
STEP_S: Final = 16  # `Store.due` may show a key that much late

DATA: Final = b"d"
EVICT: Final = b"e"
COUNT: Final = b"g"
HINT: Final = b"h"
DUE: Final = b"t"
GROUP: Final = b"u"

_HEAD: Final = struct.Struct(">IBI8s")
HEAD_SIZE: Final = _HEAD.size
_NEVER: Final = 0xFFFFFFFF
_NO_CLASS: Final = 0xFF
_NEVER_DUE: Final = _NEVER.to_bytes(4)
_NEVER_EVICTED: Final = bytes((_NO_CLASS, 0, 0, 0, 0))
GROUP_SIZE: Final = 8
_NO_GROUP: Final = bytes(GROUP_SIZE)
_TIME: Final = struct.Struct(">d")
_NUMBER: Final = struct.Struct(">Q")


class Standing(NamedTuple):
    """Where an entry stands in the indexes: steps of its due time, class and steps of since, group. None: not in it."""

    due: int | None
    evict: tuple[int, int] | None
    group: bytes | None = None


def standing(due: float, evict: tuple[int, float] | None, group: bytes | None = None) -> Standing:
    """`due` is rounded up, never to be shown early; infinity: never. A class is 0 to 254, a group 8 bytes that are not all 0."""
    if group is not None and (len(group) != GROUP_SIZE or group == _NO_GROUP):
        raise ValueError(f"a group has {GROUP_SIZE} bytes that are not all 0, not {group!r:.40}")
    steps = None if math.isinf(due) and due > 0 else min(max(math.ceil(due / STEP_S), 0), _NEVER - 1)
    if evict is None:
        return Standing(steps, None, group)
    if not 0 <= evict[0] < _NO_CLASS:
        raise ValueError(f"{evict[0]} is not a class of eviction: they go from 0 to {_NO_CLASS - 1}")
    return Standing(steps, (evict[0], min(max(int(evict[1] // STEP_S), 0), _NEVER)), group)


def head(at: Standing) -> bytes:
    """The first bytes of a data row."""
    due = _NEVER if at.due is None else at.due
    return _HEAD.pack(due, *(at.evict or (_NO_CLASS, 0)), at.group or _NO_GROUP)


def due_row(head: bytes, key: bytes) -> bytes | None:
    """The row of the due index that belongs to a head."""
    due = head[:4]
    return None if due == _NEVER_DUE else DUE + due + key


def evict_row(head: bytes, key: bytes) -> bytes | None:
    """The row of the index of eviction that belongs to a head."""
    place = head[4:9]
    return None if place == _NEVER_EVICTED else EVICT + place + key


def group_row(head: bytes, key: bytes) -> bytes | None:
    """The row of the index of groups that belongs to a head."""
    group = head[9:HEAD_SIZE]
    return None if group == _NO_GROUP else GROUP + group + key


def due_until(now: float) -> bytes:
    """The last due index prefix whose time has passed by `now`."""
    return DUE + min(max(int(now // STEP_S), 0), _NEVER - 1).to_bytes(4)


@functools.lru_cache(maxsize=4096)
def hint_prefix(owner: str) -> bytes:
    """The row that counts the hints for `owner`; with a key behind it, the row of one hint."""
    return HINT + hashlib.sha256(owner.encode()).digest()[:8]


HINT_PREFIX_SIZE: Final = 9

pack_time = _TIME.pack
pack_number = _NUMBER.pack


def time_of(value: bytes) -> float:
    """The time in the row of a hint."""
    seconds: float = _TIME.unpack(value)[0]
    return seconds


def number_of(value: bytes | None) -> int:
    """The count in a counting row; a row that is not there counts nothing."""
    return 0 if value is None else int(_NUMBER.unpack(value)[0])
