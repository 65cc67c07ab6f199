"""Deliberately broken builds: each takes one rule away. A checker that does not catch them proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from clustersession.core import absorb as absorbing
from clustersession.core import calls, operations, replica, resolving
from clustersession.core import record as recording
from clustersession.core.effects import Ask, Operation, Tell
from clustersession.core.operations import ending, moving, rotating, saving
from clustersession.core.operations.outcome import Cluster, EndedBy, Placement, Saved, Unavailable
from clustersession.core.record import Patch, Record, accepted, expires_at, patched, rank
from clustersession.core.replica import Decision, dispatch, ends, owners, reads
from clustersession.runtime import locking, stored
from clustersession.runtime.duty import Duty
from clustersession.runtime.host import Host
from clustersession.runtime.keeper import Keeper

from . import workload

Break = Callable[[pytest.MonkeyPatch], None]


def _rule(name: str) -> Callable[..., Decision]:
    """The rule for a call as it is now: two builds may be broken in the same place."""
    rule: Callable[..., Decision] = getattr(dispatch, name)
    return rule


def ack_before_the_backup(patch: pytest.MonkeyPatch) -> None:
    """The response goes out when the master has the write; the backup gets it some time, or never."""

    def delivered(_: Any, key: bytes, placement: Placement, what: Any, applied: calls.Applied) -> Any:
        backup = placement.owners[1]
        if backup is not None:
            yield Tell(backup, calls.Deliver(key, placement.epoch, applied.version, placement.owners, what))
            yield Tell(placement.owners[0], calls.Settle(key, placement.epoch, placement.owners, applied.version))
        return Saved(placement, applied.version, copies=2)

    patch.setattr(saving, "_delivered", delivered)


def create_acked_by_one(patch: pytest.MonkeyPatch) -> None:
    """A new session is acked when its master has it; the backup gets it with the next write."""

    def create(_: Cluster, key: bytes, record: Record) -> Any:
        reply = yield Ask(record.master, calls.Put(key, record))
        if not isinstance(reply, calls.Held):
            return Unavailable("the master did not take it")
        return Saved(Placement(record.epoch, record.owners), record.version, copies=2)

    for module in (saving, rotating, operations, workload):
        patch.setattr(module, "create", create)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """Whoever was an owner once goes on taking writes, and a late record replaces a newer one."""
    apply, deliver = _rule("on_apply"), _rule("on_deliver")

    def applied(record: Record | None, call: calls.Apply, at: replica.Situation) -> Decision:
        return apply(record, _with(call, epoch=record.epoch) if record and at.me in record.owners else call, at)

    def delivered(record: Record | None, call: calls.Deliver, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None or record.pointer:
            return deliver(record, call, at)
        return Decision(calls.Held(call.version), True, patched(record, call.patch, max(call.version, record.version)))

    patch.setattr(dispatch, "on_apply", applied)
    patch.setattr(dispatch, "on_deliver", delivered)
    any_record_taken(patch)


def any_record_taken(patch: pytest.MonkeyPatch) -> None:
    """A new backup takes the record of whoever asks, also one that is older than its own."""
    put = _rule("on_put")

    def taken(record: Record | None, call: calls.Put, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None:
            return put(record, call, at)
        return Decision(calls.Held(call.record.version), True, call.record)

    patch.setattr(dispatch, "on_put", taken)


def _with(call: calls.Apply, *, epoch: int) -> calls.Apply:
    return calls.Apply(call.key, epoch, call.patch)


def upsert_instead_of_update(patch: pytest.MonkeyPatch) -> None:
    """A write to a session that is not there, or has ended, creates it: what most session stores do."""
    apply, deliver = _rule("on_apply"), _rule("on_deliver")

    def applied(record: Record | None, call: calls.Apply, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None:
            owners = record.owners if record is not None else (at.me, None)
            fresh = patched(Record(call.epoch, 0, owners, base=call.epoch, created=at.now, last_seen=at.now), call.patch, 1)
            return Decision(calls.Applied(call.epoch, 1, owners), True, fresh)
        return apply(record, call, at)

    def delivered(record: Record | None, call: calls.Deliver, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None:
            fresh = Record(call.epoch, 0, call.owners, base=call.epoch, created=at.now, last_seen=at.now)
            return Decision(calls.Held(call.version), True, patched(fresh, call.patch, call.version))
        return deliver(record, call, at)

    patch.setattr(dispatch, "on_apply", applied)
    patch.setattr(dispatch, "on_deliver", delivered)


def rotate_what_was_read(patch: pytest.MonkeyPatch) -> None:
    """The new session gets what the old one held a moment ago; writes go on meanwhile, and the old one ends regardless."""
    freeze, end = _rule("on_freeze"), _rule("on_end")

    def frozen(record: Record | None, call: calls.Freeze, at: replica.Situation) -> Decision:
        return freeze(record, call, at)._replace(write=False)

    def ended(record: Record | None, call: calls.End, at: replica.Situation) -> Decision:
        return end(record, calls.End(call.key, call.reason, call.owners, call.epoch, call.grace), at)

    patch.setattr(dispatch, "on_freeze", frozen)
    patch.setattr(dispatch, "on_end", ended)


def expire_alone(patch: pytest.MonkeyPatch) -> None:
    """An owner ends a session that nobody used as far as it knows, without asking the other one."""
    patch.setattr(ends, "ALONE_AFTER_S", 0.0)


def no_lease(patch: pytest.MonkeyPatch) -> None:
    """An owner serves its copy whether or not it would have been told of a change by now."""

    def vouched_until(record: Record, me: str, *_: Any) -> float:
        live = record.accepted and not record.pointer and record.ended is None and me in record.owners
        return expires_at(record) if live else reads.NEVER

    for module in (replica, reads):
        patch.setattr(module, "vouched_until", vouched_until)


def hints_kept(patch: pytest.MonkeyPatch) -> None:
    """Only who has left a hint brings it: who becomes an owner later tells nobody of what was before."""
    patch.setattr(owners, "_passed_on", lambda *_: ())


def no_lease_hints_kept(patch: pytest.MonkeyPatch) -> None:
    """Both: else the new backup tells an owner that its fellow cannot reach, long before the lease would have run out."""
    no_lease(patch)
    hints_kept(patch)


def no_hints(patch: pytest.MonkeyPatch) -> None:
    """Who could not be told of something is not told later either."""
    carried_out = Host._carried_out

    def forgetful(self: Host, key: bytes, decision: Decision, at: replica.Situation, result: object = None) -> Any:
        return carried_out(self, key, decision._replace(hint=()), at, result)

    patch.setattr(Host, "_carried_out", forgetful)


def end_at_one_owner(patch: pytest.MonkeyPatch) -> None:
    """A logout is acked when one owner has the tombstone; the other one will hear of it."""

    def end(cluster: Cluster, key: bytes, placement: Placement, reason: str, grace: float | None = None, **_: Any) -> Any:
        for owner in placement.owners:
            if owner is not None:
                reply = yield Ask(owner, calls.End(key, reason, placement.owners, placement.epoch, grace))
                if isinstance(reply, calls.EndHeld):
                    return EndedBy(1)
        return Unavailable("no owner answered")

    for module in (ending, rotating, operations, workload):
        patch.setattr(module, "end", end)


def newer_over_tombstone(patch: pytest.MonkeyPatch) -> None:
    """Where a tombstone meets a copy, the newer of the two wins."""
    with_tombstone = absorbing._with_tombstone

    def merged(mine: Record, theirs: Record, me: str) -> absorbing.Absorption:
        if mine.ended and theirs.ended:
            return with_tombstone(mine, theirs, me)
        if rank(theirs) > rank(mine):
            return absorbing.Absorption(theirs, hint=absorbing.owners_but(mine.owners, me))
        return absorbing.Absorption(mine, better=mine)

    patch.setattr(absorbing, "_with_tombstone", merged)


def repair_before_sync(patch: pytest.MonkeyPatch) -> None:
    """A host that has just come back repairs from its old files, before it has heard what went on meanwhile."""
    patch.setattr(Keeper, "may_repair", property(lambda self: self.view().converged))


def copies_from_unsynced(patch: pytest.MonkeyPatch) -> None:
    """The same, and its old copies are taken for what they were: they are answered with, and can become those of a master."""
    repair_before_sync(patch)
    patch.setattr(Host, "_synced_until", lambda self, board: board.tick + self._gap_s)


def copies_from_unsynced_taken(patch: pytest.MonkeyPatch) -> None:
    """And the new backup, which is the one that the others have chosen too, does not refuse what is old."""
    copies_from_unsynced(patch)
    any_record_taken_or_none_offered(patch)


def rivals_not_told(patch: pytest.MonkeyPatch) -> None:
    """Of two owners that have both chosen new owners, the one that was refused is not told, nor is the new backup told later."""
    promote = _rule("on_promote")

    def promoted(record: Record | None, call: calls.Promote, at: replica.Situation, source: str | None) -> Decision:
        decision = promote(record, call, at, source)
        return decision._replace(hint=tuple(owner for owner in decision.hint if owner not in call.owners))

    def taught(*_: Any) -> Operation[None]:
        yield from ()

    patch.setattr(dispatch, "on_promote", promoted)
    for module in (moving, saving):
        patch.setattr(module, "taught", taught)


def pending_as_accepted_untold(patch: pytest.MonkeyPatch) -> None:
    """Both: the refused one goes on serving what nobody else has."""
    pending_as_accepted(patch)
    rivals_not_told(patch)


def no_redelivery(patch: pytest.MonkeyPatch) -> None:
    """What a coordinator left behind half way, nobody brings to the backup: a numbered patch leaves no mark."""
    apply = _rule("on_apply")

    def applied(record: Record | None, call: calls.Apply, at: replica.Situation) -> Decision:
        return apply(record, call, at)._replace(hint=())

    patch.setattr(dispatch, "on_apply", applied)


def pending_as_accepted(patch: pytest.MonkeyPatch) -> None:
    """A survivor takes its change of owners for settled before the new backup has taken the record."""
    promote = _rule("on_promote")

    def promoted(record: Record | None, call: calls.Promote, at: replica.Situation, source: str | None) -> Decision:
        decision = promote(record, call, at, source)
        if not isinstance(decision.reply, calls.Promoted):
            return decision
        settled = accepted(decision.reply.record)
        return decision._replace(reply=calls.Promoted(settled), record=settled)

    patch.setattr(dispatch, "on_promote", promoted)


def no_record_is_final(patch: pytest.MonkeyPatch) -> None:
    """A node that has no record of a session says that it has ended."""
    fetch = replica.fetch

    def fetched(record: Record | None, call: calls.Fetch, at: replica.Situation, hinted: Callable[[str], bool]) -> calls.Reply:
        reply = fetch(record, call, at, hinted)
        return calls.Gone("unknown", 0.0, 0, (at.me, None)) if isinstance(reply, calls.NotMine) else reply

    patch.setattr(replica, "fetch", fetched)


def no_comparison_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks what a host that has started again still holds: it asks, but nobody offers."""
    patch.setattr(Duty, "_started_again", lambda _: {})


def any_record_taken_or_none_offered(patch: pytest.MonkeyPatch) -> None:
    any_record_taken(patch)
    no_comparison_after_a_restart(patch)


def nothing_new_since_before(patch: pytest.MonkeyPatch) -> None:
    """A host that was alone, and sees everybody again, takes its sessions for looked after: the states are those of before."""

    def due(duty: Duty) -> bool:
        if duty.keeper.leaving or not duty.keeper.may_repair:
            return False
        return duty.keeper.states() != duty._seen or duty.keeper.host.clock() >= duty._again_at

    patch.setattr(Duty, "due", property(due))
    no_comparison_after_a_restart(patch)


def patch_ids_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Nobody knows which patches a record has in it, so that one that is sent again counts again."""
    patch.setattr(recording, "_counted_after", lambda *_: {})


def merged_without_ids(patch: pytest.MonkeyPatch) -> None:
    """A master that comes back brings its values, and not the ids of the patches they come from."""
    patch.setattr(recording, "counted_merged", lambda mine, *_: dict(mine))


def counted_where_it_is_read(patch: pytest.MonkeyPatch) -> None:
    """An operation is carried out by the host of the request, and its result sent as a plain value."""
    save = saving.save

    def plainly(cluster: Cluster, key: bytes, placement: Placement, change: Patch) -> Any:
        copy = yield Ask(placement.owners[0], calls.Export(key))
        if change.edits and isinstance(copy, calls.Exported) and copy.record is not None:
            plain = resolving.resolved(copy.record, change, 0.0)
            change = plain if isinstance(plain, Patch) else change
        return (yield from save(cluster, key, placement, change))

    patch.setattr(stored, "save", plainly)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Who once had a lock may save, also when another one has it by now."""
    taken = resolving._taken
    patch.setattr(resolving, "_taken", lambda record, change, now: taken(record, msgspec.structs.replace(change, under={}), now))


def locked_after_reading(patch: pytest.MonkeyPatch) -> None:
    """Who gets a lock goes on from what it read before."""

    def unseen(*_: Any) -> Operation[None]:
        yield from ()

    patch.setattr(locking, "_shown_anew", unseen)


def nothing_expected(patch: pytest.MonkeyPatch) -> None:
    """What a request expects to be stored is not compared when it is saved."""
    patch.setattr(resolving, "check_expected", lambda *_: None)


def last_writer_wins(patch: pytest.MonkeyPatch) -> None:
    """Of two histories that meet one stays, whole."""
    patch.setattr(absorbing, "merged", lambda record, _: record)
    patch.setattr(absorbing, "newer_items", lambda *_: {})


def no_repair(patch: pytest.MonkeyPatch) -> None:
    """No host looks after its sessions: who is gone is missed by the next request at the earliest."""
    patch.setattr(Duty, "due", property(lambda _: False))
