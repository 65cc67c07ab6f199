"""When a node looks after the owners of its sessions: repair when members come or go. Driven by the node and the simulation."""

from __future__ import annotations

from typing import Final

from ..core.effects import Operation
from ..core.operations import Cluster
from ..core.repair import Progress, Surroundings, repair
from .keeper import Keeper

RETRY_S: Final = 1.0
ROUND_EVERY_S: Final = 60.0
REPAIR_SHARE: Final = 0.5  # of the node's time; its peers' requests get the other half


class Duty:
    """Repair and drain of one node, pass by pass; `debt` says how far it is."""

    def __init__(self, keeper: Keeper, *, min_copies: int = 1, zone: str = "") -> None:
        self.keeper, self.progress = keeper, Progress()
        self._min_copies, self._zone = min_copies, zone
        self._seen: object = None  # who was in which state before the last pass that is over
        self._looked_at: object = None  # the same of the pass that began last
        self._again_at = 0.0
        self._at = Surroundings(
            cluster=self._cluster,
            survey=keeper.host.survey,
            clock=keeper.host.clock,
            leaving=lambda: keeper.leaving,
            share=lambda: 1.0 if keeper.leaving else REPAIR_SHARE,
        )

    def _cluster(self) -> Cluster:
        return Cluster(self.keeper.view(), self._min_copies, self._zone)

    def leave(self) -> None:
        """From now on this node takes nothing new, and owes all it has."""
        self.progress.owed = None
        self.keeper.leave()

    @property
    def debt(self) -> int | None:
        """Sessions that still need this node for their second copy; None while that is not known: before the first survey, and
        when a member has come or gone since."""
        known = self.keeper.leaving or self.keeper.states() == self._looked_at
        return self.progress.owed if known else None

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
        return self.keeper.states() != self._seen or self.keeper.host.clock() >= self._again_at

    def done_once(self) -> Operation[bool]:
        """One pass over all sessions. Whether nothing is owed any more."""
        states = self.keeper.states()
        if states != self._looked_at and not self.keeper.leaving:
            self.progress.owed = None
        self._looked_at, began = states, self.keeper.host.clock()
        complete = yield from repair(self._at, self.progress)
        self.keeper.surveyed(self.progress.shared, began)
        self._seen, self._again_at = states, self.keeper.host.clock() + (ROUND_EVERY_S if complete else RETRY_S)
        return complete
