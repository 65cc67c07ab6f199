"""How old a session of before is here, and how long it may live: its ages go on, and no end of its own is put off."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..core.record import Lifetime, Record
from ..core.session import LifetimeChange
from ..core.values import HIDDEN, decode_value, encode_value
from ..sources.source import Legacy
from .stored import lifetime_within

if TYPE_CHECKING:
    from .engine import Engine

OWN_LIMITS: Final = f"{HIDDEN}limits"  # of a session whose user has not come yet


class OwnLimits(NamedTuple):
    """What the session itself says, whatever limits its system has: seconds without a request, and Unix s of its end."""

    idle_s: float | None = None
    deadline: float | None = None

    @classmethod
    def of(cls, legacy: Legacy) -> OwnLimits:
        return cls(legacy.idle_s, legacy.deadline)

    @classmethod
    def kept_in(cls, record: Record) -> OwnLimits:
        _, data = record.items.get(OWN_LIMITS, (None, None))
        if data is None:
            return cls()
        found: Any = decode_value(data)
        return cls(*found)

    def items(self) -> Mapping[str, bytes]:
        """What keeps them in a record."""
        return {} if self == OwnLimits() else {OWN_LIMITS: encode_value(tuple(self))}

    def within(self, engine: Engine, created: float) -> Lifetime:
        """The limits that a session of `created` (host's clock) has from now on, when its user is here."""
        if self.idle_s is None:
            limits = engine.lifetime(created)
        else:
            limits = lifetime_within(engine, LifetimeChange(self.idle_s, None), created)
        return limits if self.deadline is None else ending(engine, limits, self.deadline)


def ending(engine: Engine, limits: Lifetime, end: float) -> Lifetime:
    """`limits`, and no later than the Unix time `end`."""
    ours = engine.now() + end - time()
    return Lifetime(limits.idle, ours if limits.deadline is None else min(limits.deadline, ours))


def created_at(engine: Engine, legacy: Legacy) -> float:
    """When it began by the host's clock; the earliest that is known of it."""
    clock = time()
    return engine.now() - max(0.0, clock - (legacy.created or legacy.stamped or clock))


def logged_in_at(engine: Engine, legacy: Legacy) -> float | None:
    """When its user logged in, at the earliest. None: nobody knows, and only another login is a fresh one."""
    return None if legacy.created is None else created_at(engine, legacy)
