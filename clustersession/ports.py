"""The few interfaces between the rules and the world. Each states what its implementations guarantee."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from .core.calls import Call, Reply
from .core.node import Member


class _Keep:
    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = _Keep()


class Change(msgspec.Struct, frozen=True):
    """What a rule decided about one key, carried out in one transaction; `result` is handed back."""

    result: Any
    data: bytes | None | _Keep = KEEP  # None deletes, and takes back every hint of the key
    due: float = 0.0  # when `Store.due` should show the key (a time of the host's clock); used with new data
    evict: tuple[int, float] | None = None  # (class, since): lowest goes first when the store is full; None never goes
    hint: tuple[str, ...] = ()  # owners that must be told of this key
    unhint: tuple[str, ...] = ()
    group: bytes | None = None  # 8 bytes under which `Store.grouped` finds the key; used with new data


Rule: TypeAlias = Callable[[bytes | None], Change]
"""What is to become of a key, given the bytes that are stored under it."""


class StoreStats(NamedTuple):
    """Sizes of the whole store: live entries, bytes used of bytes there are, hints waiting."""

    entries: int
    bytes_used: int
    bytes_max: int
    hints: int


class Store(Protocol):
    """Bytes under 16-byte keys, shared by every process of the host that opens the same place.

    Every change of a key is one atomic step, and never depends on another key. A rule given to `change` runs inside the write
    transaction, perhaps more than once: it must be pure and quick. Raises `StoreFull`, `ShardDown`, `StoreRefused`. Survives
    the death of any process at any moment: what `change` returned is seen by all later readers, what it did not is not there
    at all.
    """

    @property
    def born(self) -> float:
        """When these files were created, by the host's clock (`now` of boot time)."""
        ...

    def read(self, key: bytes) -> bytes | None: ...

    def hinted(self, owner: str, key: bytes) -> bool: ...

    def change(self, key: bytes, rule: Rule) -> Any:
        """Run `rule` on what is stored under `key`, carry out its `Change`, return `Change.result`."""
        ...

    def change_each(self, rules: Sequence[tuple[bytes, Rule]]) -> list[Any]:
        """`change` for each, those of one key in their order; an error of this package that `change` would raise stands in the
        place of the result. Nobody else waits for more than a few of them; neighbours in the order of keys are cheapest."""
        ...

    def hints(self, owner: str, limit: int) -> list[tuple[bytes, float]]:
        """Up to `limit` keys hinted for `owner`, with the time each was first hinted, oldest key order unspecified."""
        ...

    def hint_count(self, owner: str) -> int: ...

    def drop_hints(self, known: Collection[str], before: float, limit: int) -> int:
        """Take back up to `limit` hints that were left before a time for owners which are not `known`; how many."""
        ...

    def due(self, now: float, limit: int) -> list[bytes]:
        """Up to `limit` keys whose due time has passed, by an index; never a full scan. Never early, up to 16 s late."""
        ...

    def keys(self, after: bytes | None, limit: int) -> list[bytes]:
        """The next `limit` keys in order after `after`, for sync and repair in small steps."""
        ...

    def grouped(self, group: bytes, *, settled: bool = False) -> list[bytes]:
        """All keys of a group. `settled`: of every change that had begun before, if need be by waiting for it."""
        ...

    def board(self, name: str) -> bytes | None:
        """A small shared value of the host (member table, leases): one look-up of about a microsecond."""
        ...

    def set_board(self, name: str, data: bytes | None) -> None: ...

    def boards(self, prefix: str) -> dict[str, bytes]:
        """The small values whose names begin so. Like `board` it may be asked inside of a rule."""
        ...

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to the counters of the host, which all its processes share."""
        ...

    def counts(self) -> dict[str, int]:
        """The counters of the host."""
        ...

    def stats(self) -> StoreStats: ...

    def wipe(self) -> None:
        """Discard every entry, hint and board value, for all processes of the host. `born` is then now."""
        ...

    def down_shards(self) -> dict[int, int | None]:
        """What this process cannot write to because a process that does not move holds its lock: number -> that process."""
        ...

    def close(self) -> None: ...


class Outgoing(NamedTuple):
    """A call to a peer; `after`: seconds to hold it back in a hedged exchange."""

    member: Member
    call: Call
    after: float = 0.0


class Transport(Protocol):
    """Calls to peers from blocking code. Never raises for what a peer or the network does: that is `Unreachable`."""

    def ask(self, member: Member, call: Call, deadline: float) -> Reply:
        """One call, done by `deadline` (monotonic) and within the request time-out."""
        ...

    def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]:
        """Several calls at once. With `enough`: a hedge, each next call is sent when its `after` has passed or all
        before it have failed or were not enough; returns at the first reply that is enough (None for the others)."""
        ...

    def tell(self, member: Member, call: Call) -> None:
        """Send and don't wait; the reply is read and thrown away later. May be dropped."""
        ...

    def close(self) -> None: ...


class AsyncTransport(Protocol):
    """The same from asyncio code; never blocks the loop."""

    async def ask(self, member: Member, call: Call, deadline: float) -> Reply: ...

    async def exchange(
        self, batch: Sequence[Outgoing], deadline: float, enough: Callable[[Reply], bool] | None = None
    ) -> list[Reply | None]: ...

    def tell(self, member: Member, call: Call) -> None: ...

    async def close(self) -> None: ...


class Clock(Protocol):
    """Seconds that never jump and go on through a suspend; the same for all processes of the host until it reboots."""

    def now(self) -> float: ...


class Entropy(Protocol):
    """Random bytes fit for secrets, also right after a fork."""

    def bytes(self, count: int) -> bytes: ...


class Observer(Protocol):
    """Counts what happened. Never raises, never blocks."""

    def count(self, event: str, by: int = 1) -> None: ...
