"""The mode that the cluster has been switched to, as this host has heard of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..config import Config
from ..core.keyring import KeyRing
from ..core.switch import Switch, kid_of, signed, verified
from ..ports import Store

NAME: Final = "mode"


class ModeSwitch:
    """On the board of the host, so that its workers follow without a restart: a look at it costs a microsecond."""

    def __init__(self, store: Store, ring: Callable[[], KeyRing], cluster: str) -> None:
        self._store, self._ring, self._cluster = store, ring, cluster
        self._seen: bytes | None = None
        self._switch: Switch | None = None

    @property
    def statement(self) -> bytes:
        """What goes to peers; b"" as long as nothing was ever switched. Signed anew once another key signs: the one that did may
        leave the ring, and the order must not end with it."""
        data, switch, key = self._store.board(NAME) or b"", self.current(), self._ring().signing
        if switch is not None and kid_of(data) != key.kid:
            data = signed(switch, key, self._cluster)
            self._store.set_board(NAME, data)
        return data

    def current(self) -> Switch | None:
        """The last one, None as long as nothing was ever switched."""
        data = self._store.board(NAME)
        if data != self._seen:
            self._switch, self._seen = None if data is None else verified(data, self._ring(), self._cluster), data
        return self._switch

    def take(self, statement: bytes) -> bool:
        """One that a peer has passed on. Whether it is news."""
        if not statement or statement == self._store.board(NAME):
            return False
        theirs, mine = verified(statement, self._ring(), self._cluster), self.current()
        if theirs is None or (mine is not None and theirs <= mine):
            return False
        self._store.set_board(NAME, statement)
        return True

    def in_force(self, config: Config) -> str:
        """The mode of a host with these settings."""
        switch = self.current() if config.mode_switch else None
        return config.mode if switch is None else switch.mode

    def order(self, mode: str, percent: int, at: float, by: str) -> Switch:
        """Switch the cluster, beginning with this host. `at`: Unix seconds."""
        before = self.current()
        switch = Switch(1 if before is None else before.serial + 1, at, mode, percent, by)
        self._store.set_board(NAME, signed(switch, self._ring().signing, self._cluster))
        return switch
