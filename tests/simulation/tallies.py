"""What operations leave in a session, and what a read of it must show of them.

Each request puts one entry of its own under a key, so that a value says of every request whether it counts, and how often:

    sum    `incr` by a power of four: the digits of the sum
    log    `append` of a text of its own
    set    `add` of such a text, and `discard` of it by a later request
    held   read, add a text to the list, write the list whole; under a lock
    same   the same without a lock, where `expect` says which list was read

Those of the host that is alone begin with "d.", and nobody else writes them. What both sides counted under one key, one of
them loses, whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from clustersession.core.values import decode_value

from .parting import LEASE_S, Parting

SUM, LOG, SET, HELD, SAME = "sum", "log", "set", "held", "same"
ALONE: Final = "d."
KINDS: Final = (SUM, LOG, SET, HELD, SAME)
CHAINS: Final = frozenset(prefix + kind for prefix in ("", ALONE) for kind in (HELD, SAME))
OPERATED: Final = frozenset(prefix + kind for prefix in ("", ALONE) for kind in KINDS)
TWICE: Final = "counted twice"
BASE: Final = 4  # so that what counts twice or three times shows as that


@dataclass(eq=False)
class Entry:
    """What one request put there: when it was sent, when its ack arrived (None: never), what it had read before."""

    name: str
    number: int
    start: float
    alone: bool
    parting: int  # during which it was sent, or acked; 0: none
    acked: float | None = None
    shown: bool = False  # no ack, but a read showed it
    answered: float | None = None  # where a read has shown it before: when its ack arrived all the same
    certain: bool = False  # acked by the side it was sent to
    refused: str = ""
    read: frozenset[str] | None = None
    rival: str = ""  # of another history that had not met this one: one of the two stays
    left: float | None = None  # when a request was sent that takes it out again, and when that was acked
    out: float | None = None


class Problem(NamedTuple):
    """A rule of the checker, and how it was broken."""

    rule: str
    detail: str
    entry: Entry | None = None


class Tally:
    """All entries under one key of one session."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.entries: dict[str, Entry] = {}
        self.acked: dict[str, Entry] = {}
        self._split: set[int] = set()  # partings in which both sides put something here, and one of them may lose it
        self._data: bytes | None = None
        self._held: Counter[str] = Counter()
        self._total = 0
        self._has_left = False

    def copy(self) -> Tally:
        """That of the session which a rotation has made of this one."""
        new = Tally(self.key)
        new.entries, new.acked, new._split = dict(self.entries), dict(self.acked), set(self._split)
        new._has_left = self._has_left
        return new

    def sent(self, name: str, now: float, parting: Parting, *, alone: bool) -> Entry:
        """A request is about to put `name` here."""
        entry = Entry(name, len(self.entries), now, alone, 0 if parting.is_over(now) else parting.number)
        self.entries[name] = entry
        self._note_side(entry)
        return entry

    def leaves(self, entry: Entry, now: float) -> None:
        """A request is about to take it out again."""
        entry.left, self._has_left = now, True

    def _note_side(self, entry: Entry) -> None:
        same = {each.alone for each in self.entries.values() if each.parting == entry.parting}
        if entry.parting and len(same) > 1:
            self._split.add(entry.parting)

    def was_acked(self, entry: Entry, now: float, parting: Parting) -> Problem | None:
        """Its client has the answer."""
        entry.answered = now
        self._counts(entry, now, parting, shown=False)
        return self._apart_from_another(entry, now, parting) if self.key in CHAINS else None

    def _counts(self, entry: Entry, now: float, parting: Parting, *, shown: bool) -> None:
        entry.shown = shown
        if entry.acked is None:
            entry.acked, entry.certain = now, not shown and parting.one_sided(entry.start, now)
            if parting.apart(now, entry.start) and not entry.parting:
                entry.parting = parting.number
                self._note_side(entry)
        self.acked[entry.name] = entry

    def _apart_from_another(self, entry: Entry, now: float, parting: Parting) -> Problem | None:
        """Of two lists that were written whole one must be made of the other, or the later one has undone the earlier. Each of
        two histories has a lock of its own until they meet."""
        for other in self.acked.values():
            if other.shown or other is entry or entry.read is None or other.read is None:
                continue
            if other.name in entry.read or entry.name in other.read:
                continue
            if parting.meeting(other, entry.start, now):
                entry.rival, other.rival = other.name, entry.name
            else:
                detail = f"{self.key}: {entry.name} and {other.name} were both acked, and neither had read the other"
                return Problem("not based on the last", detail)
        return None

    def held(self, data: bytes | None) -> Counter[str]:
        """Which entries a value shows, and how often."""
        if data != self._data:
            self._data, self._held = data, Counter() if data is None else Counter(self._names(decode_value(data)))
            self._total = self._held.total()
        return self._held

    def _names(self, value: Any) -> Iterator[str]:
        if not isinstance(value, int):
            yield from value
            return
        names = list(self.entries)
        for number, times in enumerate(digits(value)):
            name = names[number] if number < len(names) else f"{BASE}**{number}"
            yield from [name] * times

    def read(self, data: bytes | None, start: float, now: float, parting: Parting, *, alone: bool) -> Iterator[Problem]:
        """A read that began at `start` showed `data`."""
        held, acked = self.held(data), self.acked
        if held.keys() == acked.keys() and len(held) == self._total and not self._has_left:
            return
        if not held.keys() <= acked.keys():
            yield from self._news(held, now, parting, alone=alone)
        if len(held) != self._total:
            for name in [name for name, times in held.items() if times > 1]:
                yield Problem(TWICE, f"{self.key}: {name}", self.entries.get(name))
        if self._has_left:
            yield from self._undone(held, start, now, parting, alone=alone)
        missing = [entry for name, entry in acked.items() if name not in held]
        if missing:
            yield from self._missing(missing, held, start, now, parting, alone=alone)

    def _news(self, held: Counter[str], now: float, parting: Parting, *, alone: bool) -> Iterator[Problem]:
        for name in sorted(held.keys() - self.acked.keys()):
            entry = self.entries.get(name)
            if entry is None:
                yield Problem("foreign value", f"{self.key}: {name}")
            elif entry.refused:
                yield Problem("refused, yet saved", f"{self.key}: {name}, of which its client was told: {entry.refused}")
            elif not alone:  # what only the host that is alone has shown is no promise
                self._counts(entry, now, parting, shown=True)

    def _undone(self, held: Counter[str], start: float, now: float, parting: Parting, *, alone: bool) -> Iterator[Problem]:
        for name in held:
            entry = self.entries.get(name)
            if entry is None or entry.out is None or entry.out + LEASE_S >= start:
                continue
            discarded = Entry(name, 0, start, entry.alone, 0, entry.out)
            if not parting.unseen(discarded, start, now, alone=alone):
                yield Problem("discard undone", f"{self.key}: {name} was discarded at {entry.out:.3f}")

    def _missing(
        self, missing: list[Entry], held: Counter[str], start: float, now: float, parting: Parting, *, alone: bool
    ) -> Iterator[Problem]:
        due = [entry for entry in missing if entry.left is None and (entry.acked or 0.0) + LEASE_S < start]
        due = [
            entry for entry in due if not parting.unseen(entry, start, now, alone=alone) and not self._passed_over(entry, held)
        ]
        if any(entry.parting for entry in due):
            due = list(self._not_given_up(due, held, 0 if parting.is_over(start) else parting.number))
        if due:
            entry = due[0]
            rule, how = ("read went back", "shown") if entry.shown else ("lost operation", "acked")
            yield Problem(rule, f"{self.key}: got {' '.join(held) or 'nothing'}, {entry.name} was {how} at {entry.acked:.3f}")

    def _passed_over(self, entry: Entry, held: Counter[str]) -> bool:
        """A list that was read before it could show this one was written over it: nobody had been told that it counts."""
        if entry.rival in held:
            del self.acked[entry.name]
            return True
        if not entry.shown or self.key not in CHAINS:
            return False
        writers = (self.entries[name] for name in held if name in self.entries)
        over = any(w.start < (entry.acked or 0.0) and w.read is not None and entry.name not in w.read for w in writers)
        if over:
            del self.acked[entry.name]
        return over

    def _not_given_up(self, due: list[Entry], held: Counter[str], apart: int) -> Iterator[Entry]:
        """Where both sides counted, one side's may be lost when they are not `apart` any more: all of it, and for good."""
        for number in sorted({entry.parting for entry in due}):
            those = [entry for entry in due if entry.parting == number]
            certain = {entry.alone for entry in those if entry.certain}
            if number == apart or len(certain) > 1:
                yield from those
                continue
            if number not in self._split:
                yield from self._of_one_history(those, held, number)
                continue
            for entry in those:
                del self.acked[entry.name]
            if certain:
                self._split.discard(number)

    def _of_one_history(self, those: list[Entry], held: Counter[str], number: int) -> Iterator[Entry]:
        """Until all have met there may be two of them on one side too: each owner of a session has taken the other for lost, and
        found somebody else. What both may have counted then, one of them loses."""
        there = any(each.parting == number for name, each in self.entries.items() if name in held)
        for entry in those:
            if number and there and not entry.certain:
                del self.acked[entry.name]
            else:
                yield entry


def digits(value: int) -> Iterator[int]:
    """To the base, the lowest first."""
    while value > 0:
        value, digit = divmod(value, BASE)
        yield digit


def in_words(key: str, data: bytes) -> str:
    """A value as a story tells it."""
    if key not in OPERATED:
        return data.decode("ascii", "replace")
    value: Any = decode_value(data)
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"[{' '.join(map(str, sorted(value) if isinstance(value, set) else value))}]"
