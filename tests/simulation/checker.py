"""The outside checker: it sees only what clients saw, and knows what must never be seen.

Rules (an operation that got no clear answer may have happened or not, then or later):
(a) a read shows, per key, nothing older than the last write acked more than a lease before the read began;
(b) after an acked logout or rotation no read finds the session, and no write to it is acked;
(c) no read shows a value of another session;
(d) a session that nobody ended, and that was used within its idle time, is never answered as ended or lost;
(e) a session that nobody used for longer than that is not there any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from clustersession.core.record import touch_interval

LEASE_S = 2.0  # a copy that nobody could reach may be stale for so long


@dataclass
class Write:
    """One value, when it was sent, and when its ack arrived (None: never)."""

    value: bytes
    key: str
    start: float
    acked: float | None = None


@dataclass
class Story:
    """One session as its client knows it."""

    name: str
    writes: dict[bytes, Write] = field(default_factory=dict)
    acked: dict[str, list[Write]] = field(default_factory=dict)
    end_started: float | None = None
    end_acked: float | None = None
    excused: bool = False  # every copy with its last acked state was lost with the files of crashed hosts
    successor: Story | None = None  # the session that a rotation made of it
    idle_s: float = 3600.0
    last_sent: float = 0.0  # when the last request for it was sent, and the last one that got a good answer
    last_used: float = 0.0

    def sent(self, now: float) -> float:
        """When the request before this one was sent."""
        before, self.last_sent = self.last_sent, now
        return before

    def used(self, start: float) -> None:
        self.last_used = max(self.last_used, start)

    def wrote(self, write: Write, now: float) -> None:
        write.acked = now
        self.acked.setdefault(write.key, []).append(write)
        if self.successor is not None:
            self.successor.wrote(write, now)

    def rotated_to(self, new: Story) -> None:
        """What was acked until now, and what is still acked for a request that began before, is in the new session."""
        new.writes |= self.writes
        new.acked = {key: list(writes) for key, writes in self.acked.items()}
        new.excused = self.excused
        self.successor = new


@dataclass(frozen=True)
class Violation:
    """What rule was broken, when, by which session."""

    rule: str
    at: float
    session: str
    detail: str


class Checker:
    """Collects violations. `faulty`: whether a fault is or was just active, so that the lease's slack applies."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.checked_reads = 0

    def _broken(self, rule: str, at: float, story: Story, detail: str) -> None:
        if not story.excused:
            self.violations.append(Violation(rule, at, story.name, detail))

    def read(self, story: Story, items: dict[str, bytes], start: float, now: float) -> None:
        """A read that began at `start` showed `items`."""
        self.checked_reads += 1
        if story.end_acked is not None and start > story.end_acked + LEASE_S:
            self._broken("logout undone: read", now, story, f"ended at {story.end_acked:.3f}, read at {start:.3f}")
        for key in set(items) | set(story.acked):
            self._value(story, key, items.get(key), start, now)

    def _value(self, story: Story, key: str, value: bytes | None, start: float, now: float) -> None:
        seen = None if value is None else story.writes.get(value)
        if value is not None and seen is None:
            self._broken("foreign value", now, story, f"{key}={value!r}")
            return
        for write in story.acked.get(key, ()):
            assert write.acked is not None
            if write.acked + LEASE_S >= start or write is seen:
                continue
            # the seen value is older for certain if it was acked before the acked one was even sent, or if nothing is seen
            if seen is None or (seen.acked is not None and seen.acked < write.start):
                got = "nothing" if seen is None else f"{seen.value!r} (acked {seen.acked:.3f})"
                self._broken("lost write", now, story, f"{key}: got {got}, {write.value!r} was acked at {write.acked:.3f}")
                return

    def in_use(self, story: Story, before: float, start: float, now: float) -> None:
        """A request sent at `start`, the one before at `before`, found the session."""
        if start - before > story.idle_s + touch_interval(story.idle_s) + LEASE_S:
            self._broken("read after its idle time", now, story, f"used at {before:.3f}, read at {start:.3f}")

    def not_there(self, story: Story, answer: str, start: float, now: float) -> None:
        """The session was answered as ended or lost."""
        if story.end_started is None and start - story.last_used < story.idle_s:
            self._broken("session lost", now, story, answer)

    def late_write(self, story: Story, start: float, now: float) -> None:
        """A write that began at `start` was acked."""
        if story.end_acked is not None and start > story.end_acked + LEASE_S:
            self._broken("logout undone: write", now, story, f"ended at {story.end_acked:.3f}, write at {start:.3f}")
