"""What nodes say to each other: calls and replies.

A call names one session by its store key and is answered by one reply. A node answers from what it holds and never asks
another one; the coordinator (the worker that serves the request) does the walking. `Unreachable` is the only reply that
no node sends: drivers and transports make it. Times in a message are those of the host it is on; on the way to another
host they are relative to "now" (`encoding.moved_to_clock`), so that no two clocks are ever compared.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from .inquiries import Bars as Bars
from .inquiries import Examine as Examine
from .inquiries import Examined as Examined
from .inquiries import Forbid as Forbid
from .inquiries import Forbidden as Forbidden
from .inquiries import Forget as Forget
from .inquiries import Known as Known
from .inquiries import OfUser as OfUser
from .inquiries import Theirs as Theirs
from .message import Message as Message
from .node import Member
from .record import Digest, Key, Owners, Patch, Record

# --- calls -------------------------------------------------------------------------------------------------------


class Fetch(Message, frozen=True):
    """Give me your copy. `age`: seconds since the ID was issued, against the age of the receiver's files."""

    key: Key
    age: float


class Export(Message, frozen=True):
    """Show what you hold under this key, whatever it is worth: for repairs between holders, never for a reader."""

    key: Key


class Apply(Message, frozen=True):
    """To the master: number this patch."""

    key: Key
    epoch: int
    patch: Patch


class Deliver(Message, frozen=True):
    """To the backup: take this patch, numbered `version` by the master of `epoch`."""

    key: Key
    epoch: int
    version: int
    owners: Owners
    patch: Patch


class Put(Message, frozen=True):
    """To an owner: take this whole record."""

    key: Key
    record: Record


class Promote(Message, frozen=True):
    """To a surviving owner: with you at `epoch`, make `owners` the owners of the next one; `dead` did not answer.
    `revive`: to an ex-owner that retains its last copy, the owners it handed over to are gone."""

    key: Key
    epoch: int
    owners: Owners
    dead: str | None
    revive: bool = False


NOTHING_HELD: Final = -1  # the version of a settlement that drops no hint yet


class Settle(Message, frozen=True):
    """Both owners hold `version` of this history: it is accepted, and the master's mark *unheld* can go."""

    key: Key
    epoch: int
    owners: Owners
    version: int


class Absorb(Message, frozen=True):
    """This is what `holder` knows of the session; keep the better of the two, merge what must be merged."""

    key: Key
    record: Record
    holder: str | None = None


class End(Message, frozen=True):
    """Write a tombstone. `owners`: whom the coordinator knows; `grace`: seconds the values stay readable, or None.
    `version`: only if nothing was written since that version of `epoch` (rotation). `anonymous`: the coordinator knows that it is
    no user's, for who holds nothing of it."""

    key: Key
    reason: str
    owners: Owners
    epoch: int = 0
    grace: float | None = None
    version: int | None = None
    anonymous: bool = False


class LeaveHint(Message, frozen=True):
    """`owner` could not be told of the last change to this session: tell it with your heartbeats."""

    key: Key
    owner: str


class Freeze(Message, frozen=True):
    """To the master: take no more patches for `seconds`, and give me the record (rotation). 0: take them again."""

    key: Key
    epoch: int
    seconds: float


class Touch(Message, frozen=True):
    """The session was used `age` seconds ago. Never creates, never changes anything else."""

    key: Key
    age: float = 0.0


class Expire(Message, frozen=True):
    """To the other owner: as far as I know nobody uses it any more. End it, unless you know better."""

    key: Key
    epoch: int
    owners: Owners


class Confirm(Message, frozen=True):
    """Compare what I hold with what you hold; say where we differ. Who holds nothing keeps the way, unless `only_ask`."""

    digests: tuple[Digest, ...]
    only_ask: bool = False


class Inventory(Message, frozen=True):
    """What do you hold, in the order of keys, after `after`? For sync and repair in small steps."""

    after: Key | None
    limit: int


class Many(Message, frozen=True):
    """Calls about one session each, in one message; each is carried out by itself, in this order. Answered with `Each`."""

    calls: tuple[SessionCall, ...]


class Heartbeat(Message, frozen=True):
    """I am alive, this is some of my member table. Answered with `Beat`. `wanted`: send me heartbeats too, I have to do with
    you; `knows`: how many members I take for present."""

    sender: Member
    members: tuple[Member, ...]
    clock: float  # the sender's monotonic time
    hints_max: int = 256
    wanted: bool = True
    knows: int = 0


# --- replies -----------------------------------------------------------------------------------------------------


class Each(Message, frozen=True):
    """The replies to `Many`, one for each call."""

    replies: tuple[SessionReply, ...]


class Found(Message, frozen=True):
    """My copy. `serving`: I vouch for it (lease, accepted, held). `unheld`: the other owner may lack its last write.
    `expired`: the limit that it has passed, as far as I know; the other owner may have heard of a later use."""

    record: Record
    serving: bool
    unheld: bool = False
    expired: str | None = None


class Gone(Message, frozen=True):
    """Ended, final. `grace` is the record of a rotation whose grace still runs."""

    reason: str
    ago: float
    epoch: int
    owners: Owners
    grace: Record | None = None


class Exported(Message, frozen=True):
    """What I hold: a copy, a tombstone, a pointer, or nothing."""

    record: Record | None


class Moved(Message, frozen=True):
    """I handed it over: these are the owners. `retained`: I still have the last copy I held."""

    epoch: int
    owners: Owners
    retained: bool = False


class NotMine(Message, frozen=True):
    """I hold nothing of it, and know that I would."""


class Later(Message, frozen=True):
    """I may hold it, but have not synced yet. Not an answer about the session."""


class Applied(Message, frozen=True):
    """Numbered. `repeat`: this patch id was known already, so deliver the whole record. `results`: what the patch's edits
    have made of the values they are about."""

    epoch: int
    version: int
    owners: Owners
    repeat: bool = False
    results: dict[str, bytes] | None = None


class Held(Message, frozen=True):
    """I hold `version`."""

    version: int


class Gap(Message, frozen=True):
    """I can't take that patch, I hold `version` (0: nothing): send the whole record."""

    version: int


class Conflict(Message, frozen=True):
    """Refused: the owners are others now (409). Follow and deliver again; this is no ack."""

    epoch: int
    owners: Owners


class Promoted(Message, frozen=True):
    """The change of owners is made here; the record must now reach the new backup."""

    record: Record


class Done(Message, frozen=True):
    """Noted; nothing else to say."""


class Absorbed(Message, frozen=True):
    """`better` is mine, if it wins over what you sent; `digest` is what I hold now."""

    better: Record | None = None
    digest: Digest | None = None


class EndHeld(Message, frozen=True):
    """I hold the tombstone; `epoch` and `owners` are those of my record."""

    epoch: int
    owners: Owners


class InUse(Message, frozen=True):
    """It was used `age` seconds ago: it has not expired."""

    age: float


class Frozen(Message, frozen=True):
    """No patches are taken any more; this is the record."""

    record: Record


class Rotating(Message, frozen=True):
    """Being rotated at this moment: wait and ask again."""


class Confirmed(Message, frozen=True):
    """Where we differ: my record, or None where I hold nothing."""

    differing: tuple[tuple[Key, Record | None], ...]


class Listed(Message, frozen=True):
    """What I hold, in the order of keys, up to `last`; None: there is nothing after that."""

    digests: tuple[Digest, ...]
    last: Key | None


class Beat(Message, frozen=True):
    """I am alive too; `hints` are for you, `pending` more wait. `bars`: the digest of the bars that I know; `switch`: the mode
    that the cluster was switched to, as a signed statement."""

    sender: Member
    members: tuple[Member, ...]
    hints: tuple[tuple[Key, Record], ...]
    pending: int
    clock: float
    bars: bytes = b""
    switch: bytes = b""


class TooLarge(Message, frozen=True):
    """The record would pass a limit; nothing was changed."""

    what: str
    size: int
    limit: int


class Differs(Message, frozen=True):
    """I hold something else under `key` than the patch expects; nothing was changed."""

    key: str


class Unsuitable(Message, frozen=True):
    """The value of `key` is of the type `found`, which `operation` is not for; nothing was changed."""

    operation: str
    key: str
    found: str


class Full(Message, frozen=True):
    """My store has no room for it."""


class Broken(Message, frozen=True):
    """My copy does not decode. The other owner's may."""


class Unreachable(Message, frozen=True):
    """No answer: `why` is one of refused, timeout, breaker, budget, garbage, unknown, down, stale,
    busy, auth, departed."""

    why: str


# fmt: off
SessionCall: TypeAlias = (
    Fetch | Export | Apply | Deliver | Put | Promote | Settle | Absorb | End | LeaveHint | Freeze | Touch | Expire | Confirm
    | Forget
)
Call: TypeAlias = SessionCall | Inventory | Many | Forbid | Bars | OfUser | Heartbeat | Examine
SessionReply: TypeAlias = (
    Found | Gone | Exported | Moved | NotMine | Later | Applied | Held | Gap | Conflict | Promoted | Done | Absorbed
    | EndHeld | InUse | Frozen | Rotating | TooLarge | Differs | Unsuitable | Full | Broken | Unreachable | Confirmed
)
Reply: TypeAlias = SessionReply | Listed | Each | Forbidden | Known | Theirs | Beat | Examined
