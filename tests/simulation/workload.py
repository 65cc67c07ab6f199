"""Users of a simulated cluster: each has a jar with one cookie, clicks on any host, and replays old cookies."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from clustersession.core.effects import Operation
from clustersession.core.operations import (
    Cluster,
    Ended,
    EndedBy,
    Loaded,
    Lost,
    Placement,
    Rotated,
    Saved,
    Target,
    create,
    end,
    load,
    new_record,
    rotate,
    save,
    touch,
)
from clustersession.core.record import Lifetime, Owners, Patch, live_items, touch_interval
from clustersession.testing.simulated import SimulatedNode, World

from .checker import CLIENT_WAITS_S, Checker, Story, Write
from .tallies import in_words

KEYS = ("a", "b", "c")
NUMBERS = 1000  # so many users at most; those at a host that is alone have higher numbers
IDLE_S = 3600.0
WRITE_BELOW = 0.55  # of the clicks that do not end, rotate or replay a session: the rest are reads
SHORT_IDLE_S = 6.0  # shorter than some faults last

BEYOND: Final = "lost, both owners beyond"


class Cookie(NamedTuple):
    """What the signed ID carries."""

    key: bytes
    owners: Owners
    floor: tuple[int, int]
    born: float

    def target(self, now: float) -> Target:
        master, backup = self.owners
        return Target(self.key, master, backup, backup is None, self.floor, now - self.born)


class User:
    """One browser. One operation at a time mostly, two now and then; where sessions are not used for `idle_s` in a run, they
    end, and now and then the user is away for so long."""

    keys: tuple[str, ...] = KEYS
    alone = False
    principals = ("u", "u2")  # at the login, and after a rotation

    def __init__(
        self, world: World, checker: Checker, number: int, idle_s: float = IDLE_S, write_below: float = WRITE_BELOW
    ) -> None:
        self.world, self.checker, self.number, self.idle_s = world, checker, number, idle_s
        self.cookie: Cookie | None = None
        self.story: Story | None = None
        self.old: list[tuple[Cookie, Story]] = []
        self.stories: list[Story] = []
        self._count = 0
        self._write_below = write_below
        self.avoids: frozenset[str] = frozenset()  # hosts that the others don't reach
        self._restless = 1.0 if idle_s == IDLE_S else 0.1  # sessions must live long enough to be idle
        self.stopped = False
        world.at(world.random.uniform(0.5, 1.5), self._click)

    def _click(self) -> None:
        if self.stopped:
            return
        choose = self.world.random.random
        away = self.idle_s * self.world.random.uniform(1.0, 2.0) if self.idle_s < IDLE_S and choose() < 0.004 else 0.0
        self.world.at(away + self.world.random.uniform(0.1, 0.4), self._click)
        for _ in range(2 if choose() < 0.3 else 1):
            self._act(choose())

    def _act(self, chance: float) -> None:
        node = self._a_host()
        if node is None:
            return
        if self.cookie is None or self.story is None:
            self._log_in_anew(node)
        elif chance < 0.03 * self._restless:
            self._log_out(node, self.cookie, self.story)
        elif chance < 0.06 * self._restless and not self.avoids:
            self._rotate(node, self.cookie, self.story)
        elif chance < 0.15 and self.old:
            self._replay(node)
        elif chance < self._write_below:
            self._write(node, self.cookie, self.story)
        else:
            self.read(node, self.cookie, self.story)

    def _a_host(self) -> SimulatedNode | None:
        """Any host that a balancer would send to: it is up, and only seldom is one that is paused not noticed."""
        silent, avoided, chance = self.world.network.silent, self.avoids, self.world.random
        up = [n for n in self.world.nodes.values() if n.up and n.name not in silent and n.name not in avoided]
        hosts = [n for n in up if not n.unready and (not n.paused or chance.random() < 0.15)]
        return chance.choice(hosts) if hosts else None

    def stranded(self, hosts: list[SimulatedNode], number: int) -> Stranded:
        """Somebody with the same cookie, at hosts that the others don't reach."""
        return Stranded(self, hosts, number)

    def _next(self) -> bytes:
        self._count += 1
        return b"%d-%d" % (self.number, self._count)

    def _answered(self, start: float, node: SimulatedNode) -> bool:
        """Whether the answer reaches the browser, and it still waits."""
        if node.name in self.world.network.silent:
            self.world.counts["answer lost"] += 1
            return False
        if self.world.now - start > CLIENT_WAITS_S:
            self.world.counts["client gave up"] += 1
            return False
        return True

    def _both_beyond(self, key: bytes, start: float) -> bool:
        """Both owners are on the other side. To one side that is at least half of the cluster they count as dead."""
        if not self.checker.parting.is_parted(start):
            return False
        here = self._side()
        records = {name: node.host.record(key) for name, node in self.world.nodes.items() if node.up}
        holders = {name for name, record in records.items() if record is not None and not record.pointer}
        return 2 * len(here) >= len(self.world.nodes) and len(holders) > 1 and not holders & here

    def _side(self) -> set[str]:
        """The hosts that the user reaches."""
        return self.world.nodes.keys() - self.avoids

    def _tell(self, story: Story, node: SimulatedNode, what: str) -> None:
        self.world.log(f"[{story.name}] {what}, at {node.name}")

    # --- what a request does -----------------------------------------------------------------------------------------------

    def _log_in_anew(self, node: SimulatedNode) -> None:
        value, start = self._next(), self.world.now
        key = value.ljust(16, b".")
        story = Story(f"user {self.number} session {self._count}", key, idle_s=self.idle_s)
        write = story.writes[value] = Write(value, "a", start)

        def done(outcome: Any) -> None:
            if isinstance(outcome, Saved) and self._answered(start, node) and self.cookie is None:
                self.world.counts["logins"] += 1
                story.wrote(write, self.world.now)
                story.sent(start)
                story.used(start)
                self._take(Cookie(key, outcome.placement.owners, (outcome.placement.epoch, 1), start), story)

        node.run(_created(node, key, self._patch(write), self.idle_s, self.principals[0]), done)

    def _take(self, cookie: Cookie, story: Story) -> None:
        self.cookie, self.story = cookie, story
        self.stories.append(story)

    def _patch(self, write: Write) -> Patch:
        return Patch(self.world.random.randbytes(8), {write.key: write.value})

    def read(self, node: SimulatedNode, cookie: Cookie, story: Story) -> None:
        start = self.world.now
        before = story.sent(start)

        def done(outcome: Any) -> None:
            if isinstance(outcome, Loaded) and not outcome.superseded:
                self.checker.in_use(story, before, start, self.world.now)
                if node.clock() - outcome.record.last_seen >= touch_interval(self.idle_s):
                    story.sent(self.world.now)  # a host that was paused meanwhile has the request under way until now
                    node.run(touch(_cluster(node), cookie.key, outcome.placement), lambda _: None)
            if self._answered(start, node):
                self._loaded(node, outcome, cookie, story, start)

        node.run(load(_cluster(node), cookie.target(start)), done)

    def _loaded(self, node: SimulatedNode, outcome: Any, cookie: Cookie, story: Story, start: float) -> None:
        match outcome:
            case Loaded():
                self.world.counts["reads"] += 1
                items = live_items(outcome.record)
                if self.world.trace is not None:
                    self._tell(story, node, f"read {_shown(items)}")
                self.checker.read(story, items, start, self.world.now, alone=self.alone)
                story.used(start)
                self._follow(cookie, outcome.placement, outcome.record.version)
            case Ended() | Lost():
                self._tell(story, node, f"answered {outcome}")
                if isinstance(outcome, Lost) and self._both_beyond(cookie.key, start):
                    self.world.counts[BEYOND] += 1
                else:
                    self.checker.not_there(story, repr(outcome), start, self.world.now)
                if self.cookie is not None and self.cookie.key == cookie.key:
                    self.cookie = self.story = None
            case _:
                self.world.counts["unavailable"] += 1

    def _follow(self, cookie: Cookie, placement: Placement, version: int) -> None:
        """A Set-Cookie comes only when the owners changed."""
        current = self.cookie
        if current is not None and current.key == cookie.key and placement.owners != cookie.owners:
            self.cookie = Cookie(cookie.key, placement.owners, (placement.epoch, version), cookie.born)

    def _write(self, node: SimulatedNode, cookie: Cookie, story: Story) -> None:
        value, start = self._next(), self.world.now
        write = story.writes[value] = Write(value, self.world.random.choice(self.keys), start, alone=self.alone)
        before = story.sent(start)

        def done(outcome: Any) -> None:
            if not self._answered(start, node):
                return
            if isinstance(outcome, Saved):
                self.world.counts["writes"] += 1
                self.checker.late_write(story, start, self.world.now, alone=self.alone)
                self.checker.in_use(story, before, start, self.world.now)
                story.used(start)
                story.wrote(write, self.world.now)
                if self.world.trace is not None:
                    self._tell(story, node, f"write {write.key}={value.decode()} acked")
                self._follow(cookie, outcome.placement, outcome.version)
            else:
                self._loaded(node, outcome, cookie, story, start)

        node.run(_written(node, cookie.target(start), self._patch(write)), done)

    def _log_out(self, node: SimulatedNode, cookie: Cookie, story: Story) -> None:
        start = self.world.now
        story.end_started = start
        self.cookie = self.story = None
        self.old.append((cookie, story))

        def done(outcome: Any) -> None:
            if isinstance(outcome, EndedBy | Ended) and self._answered(start, node):
                self.world.counts["logouts"] += 1
                self._tell(story, node, "logout acked")
                story.end_acked = story.end_acked or self.world.now

        node.run(_ended(node, cookie.target(start)), done)

    def _rotate(self, node: SimulatedNode, cookie: Cookie, story: Story) -> None:
        value, start = self._next(), self.world.now
        key = value.ljust(16, b".")
        new = Story(f"user {self.number} session {self._count} (rotated)", key, idle_s=self.idle_s)
        write = new.writes[value] = Write(value, "a", start)
        story.end_started = start
        self.cookie = self.story = None
        self.old.append((cookie, story))

        def done(outcome: Any) -> None:
            if isinstance(outcome, Rotated) and self._answered(start, node):
                self.world.counts["rotations"] += 1
                self._tell(story, node, "rotation acked")
                story.end_acked = self.world.now
                story.rotated_to(new)
                new.wrote(write, self.world.now)
                new.sent(start)
                new.used(start)
                if self.cookie is None:
                    placement = outcome.saved.placement
                    self._take(Cookie(key, placement.owners, (placement.epoch, 1), start), new)

        node.run(_rotated(node, cookie.target(start), key, self._patch(write), self.principals[1]), done)

    def _replay(self, node: SimulatedNode) -> None:
        """An attacker with a cookie of a session that was logged out or rotated: reads, and writes now and then."""
        cookie, story = self.world.random.choice(self.old[-6:])
        self.world.counts["replays"] += 1
        if self.world.random.random() < 0.4:
            self._write(node, cookie, story)
        else:
            self.read(node, cookie, story)


class Stranded(User):
    """The same browser, or another one with the same cookie, at hosts that reach no others. What it writes there is written
    nowhere else, so that everything can be seen when the histories have met."""

    keys = ("d",)
    alone = True

    def __init__(self, user: User, hosts: list[SimulatedNode], number: int) -> None:
        super().__init__(user.world, user.checker, number, user.idle_s)
        self.cookie, self.story, self._hosts = user.cookie, user.story, hosts

    def _a_host(self) -> SimulatedNode | None:
        up = [host for host in self._hosts if host.up]
        return self.world.random.choice(up) if len(up) > 1 else up[0] if up else None

    def _side(self) -> set[str]:
        return {host.name for host in self._hosts}

    def _act(self, chance: float) -> None:
        host = self._a_host()
        if host is None or self.cookie is None or self.story is None:
            return
        if chance < 0.5:
            self._write(host, self.cookie, self.story)
        else:
            self.read(host, self.cookie, self.story)


class Sleeper(User):
    """Somebody who logs in and closes the laptop: only repair looks after the session."""

    def _click(self) -> None:
        if self.cookie is None and not self.stopped:
            node = self._a_host()
            self.world.at(CLIENT_WAITS_S, self._click)
            if node is not None:
                self._log_in_anew(node)


def _shown(items: dict[str, bytes]) -> str:
    return " ".join(f"{key}={in_words(key, value)}" for key, value in sorted(items.items())) or "nothing"


def _cluster(node: SimulatedNode) -> Cluster:
    return Cluster(node.host.view)


def _created(node: SimulatedNode, key: bytes, patch: Patch, idle_s: float, principal: str) -> Operation[Any]:
    cluster = _cluster(node)
    record = new_record(
        cluster, key, now=node.clock(), patch=patch, principal=principal, auth_time=None, lifetime=Lifetime(idle=idle_s)
    )
    return create(cluster, key, record)


def _written(node: SimulatedNode, target: Target, patch: Patch) -> Operation[Any]:
    loaded = yield from load(_cluster(node), target)
    if not isinstance(loaded, Loaded) or loaded.superseded:
        return loaded
    return (yield from save(_cluster(node), target.key, loaded.placement, patch))


def _ended(node: SimulatedNode, target: Target) -> Operation[Any]:
    loaded = yield from load(_cluster(node), target)
    if not isinstance(loaded, Loaded):
        return loaded
    return (yield from end(_cluster(node), target.key, loaded.placement, "logout"))


def _rotated(node: SimulatedNode, target: Target, key: bytes, patch: Patch, principal: str) -> Operation[Any]:
    loaded = yield from load(_cluster(node), target)
    if not isinstance(loaded, Loaded):
        return loaded
    return (
        yield from rotate(
            _cluster(node),
            target.key,
            loaded.placement,
            key,
            patch,
            now=node.clock(),
            principal=principal,
            auth_time=None,
            grace=None,
        )
    )
