"""The sealer of the ring as it is now."""

from __future__ import annotations

from collections.abc import Callable

from ..core.keyring import KeyRing
from ..core.sealing import Sealer


class CurrentSealer:
    """Makes a new `Sealer` when the ring has changed; otherwise one comparison."""

    def __init__(self, ring: Callable[[], KeyRing], cluster: str) -> None:
        self._source, self._cluster = ring, cluster
        self._ring = ring()
        self._sealer = Sealer(self._ring, cluster)

    def __call__(self) -> Sealer:
        ring = self._source()
        if ring is not self._ring:
            self._sealer = Sealer(ring, self._cluster)
            self._ring = ring
        return self._sealer
