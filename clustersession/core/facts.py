"""What a node says of itself to the doctor of another one, and what that doctor has seen of all: counts, ages and names of hosts,
nothing of any session. A later release may add fields; one that does not know them passes over them."""

from __future__ import annotations

import msgspec


class LinkFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One member in a node's eyes. `why`: its last heartbeat to it failed for that reason, None: it was answered, `ago_s` ago
    (None: there was none yet). `called_ago_s`: when the member last called it."""

    peer: str
    state: str
    why: str | None = None
    ago_s: float | None = None
    called_ago_s: float | None = None


class CanaryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A session that a node made on the doctor's account, with itself as master and `backup` as backup. `step` (`create`, `read`,
    `end`, `drop`) failed at node `at` for the reason `why`; None: none did."""

    backup: str
    ms: float
    step: str | None = None
    at: str | None = None
    why: str | None = None


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `wall_s`: its wall clock, Unix time. `ring`: `kid:fingerprint` of its keys. `exposed`: it talks plain HTTP beyond
    loopback. `absolute_s`: the limit that its settings put on every session. `store_error`: why
    its store cannot be read. `down`: sixteenths of its store that cannot be
    written (16: the board), with the process that holds them. `unmet`: addresses of CLUSTERSESSION_PEERS where no member was
    found, and why. `counts`: its history, minute by minute, newest first. `tour` and `toured`: the number of the tour of canaries
    that was begun last, and of the one that ended last, of which `canaries` are."""

    node: str
    release: str
    wall_s: float
    mode: str
    ring: str
    exposed: bool
    cookie: str
    cookie_secure: bool
    synced: bool
    leaving: bool
    entries: int
    bytes_used: int
    bytes_max: int
    absolute_s: float | None = None
    debt: int | None = None
    store_error: str | None = None
    notes: tuple[str, ...] = ()
    down: dict[str, str] = {}
    links: tuple[LinkFacts, ...] = ()
    unmet: dict[str, str] = {}
    counts: dict[str, tuple[int, ...]] = {}
    tour: int = 0
    toured: int = 0
    canaries: tuple[CanaryFacts, ...] = ()


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One member as the doctor found it. `state`, `address`: of the member table it looked from. `facts`: None, and `why`, if
    the member gave no answer. `ahead_s`: its wall clock less the doctor's, right within `within_s`, half of the round trip
    `rtt_ms`."""

    node: str
    state: str
    address: str
    why: str | None = None
    rtt_ms: float | None = None
    ahead_s: float = 0.0
    within_s: float = 0.0
    facts: NodeFacts | None = None


class Examination(msgspec.Struct, frozen=True, kw_only=True):
    """All that the node `asked` found out in `seconds`."""

    asked: str
    cluster: str
    seconds: float
    members: tuple[Checked, ...]
