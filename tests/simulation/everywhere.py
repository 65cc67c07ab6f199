"""Users who log out everywhere: whatever of them is open on any host ends, whoever reaches whom."""

from __future__ import annotations

from typing import Any

from clustersession.core.bars import Bar
from clustersession.core.operations import Cluster, EndedAll, end_all
from clustersession.testing.simulated import SimulatedNode

from .checker import CLIENT_WAITS_S, Story
from .workload import Cookie, User

SETTLED_S = 3.0  # the order is on its way so long at most: who logs in meanwhile may be logged out by it


class Everywhere(User):
    """Has several sessions at a time: a login begins another one, and the one before stays open. A logout is one of all."""

    _quiet_until = 0.0

    @property
    def principals(self) -> tuple[str, str]:  # type: ignore[override]
        name = f"user {self.number}"
        return name, name

    def _act(self, chance: float) -> None:
        if self.world.now < self._quiet_until:
            node = self._a_host()
            if node is not None and self.old:
                self._replay(node)
        elif self.cookie is not None and self.story is not None and 0.06 <= chance < 0.1:
            self._open.append((self.cookie, self.story))
            self.cookie = self.story = None
        elif self._open and 0.1 <= chance < 0.25:
            node = self._a_host()
            if node is not None:
                self.read(node, *self.world.random.choice(self._open))
        else:
            super()._act(chance)

    def __init__(self, *args: Any, **more: Any) -> None:
        self._open: list[tuple[Cookie, Story]] = []
        super().__init__(*args, **more)

    def _take(self, cookie: Cookie, story: Story) -> None:
        """The answer of a login that was under way when all was ended: it may have been one of them."""
        if self.world.now < self._quiet_until:
            story.end_started = self.world.now
        super()._take(cookie, story)

    def _log_out(self, node: SimulatedNode, cookie: Cookie, story: Story) -> None:
        start = self.world.now
        over = [(cookie, story), *self._open]
        for _, each in over:
            each.end_started = start
        self.old += over
        self._open, self.cookie, self.story = [], None, None
        self._quiet_until = start + CLIENT_WAITS_S + SETTLED_S

        def done(outcome: Any) -> None:
            self._quiet_until = self.world.now + SETTLED_S
            if isinstance(outcome, EndedAll) and self._answered(start, node):
                self.world.counts["logouts"] += 1
                self.world.counts["ended everywhere"] += len(over)
                self.world.counts["with a silent node"] += bool(outcome.silent)
                for _, each in self.old:
                    each.end_acked = each.end_acked or self.world.now

        host = node.host
        bar = Bar(self.world.random.randbytes(8), host.bars.labels(self.principals[0]), host.clock())
        node.run(end_all(Cluster(host.view), bar), done)
