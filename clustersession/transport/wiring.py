"""What every end of a connection between nodes is given, and how it reports."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..config import Limits, Timeouts, TlsConfig
from ..core.handshake import Party
from ..core.keyring import KeyRing
from ..core.node import Member
from ..ports import Entropy, Observer

LOG_INTERVAL_S: Final = 10.0
_SUBJECTS_MAX: Final = 256
_DETAIL_LENGTH_MAX: Final = 300

_log = logging.getLogger("clustersession.peers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wiring:
    """Who this node is and the bounds it keeps to, the same for its clients and its server.

    `me` and `ring` are asked whenever a connection opens, so that both may change. `clock` gives the seconds that `Clock.now`
    promises; only ages are ever derived from it. `release` is told to peers that proved to belong to the cluster.
    """

    me: Callable[[], Member]
    ring: Callable[[], KeyRing]
    cluster: str
    limits: Limits
    timeouts: Timeouts
    clock: Callable[[], float]
    entropy: Entropy
    observer: Observer
    tls: TlsConfig | None = None
    release: str = "0"

    def party(self) -> Party:
        me = self.me()
        return Party(me.identity, me.incarnation, self.cluster, self.release)


class Report:
    """Counts each event and logs it, at most one line per event and subject in `LOG_INTERVAL_S`: hostile peers write no logs."""

    def __init__(self, wiring: Wiring) -> None:
        self._observer, self._clock = wiring.observer, wiring.clock
        self._logged: dict[tuple[str, str], float] = {}

    def warn(self, event: str, subject: str, detail: object) -> None:
        """`subject`: which peer or address. `detail` is shown as a repr, so that nothing in it forges a line."""
        self._observer.count(event)
        now, about = self._clock(), (event, subject)
        if now - self._logged.get(about, -LOG_INTERVAL_S) < LOG_INTERVAL_S:
            return
        if len(self._logged) >= _SUBJECTS_MAX:
            self._logged.clear()
        self._logged[about] = now
        _log.warning("%s: %r: %r", event, subject, str(detail)[:_DETAIL_LENGTH_MAX])
