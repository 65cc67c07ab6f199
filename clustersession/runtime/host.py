"""The local node without the network: rules over the store, the blackboard as a view. Shared by the workers, the node's
own process and the simulation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from ..config import Limits, Timeouts
from ..core import replica
from ..core.bars import REASON
from ..core.calls import (
    Absorb,
    Bars,
    Broken,
    Call,
    Confirm,
    Confirmed,
    Done,
    Each,
    End,
    Examine,
    Export,
    Exported,
    Fetch,
    Forbid,
    Forget,
    Found,
    Full,
    Heartbeat,
    Inventory,
    Later,
    Listed,
    Many,
    OfUser,
    Put,
    Reply,
    SessionCall,
    Unreachable,
)
from ..core.canary import forgotten, is_canary
from ..core.comparing import compare
from ..core.expiry import Overdue
from ..core.keyring import KeyRing
from ..core.node import State, View
from ..core.record import Digest, Key, Record, decode_record, digest, encode_record, floor_of
from ..core.repair import mark
from ..core.replica import Decision, Situation
from ..core.replica.reads import NEVER
from ..core.sealing import Sealer
from ..core.session_id import node_tag
from ..errors import ClusterSessionError, Corrupt, ShardDown, StoreFull, StoreRefused
from ..ports import KEEP, Change, Entropy, Observer, Rule, Store
from .barred import KnownBars
from .board import EMPTY, NAME, Board, decode_board
from .cache import BoundedCache
from .of_users import OfUsers

AT_REST = b"rest"
RECORDS_CACHED = 2048


class Host:
    """What this host holds and knows. `handle` answers a call from the local store, in microseconds, and never waits."""

    def __init__(
        self,
        me: str,
        store: Store,
        sealer: Callable[[], Sealer],
        *,
        clock: Callable[[], float],
        entropy: Entropy,
        observer: Observer,
        limits: Limits,
        timeouts: Timeouts,
    ) -> None:
        self.me, self.store, self.clock = me, store, clock
        self._sealer, self._entropy, self._observer = sealer, entropy, observer
        self._record_bytes_max, self._gap_s = limits.session_bytes_max, timeouts.lease_s
        self._board_bytes: bytes | None = None
        self._board, self._view = EMPTY, EMPTY.view(me)
        self._leaving = False
        self._tags: dict[int, dict[str, str]] = {}
        self._records: BoundedCache[Key, tuple[bytes, Record]] = BoundedCache(RECORDS_CACHED)
        self.bars = KnownBars(store, sealer, clock, entropy, lambda: self._board.signing_kid)
        self._of_users = OfUsers(self)

    # --- what the node process knows -----------------------------------------------------------------------------------

    @property
    def board(self) -> Board:
        data = self.store.board(NAME)
        if data != self._board_bytes:
            self._board = decode_board(data)
            self._view = self._board.view(self.me)
            self._tags = {}
            self._board_bytes = data
            myself = self._view.get(self.me)
            self._leaving = myself is not None and myself.state.departing
        return self._board

    @property
    def view(self) -> View:
        self.board  # noqa: B018  (reads the board anew)
        return self._view

    @property
    def last_view(self) -> View:
        """The view as of the last call or look at the board: for what the next call checks anyway."""
        return self._view

    def owner_of(self, ring: KeyRing, kid: int, tag: str) -> str | None:
        """The member that an ID's tag names. The port may have changed since: the identity's half decides."""
        tags = self._tags.get(kid)
        if tags is None:
            key = ring.get(kid)
            members = self._view.members.values() if key else ()
            tags = {node_tag(key, m.identity, m.port)[:8]: m.identity for m in members if key}
            self._tags[kid] = tags
        return tags.get(tag[:8])

    def situation(self) -> Situation:
        board = self.board
        return Situation(
            self.me,
            self.clock(),
            self._synced_until(board),
            board.leases,
            self._born,
            self._record_bytes_max,
            self._leaving,
            self._hinted,
        )

    def _synced_until(self, board: Board) -> float:
        """A node process that does not tick may be paused: what it would have learnt is missing."""
        return board.tick + self._gap_s if board.synced else NEVER

    def _born(self) -> float:
        return self.store.born

    def _hinted(self, key: Key) -> tuple[str, ...]:
        """The members that this host still has to tell of a session."""
        return tuple(name for name in self._view.members if name != self.me and self.store.hinted(name, key))

    # --- calls ---------------------------------------------------------------------------------------------------------

    def handle(self, call: Call, source: str | None = None) -> Reply:
        """Answer `call` from node `source` (None: this host). Never raises for the state of the store."""
        try:
            match call:
                case Fetch():
                    return self._fetch(call, source)
                case Export():
                    return Exported(self.record(call.key))
                case Confirm():
                    return self._confirm(call, source)
                case Inventory():
                    return self._inventory(call)
                case Many():
                    return Each(self._each(call.calls, source))
                case Forget(key=key):
                    return self.change(key, forgotten, self.situation())
                case Forbid() | Bars() | OfUser():
                    return self._of_users.answer(call)
                case Heartbeat() | Examine():
                    return Later()  # only the node process answers these
            return self._decide(call, source)
        except StoreFull:
            self._observer.count("store_full")
            return Full()
        except (ShardDown, StoreRefused):
            self._observer.count("shard_down")
            return Unreachable("down")
        except Corrupt:
            self._observer.count("record_broken")
            return Broken()

    def vouched(self, key: Key, floor: tuple[int, int]) -> Record | None:
        """The copy that this host may serve without asking anybody, if it has what an ID has seen (`floor`). As `fetch`
        decides it, and quicker: nearly every read of an owner ends here."""
        try:
            record = self.record(key)
        except (Corrupt, ShardDown, StoreRefused):
            return None
        if record is None or floor_of(record) < floor:
            return None
        board, other = self.board, record.other(self.me)
        if other is not None and self.store.hinted(other, key):
            return None
        until = replica.vouched_until(record, self.me, self._synced_until(board), board.leases)
        return record if self.clock() < until else None

    def record(self, key: Key) -> Record | None:
        """The stored record. Raises `Corrupt`."""
        data = self.store.read(key)
        return None if data is None else self.opened(key, data)

    def _fetch(self, call: Fetch, source: str | None) -> Reply:
        key = call.key
        reply = replica.fetch(self.record(key), call, self.situation(), lambda owner: self.store.hinted(owner, key))
        asking = None if source is None else self.view.get(source)
        if asking is not None and asking.state is State.DEAD and isinstance(reply, Found):
            # the dead don't ask: it was this host that was away, and it has not been told yet of what was done without it
            return msgspec.structs.replace(reply, serving=False)
        return reply

    def _decide(self, call: Call, source: str | None) -> Reply:
        at = self.situation()
        key = replica.key_of(call)
        try:
            return self.change(key, lambda record: self._decided(record, call, at, source), at)
        except Corrupt:
            if not isinstance(call, Put | Absorb | End):
                raise
            # what does not decode gives way to the other owner's copy, or to an end
            self._observer.count("record_broken")
            self.store.change(key, lambda _: Change(None, None))
            return self.change(key, lambda record: self._decided(record, call, at, source), at)

    def _decided(self, record: Record | None, call: Call, at: Situation, source: str | None) -> Decision:
        """Inside the transaction, so that no copy slips past a bar that is just being kept: it meets a tombstone then."""
        if not isinstance(call, Put | Absorb) or not self.bars.against(call.key, call.record):
            return replica.decide(record, call, at, source)
        end = replica.decide(record, End(call.key, REASON, call.record.owners), at, source)
        held = end.record if end.write else record
        met = replica.decide(held, call, at, source)
        return Decision(met.reply, end.write or met.write, met.record if met.write else held, (*end.hint, *met.hint), met.unhint)

    def _each(self, many: Sequence[SessionCall], source: str | None) -> tuple[Any, ...]:
        """Each by itself, and those of one session in their order; what changes something shares transactions."""
        at = self.situation()
        replies: list[Any] = [None] * len(many)
        waiting: dict[int, list[tuple[Key, Rule]]] = {}
        keys: set[Key] = set()
        for place, call in enumerate(many):
            if isinstance(call, Fetch | Export):
                if call.key in keys:
                    self._carry_out(waiting, many, source, replies)
                    keys.clear()
                replies[place] = self.handle(call, source)
            elif isinstance(call, Confirm):
                waiting[place] = self._comparisons(call, at, source)
            else:
                decided = functools.partial(self._decided, call=call, at=at, source=source)
                waiting[place] = [(call.key, self._rule(call.key, decided, at))]
            keys.update(key for key, _ in waiting.get(place, ()))
        self._carry_out(waiting, many, source, replies)
        return tuple(replies)

    def _carry_out(
        self, waiting: dict[int, list[tuple[Key, Rule]]], many: Sequence[SessionCall], source: str | None, replies: list[Any]
    ) -> None:
        results = iter(self.store.change_each([each for rules in waiting.values() for each in rules]))
        for place, rules in waiting.items():
            call, found = many[place], [next(results) for _ in rules]
            if any(isinstance(result, ClusterSessionError) for result in found):
                replies[place] = self.handle(call, source)  # once more by itself: every failure has its answer there
            else:
                replies[place] = self._confirmed(call, found) if isinstance(call, Confirm) else found[0]
        waiting.clear()

    def _confirm(self, call: Confirm, source: str | None) -> Reply:
        found = self.store.change_each(self._comparisons(call, self.situation(), source))
        for failure in found:
            if isinstance(failure, ClusterSessionError) and not isinstance(failure, Corrupt):
                raise failure
        return self._confirmed(call, found)

    def _comparisons(self, call: Confirm, at: Situation, source: str | None) -> list[tuple[Key, Rule]]:
        """Rules that result in whether the two hold the same."""

        def stored(theirs: Digest, data: bytes | None) -> Change:
            decision, same = compare(self.opened(theirs.key, data), theirs, at, source, only_ask=call.only_ask)
            return self._carried_out(theirs.key, decision, at, same)

        return [(theirs.key, functools.partial(stored, theirs)) for theirs in call.digests]

    def _confirmed(self, call: Confirm, alike: Sequence[bool | Corrupt]) -> Reply:
        unlike = [theirs.key for theirs, same in zip(call.digests, alike, strict=True) if same is not True]
        return Confirmed(tuple((key, self.readable(key)) for key in unlike))

    def _inventory(self, call: Inventory) -> Reply:
        records = self.survey(call.after, call.limit)
        digests = tuple(digest(key, record) for key, record in records if record is not None)
        return Listed(digests, records[-1][0] if records else None)

    def readable(self, key: Key) -> Record | None:
        try:
            return self.record(key)
        except Corrupt:
            self._observer.count("record_broken")
            return None

    def survey(self, after: Key | None, limit: int) -> list[tuple[Key, Record | None]]:
        """The next `limit` keys in order after `after`, with what is held under them (None: nothing that can be read).

        What a former key of the ring has sealed is sealed anew, so that it can be read when that key is gone.
        """
        return [(key, self._surveyed(key)) for key in self.store.keys(after, limit)]

    def _surveyed(self, key: Key) -> Record | None:
        try:
            data = self.store.read(key)
            if data is not None and not self._sealer().is_latest(data):
                self._seal_anew(key)
            return None if data is None else self.opened(key, data)
        except Corrupt:
            self._observer.count("record_broken")
            return None

    def _seal_anew(self, key: Key) -> None:
        with suppress(ShardDown, StoreFull, StoreRefused):  # the next survey does it
            self.change(key, lambda record: Decision(Done(), record is not None, record), self.situation())

    def sweep(self, limit: int) -> tuple[int, list[Overdue]]:
        """Drop what is old, up to `limit` keys: how many were looked at, and what has to be ended with its other owner."""
        at = self.situation()
        due = self.store.due(at.now, limit) if at.synced else []
        found = [(key, self._swept(key, at)) for key in due]
        overdue = [Overdue(key, reply.record, reply.expired or "") for key, reply in found if isinstance(reply, Found)]
        return len(due), overdue

    def unhint(self, owner: str, key: Key) -> None:
        """Nothing is left to tell `owner` of this key."""
        self.store.change(key, lambda _: Change(None, unhint=(owner,)))

    def _swept(self, key: Key, at: Situation) -> Reply | None:
        """A record that does not decode is dropped when it is due; a sixteenth that is down waits for the next sweep."""
        try:
            return self.change(key, lambda record: replica.sweep(record, at), at)
        except Corrupt:
            self._observer.count("record_broken")
            self.store.change(key, lambda _: Change(None, None))
        except (ShardDown, StoreFull, StoreRefused):
            self._observer.count("sweep_failed")
        return None

    # --- the store -----------------------------------------------------------------------------------------------------

    def change(self, key: Key, rule: Callable[[Record | None], Decision], at: Situation) -> Reply:
        reply: Reply = self.store.change(key, self._rule(key, rule, at))
        return reply

    def _rule(self, key: Key, rule: Callable[[Record | None], Decision], at: Situation) -> Rule:
        def stored(data: bytes | None) -> Change:
            return self._carried_out(key, rule(self.opened(key, data)), at)

        return stored

    def _carried_out(self, key: Key, decision: Decision, at: Situation, result: object = None) -> Change:
        """`result` None: the decision's reply."""
        reply, write, record, hint, unhint = decision
        result = reply if result is None else result
        if not write:
            return Change(result, KEEP, 0.0, None, hint, unhint)
        if record is None:
            return Change(result, None, hint=hint, unhint=unhint)
        if is_canary(record):
            hint = ()  # told of by a heartbeat, its end would be back at the other owner after it was dropped there
        data = self._sealer().seal(AT_REST, key, encode_record(record), self._entropy.bytes(12))
        self._records.put(key, (data, record))
        due, evict, marks = replica.due_at(record, at), replica.eviction(record), mark(record, self.me)
        return Change(result, data, due, evict, (*hint, *marks), unhint, self.bars.group(record))

    def opened(self, key: Key, data: bytes | None) -> Record | None:
        """Unsealed and decoded, or the one of last time if its bytes are the same."""
        if data is None:
            return None
        cached = self._records.get(key)
        if cached is not None and cached[0] == data:
            return cached[1]
        try:
            record = decode_record(self._sealer().open(AT_REST, key, data))
        except msgspec.DecodeError as error:
            raise Corrupt(f"a stored record does not decode: {error}") from error
        self._records.put(key, (data, record))
        return record
