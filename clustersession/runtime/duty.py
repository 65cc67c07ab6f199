"""When a node looks after the owners of its sessions: repair when members come or go, and a comparison with who has started
again, as it may have lost its files. Driven by the node and the simulation.
"""

from __future__ import annotations

from typing import Final

from ..core.effects import Operation, Pace
from ..core.operations import Cluster
from ..core.repair import Progress, Surroundings, doubled, repair, spread
from .keeper import Keeper
from .singles import singles, unmark

RETRY_S: Final = 1.0
SINGLE_AT_ONCE: Final = 256
ROUND_EVERY_S: Final = 60.0
REPAIR_SHARE: Final = 0.5  # of the node's time; its peers' requests get the other half


class Duty:
    """Repair and drain of one node, pass by pass; `debt` says how far it is."""

    def __init__(self, keeper: Keeper, *, min_copies: int = 1) -> None:
        self.keeper, self.progress = keeper, Progress()
        self._min_copies = min_copies
        self._seen: object = None  # who was in which state before the last pass that is over
        self._looked_at: object = None  # the same of the pass that began last
        self._again_at = self._singles_again_at = 0.0
        self._starts: dict[str, int] = {}  # the others' incarnations with which all shared sessions are compared
        self._tried: dict[str, int] = {}  # those of the last pass, complete or not
        self._at = Surroundings(
            cluster=self._cluster,
            survey=keeper.host.survey,
            leaving=lambda: keeper.leaving,
            pace=Pace(keeper.host.clock, lambda: 1.0 if keeper.leaving else REPAIR_SHARE),
        )

    def _cluster(self) -> Cluster:
        return Cluster(self.keeper.view(), self._min_copies)

    def leave(self) -> None:
        """From now on this node takes nothing new, and owes all it has."""
        self.progress.owed = None
        self.keeper.leave()

    @property
    def debt(self) -> int | None:
        """Sessions that still need this node for their second copy; None while that is not known: before the first survey, and
        when a member has come or gone since."""
        known = self.keeper.leaving or self.keeper.states() == self._looked_at
        if self.progress.owed is None or not known or self._started_again():
            return None
        single = singles(self.keeper.host, SINGLE_AT_ONCE) if self.keeper.has_successor else []
        return max(self.progress.owed, len(single))

    def _started_again(self) -> dict[str, int]:
        """The incarnations of others that are newer than when their copies were last compared with those here. A host that comes
        back without its files before it counts as dead is never missed; only its fellow owners can fill it again.
        """
        found = [entry.member for entry in self.keeper.table.others.values() if entry.member.reachable]
        known = self._starts
        return {m.identity: m.incarnation for m in found if m.incarnation > known.setdefault(m.identity, m.incarnation)}

    @property
    def due(self) -> bool:
        """Whether to look through all sessions now: at once when a member has come or gone that matters to them, else
        once a minute."""
        if self.keeper.leaving:
            return False
        if not self.keeper.may_repair:
            # what was seen before says nothing of later: a host that was alone has made sessions single-owner meanwhile
            self._seen = self._looked_at = None
            return False
        return self._pass_due or self._singles_due

    @property
    def _pass_due(self) -> bool:
        if self.keeper.host.clock() >= self._again_at or self.keeper.states() != self._seen:
            return True
        started = self._started_again()
        return bool(started) and not started.items() <= self._tried.items()

    @property
    def _singles_due(self) -> bool:
        """Sessions became single since, and somebody could take a copy of them."""
        if self.keeper.host.clock() < self._singles_again_at or not self.keeper.has_successor:
            return False
        return bool(singles(self.keeper.host, 1))

    def done_once(self) -> Operation[bool]:
        """One pass over all sessions, or over those that became single since. Whether nothing is owed any more."""
        if self.keeper.leaving or self._pass_due:
            return (yield from self._whole_pass())
        return (yield from self._singles_doubled())

    def _singles_doubled(self) -> Operation[bool]:
        host = self.keeper.host
        keys = singles(host, SINGLE_AT_ONCE)
        yield from doubled(self._at, keys)
        done = sum(unmark(host, key) for key in keys)
        self.progress.moved += done
        if not done:
            self._singles_again_at = host.clock() + RETRY_S
        return done == len(keys)

    def _whole_pass(self) -> Operation[bool]:
        states = self.keeper.states()
        if states != self._looked_at and not self.keeper.leaving:
            self.progress.owed = None
        self._looked_at, began = states, self.keeper.host.clock()
        alike = yield from self._compared()
        complete = (yield from repair(self._at, self.progress)) and alike
        if complete and not self.keeper.leaving:
            yield from spread(self._at, self.progress)
        self.keeper.surveyed(self.progress.shared, began)
        self._seen, self._again_at = states, self.keeper.host.clock() + (ROUND_EVERY_S if complete else RETRY_S)
        return complete

    def _compared(self) -> Operation[bool]:
        """Whether nobody who has started again is left that may hold less than it should."""
        started = self._started_again()
        self._tried = started
        if not started:
            return True
        alike = yield from self.keeper.sync(self._at.pace)
        if alike:
            self._starts |= started
        return alike
