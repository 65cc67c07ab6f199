"""Keeps the history of the host's counters, minute by minute, on its blackboard: a node that starts again goes on with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

import msgspec

from ..core.history import History, noted
from ..core.reasons import REASONS
from ..errors import ClusterSessionError
from ..ports import Store
from ..runtime.counters import Counters

NAME: Final = "history"
LOOK_EVERY_S: Final = 5.0
log: Final = logging.getLogger("clustersession.node")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(History).decode


class Chronicle:
    """Of one host. Only its node process writes it. `clock`: the host's."""

    def __init__(self, store: Store, counters: Counters, clock: Callable[[], float]) -> None:
        self._store, self._counters, self._clock = store, counters, clock

    async def run(self) -> None:
        """Until cancelled. A board that cannot be written at the moment costs a look, no count."""
        while True:
            try:
                self._store.set_board(NAME, _encode(self.up_to_now()))
            except ClusterSessionError as error:
                log.debug("the history of the counters was not kept: %s", error)
            await asyncio.sleep(LOOK_EVERY_S)

    def up_to_now(self) -> History:
        """The history with all that was handed in so far, and what this process has counted. Raises what the store raises."""
        self._counters.hand_in(self._store)
        return noted(self._kept(), self._store.counts(), int(self._clock() // 60))

    def refused(self) -> dict[str, Any]:
        """For /status: how many requests each reason has refused, and how many sessions and young ones in the last hour."""
        history, totals = self.up_to_now(), self._store.counts()
        return {
            code: {
                "requests": totals[f"refused_{code}"],
                "sessions_last_hour": sum(history.counts.get(f"refused_session_{code}", ())),
                "young_last_hour": sum(history.counts.get(f"refused_young_{code}", ())),
            }
            for code in REASONS
            if f"refused_{code}" in totals
        }

    def _kept(self) -> History | None:
        data = self._store.board(NAME)
        try:
            return None if data is None else _decode(data)
        except msgspec.DecodeError:
            return None  # of another release
