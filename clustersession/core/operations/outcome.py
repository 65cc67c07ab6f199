"""What the operations take and what they end in. Every stage hands on one frozen value."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ..node import View
from ..record import Key, Owners, Record


class Cluster(NamedTuple):
    """What an operation may know of the cluster: this host's view of the members, and the policy."""

    view: View
    min_copies: int = 1

    @property
    def me(self) -> str:
        return self.view.me

    @property
    def leaving(self) -> bool:
        """Whether this host is on its way out: it takes nothing new."""
        myself = self.view.get(self.view.me)
        return myself is not None and myself.state.departing


class Target(NamedTuple):
    """The session a verified ID names. An owner is None if no member has its tag; no backup: `single`."""

    key: Key
    master: str | None
    backup: str | None
    single: bool
    floor: tuple[int, int]
    age: float  # seconds since the ID was issued
    patience_over: bool = False  # it has been unavailable for the longest time allowed: not for ever


class Placement(NamedTuple):
    """Who owns a session, since which change of owners."""

    epoch: int
    owners: Owners


class Loaded(NamedTuple):
    """The session. `superseded`: it was rotated a moment ago, what it held may be read, nothing written, no cookie set."""

    record: Record
    superseded: bool = False

    @property
    def placement(self) -> Placement:
        return Placement(self.record.epoch, self.record.owners)


class Ended(NamedTuple):
    """A tombstone says so: logged out, expired or rotated. Final. `ago`: seconds since then, 0 where it happened just now."""

    reason: str
    ago: float = 0.0


class Lost(NamedTuple):
    """Everybody who could hold it answered that they don't. `asked` says who, for the log."""

    asked: tuple[str, ...]


class Unavailable(NamedTuple):
    """Somebody who may hold it gave no answer. `why` names the last obstacle."""

    why: str


class Saved(NamedTuple):
    """Acked by `copies` nodes under this placement."""

    placement: Placement
    version: int
    copies: int


class Rejected(NamedTuple):
    """Over a limit on the master; nothing was changed."""

    what: str
    size: int
    limit: int


class Conflicting(NamedTuple):
    """What is stored under `key` is not what the patch expects; nothing was changed."""

    key: str


class Mistyped(NamedTuple):
    """What is stored under `key` is of the type `found`, which `operation` is not for; nothing was changed."""

    operation: str
    key: str
    found: str


class EndedBy(NamedTuple):
    """The tombstone is held by `copies` nodes."""

    copies: int


class Rotated(NamedTuple):
    """The new session is stored and the old one ended."""

    saved: Saved
    record: Record


LoadOutcome: TypeAlias = Loaded | Ended | Lost | Unavailable
Refused: TypeAlias = Conflicting | Mistyped
SaveOutcome: TypeAlias = Saved | Ended | Rejected | Refused | Unavailable
CreateOutcome: TypeAlias = Saved | Unavailable
EndOutcome: TypeAlias = EndedBy | Ended | Unavailable
RotateOutcome: TypeAlias = Rotated | Ended | Refused | Unavailable
