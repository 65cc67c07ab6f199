"""The outside checker: it sees only what clients saw, and knows what must never be seen.

Rules (an operation that got no clear answer may have happened or not, then or later):
(a) a read shows, per key, nothing older than the last write acked, or shown by another read, more than a lease before it began;
(b) after an acked logout or rotation no read finds the session, and no write to it is acked;
(c) no read shows a value of another session;
(d) a session that nobody ended, and that was used within its idle time, is never answered as ended or lost;
(e) a session that nobody used for longer than that is not there any more;
(f) what an operation put into the session is there once, like (a), and what was refused is not (`tallies`);
(g) of two acked requests that wrote a value made of what they had read, under a lock or with `expect`, one had read the other's.

While one host is alone (`parted`) its users see what they did there, and the others see what they did: neither what happened on
the other side meanwhile. From the heal until the histories have met they may see either; then everybody sees both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Final

from clustersession.core.record import touch_interval

from .parting import LEASE_S, Parting
from .tallies import OPERATED, Entry, Problem, Tally

CLIENT_WAITS_S: Final = 5.0


@dataclass
class Write:
    """One value, when it was sent, and when its ack arrived (None: never)."""

    value: bytes
    key: str
    start: float
    acked: float | None = None
    shown: bool = False  # no ack, but a read showed it
    alone: bool = False  # sent at the host that is alone


@dataclass
class Story:
    """One session as its client knows it."""

    name: str
    key: bytes = b""
    writes: dict[bytes, Write] = field(default_factory=dict)
    acked: dict[str, list[Write]] = field(default_factory=dict)
    end_started: float | None = None
    end_acked: float | None = None
    excused: bool = False  # lost with the files of a host that knew itself to be the only one that held it
    successor: Story | None = None  # the session that a rotation made of it
    idle_s: float = 3600.0
    last_sent: float = 0.0  # when the last request for it was sent, and the last one that got a good answer
    last_used: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)

    def sent(self, now: float) -> float:
        """When the request before this one was sent."""
        before, self.last_sent = self.last_sent, now
        return before

    def used(self, start: float) -> None:
        self.last_used = max(self.last_used, start)

    def wrote(self, write: Write, now: float) -> None:
        write.shown = False
        if write.acked is not None:
            return  # a read has shown it already, and it counts from then
        write.acked = now
        self.acked.setdefault(write.key, []).append(write)
        if self.successor is not None:
            self.successor.wrote(write, now)

    def tally(self, key: str) -> Tally:
        """All that operations put under `key`."""
        tally = self.tallies.get(key)
        if tally is None:
            tally = self.tallies[key] = Tally(key)
        return tally

    def rotated_to(self, new: Story) -> None:
        """What was acked until now, and what is still acked for a request that began before, is in the new session."""
        new.writes |= self.writes
        new.acked = {key: list(writes) for key, writes in self.acked.items()}
        new.tallies = {key: tally.copy() for key, tally in self.tallies.items()}
        new.excused = self.excused
        self.successor = new


@dataclass(frozen=True)
class Violation:
    """What rule was broken, when, by which session."""

    rule: str
    at: float
    session: str
    detail: str
    key: bytes = b""

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.3f} ({self.session}): {self.detail}"


class Checker:
    """Collects violations."""

    def __init__(self) -> None:
        self.parting = Parting()
        self.violations: list[Violation] = []
        self.checked_reads = 0

    def _broken(self, rule: str, at: float, story: Story, detail: str) -> None:
        if not story.excused:
            self.violations.append(Violation(rule, at, story.name, detail, story.key))

    def read(self, story: Story, items: dict[str, bytes], start: float, now: float, *, alone: bool = False) -> None:
        """A read that began at `start` showed `items`."""
        self.checked_reads += 1
        if self._undone(story, start, alone=alone):
            self._broken("logout undone: read", now, story, f"ended at {story.end_acked:.3f}, read at {start:.3f}")
        for key in (items.keys() - OPERATED) | story.acked.keys():
            self._value(story, key, items.get(key), start, now, alone=alone)
        for key in OPERATED.intersection(items).difference(story.tallies):
            self._problem(story, Problem("foreign value", f"{key}: nothing was ever put there"), now)
        for key, tally in story.tallies.items():
            for problem in tally.read(items.get(key), start, now, self.parting, alone=alone):
                self._problem(story, problem, now)

    def _problem(self, story: Story, problem: Problem, now: float) -> None:
        self._broken(problem.rule, now, story, problem.detail)

    def operated(self, story: Story, key: str, entry: Entry, now: float) -> None:
        """A request was acked that put `entry` under `key`, perhaps just before the session got another ID."""
        last: Story | None = story
        while last is not None:
            problem = last.tally(key).was_acked(entry, now, self.parting)
            if problem is not None:
                self._problem(last, problem, now)
            last = last.successor

    def _undone(self, story: Story, start: float, *, alone: bool) -> bool:
        over = story.end_acked is not None and start > story.end_acked + LEASE_S
        return over and not (alone and self.parting.apart(story.end_acked or 0.0, start))

    def _value(self, story: Story, key: str, value: bytes | None, start: float, now: float, *, alone: bool) -> None:
        seen = None if value is None else story.writes.get(value)
        if value is not None and seen is None:
            self._broken("foreign value", now, story, f"{key}={value!r}")
            return
        # the seen value is older for certain if it was acked before the acked one was even sent, or if nothing is seen
        seen_by = -inf if seen is None else inf if seen.acked is None else seen.acked
        for write in story.acked.get(key, ()):
            if write.start <= seen_by:
                continue
            assert write.acked is not None
            if write.acked + LEASE_S >= start or write is seen:
                continue
            if self.parting.unseen(write, start, now, alone=alone):
                continue
            got = "nothing" if seen is None else f"{seen.value!r} (acked {seen.acked:.3f})"
            rule, how = ("read went back", "shown") if write.shown else ("lost write", "acked")
            self._broken(rule, now, story, f"{key}: got {got}, {write.value!r} was {how} at {write.acked:.3f}")
            return
        if seen is not None and seen.acked is None and not alone:  # what only the host that is alone has shown is no promise
            story.wrote(seen, now)
            seen.shown = True

    def in_use(self, story: Story, before: float, start: float, now: float) -> None:
        """A request sent at `start`, the one before at `before`, found the session."""
        if start - before > story.idle_s + touch_interval(story.idle_s) + LEASE_S:
            self._broken("read after its idle time", now, story, f"used at {before:.3f}, read at {start:.3f}")

    def not_there(self, story: Story, answer: str, start: float, now: float) -> None:
        """The session was answered as ended or lost."""
        if story.end_started is None and start - story.last_used < story.idle_s:
            self._broken("session lost", now, story, answer)

    def late_write(self, story: Story, start: float, now: float, *, alone: bool = False) -> None:
        """A write that began at `start` was acked."""
        if self._undone(story, start, alone=alone):
            self._broken("logout undone: write", now, story, f"ended at {story.end_acked:.3f}, write at {start:.3f}")
