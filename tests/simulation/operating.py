"""Users whose requests also count, collect, compare and lock, on any host and often two at a time."""

from __future__ import annotations

import random
from typing import Any, Final, NamedTuple

from clustersession.core.operations import Saved
from clustersession.runtime.session import RequestSession
from clustersession.testing.running import Run
from clustersession.testing.simulated import SimulatedNode

from .apps import Apps, Lock, Outcome, Refused, Request, begun, done_at_once, saved
from .checker import Story
from .tallies import ALONE, BASE, HELD, LOG, SAME, SET, SUM, Entry
from .workload import Cookie, Stranded, User

ANYBODY_BELOW: Final = 0.15  # such clicks end, rotate or replay a session, as those of every user
OF_CLICKS: Final = 0.1  # of the others: so many are one of these
CHANCES: Final = {SUM: 0.3, LOG: 0.27, SET: 0.25, SAME: 0.1, HELD: 0.08}
COUNTED: Final = {SUM: "increments", LOG: "appends", SET: "set changes", SAME: "compared writes", HELD: "locked writes"}
IN_A_QUEUE: Final = (2, 2, 3)  # requests that want the lock at one time
LEASES_S: Final = (0.3, 2.0)
WORK_S_MAX: Final = 0.5  # may be longer than the lease
WAIT_S: Final = 1.0  # with the work, shorter than it takes to give a host up
BOTH_SIDES: Final = 0.3  # of what is counted at a host that is alone: so much is counted elsewhere too


class Click(NamedTuple):
    """One request, and what it is to leave in the session."""

    kind: str
    key: str
    entry: Entry
    node: SimulatedNode
    cookie: Cookie
    story: Story
    start: float
    before: float  # when the request before this one was sent


class Operating(User):
    """Draws what is special about it from a stream of its own."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._chance = random.Random(f"{self.world.seed} {self.number}")
        self._apps = Apps(self._chance)

    def stranded(self, hosts: list[SimulatedNode], number: int) -> Stranded:
        return StrandedOperating(self, hosts, number)

    def _act(self, chance: float) -> None:
        there = self.cookie is not None and chance >= ANYBODY_BELOW
        if there and self._chance.random() < OF_CLICKS:
            self._operate()
        else:
            super()._act(chance)

    def _operate(self) -> None:
        kind = self._chance.choices(list(CHANCES), list(CHANCES.values()))[0]
        key = self._key_of(kind)
        for _ in range(self._chance.choice(IN_A_QUEUE) if kind == HELD else 1):
            node = self._a_host()
            if node is None or self.cookie is None or self.story is None:
                continue
            start, story = self.world.now, self.story
            leaving = self._leaving(story, key) if kind == SET else None
            if leaving is None:
                name, parting = self._next().decode(), self.checker.parting
                entry = story.tally(key).sent(name, start, parting, alone=self.alone)
            else:
                entry = leaving
                story.tally(key).leaves(entry, start)
            click = Click(kind, key, entry, node, self.cookie, story, start, story.sent(start))
            if kind == HELD:
                self._ask_for_the_lock(click)
            else:
                self._at_once(click, discards=leaving is not None)

    def _key_of(self, kind: str) -> str:
        """What is written whole or discarded is only the same for both sides in the end if one of them alone does it."""
        shared = kind in (SUM, LOG) and self._chance.random() < BOTH_SIDES
        return ALONE + kind if self.alone and not shared else kind

    def _leaving(self, story: Story, key: str) -> Entry | None:
        """What was added some time ago, half of the times."""
        there = [entry for entry in story.tally(key).acked.values() if entry.left is None and not entry.shown]
        return self._chance.choice(there) if there and self._chance.random() < 0.5 else None

    # --- requests that take no time ------------------------------------------------------------------------------------------

    def _at_once(self, click: Click, *, discards: bool) -> None:
        key, entry = click.key, click.entry

        def work(session: RequestSession) -> None:
            if discards:
                session.discard(key, entry.name)
            elif click.kind == SUM:
                session.incr(key, BASE**entry.number)
            elif click.kind == LOG:
                session.append(key, entry.name)
            elif click.kind == SET:
                session.add(key, entry.name)
            else:
                session.expect(key, session[key]) if key in session else session.expect(key)
                _lengthen(session, key, entry)

        def done(outcome: Outcome) -> None:
            self._outcome(click, outcome, discards=discards)

        click.node.run(done_at_once(self._apps.at(click.node), click.cookie.target(click.start), work), done)

    def _outcome(self, click: Click, outcome: Outcome, *, discards: bool = False) -> None:
        node, story, entry, now = click.node, click.story, click.entry, self.world.now
        if not self._answered(click.start, node):
            return
        match outcome:
            case Refused():
                self.world.counts[f"refused: {outcome.why}"] += 1
                self._tell(story, node, f"{click.key} {entry.name} refused, {outcome.why}")
                entry.refused = outcome.why
            case Saved():
                self.world.counts[COUNTED[click.kind]] += 1
                self.checker.late_write(story, click.start, now, alone=self.alone)
                self.checker.in_use(story, click.before, click.start, now)
                story.used(click.start)
                if discards:
                    entry.out = now
                else:
                    self.checker.operated(story, click.key, entry, now)
                self._tell(story, node, f"{click.key} {'without' if discards else 'with'} {entry.name} acked")
                self._follow(click.cookie, outcome.placement, outcome.version)
            case _:
                self._loaded(node, outcome, click.cookie, story, click.start)

    # --- requests under a lock -----------------------------------------------------------------------------------------------

    def _ask_for_the_lock(self, click: Click) -> None:
        node, world = click.node, self.world
        lock = Lock(click.key, self._chance.choice(LEASES_S), WAIT_S)
        work_s = self._chance.uniform(0.0, WORK_S_MAX)

        def has_it(request: Request | Outcome) -> None:
            if not isinstance(request, Request):
                self._outcome(click, request)
                return
            if world.trace is not None:
                self._tell(click.story, node, f"{click.key} {click.entry.name} has the lock for {lock.lease_s:g} s")
            _lengthen(request.session, click.key, click.entry)
            world.at(work_s, lambda: self._save(click, request), node)

        operation = begun(self._apps.at(node), click.cookie.target(click.start), lock)
        Run(node, operation, has_it, world.now + WAIT_S + world.timeouts.budget_s).resume(None)

    def _save(self, click: Click, request: Request) -> None:
        if click.node.name in self.avoids:
            return  # that host is apart by now, and this request was meant for the others
        click.node.run(saved(self._apps.at(click.node), request), lambda outcome: self._outcome(click, outcome))


class StrandedOperating(Operating, Stranded):
    """The same at a host that reaches no other one."""


def _lengthen(session: RequestSession, key: str, entry: Entry) -> None:
    """A list is written that is made of the one that was read."""
    read: list[str] = session.get(key) or []
    entry.read = frozenset(read)
    session[key] = [*read, entry.name]
