"""Deliberately broken builds: each takes one rule away. A checker that does not catch them proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from clustersession.core import calls, replica
from clustersession.core.effects import Tell
from clustersession.core.operations import saving
from clustersession.core.operations.outcome import Placement, Saved
from clustersession.core.record import Record, patched
from clustersession.core.replica import Decision

from .faults import LONG, MORE_THAN_ONE
from .workload import SHORT_IDLE_S

Break = Callable[[pytest.MonkeyPatch], None]


def ack_before_the_backup(patch: pytest.MonkeyPatch) -> None:
    """The response goes out when the master has the write; the backup gets it some time, or never."""

    def delivered(_: Any, key: bytes, placement: Placement, what: Any, applied: calls.Applied) -> Any:
        backup = placement.owners[1]
        if backup is not None:
            yield Tell(backup, calls.Deliver(key, placement.epoch, applied.version, placement.owners, what))
            yield Tell(placement.owners[0], calls.Settle(key, placement.epoch, placement.owners, applied.version))
        return Saved(placement, applied.version, copies=2)

    patch.setattr(saving, "_delivered", delivered)


def no_epoch_check(patch: pytest.MonkeyPatch) -> None:
    """Whoever was an owner once goes on taking writes, and a late record replaces a newer one."""
    apply, deliver, put = replica._apply, replica._deliver, replica._put

    def applied(record: Record | None, call: calls.Apply, at: replica.Situation) -> Decision:
        return apply(record, _with(call, epoch=record.epoch) if record and at.me in record.owners else call, at)

    def delivered(record: Record | None, call: calls.Deliver, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None or record.pointer:
            return deliver(record, call, at)
        return Decision(calls.Held(call.version), True, patched(record, call.patch, max(call.version, record.version)))

    def taken(record: Record | None, call: calls.Put, at: replica.Situation) -> Decision:
        if record is None or record.ended is not None:
            return put(record, call, at)
        return Decision(calls.Held(call.record.version), True, call.record)

    patch.setattr(replica, "_apply", applied)
    patch.setattr(replica, "_deliver", delivered)
    patch.setattr(replica, "_put", taken)


def _with(call: calls.Apply, *, epoch: int) -> calls.Apply:
    return calls.Apply(call.key, epoch, call.patch)


def upsert_instead_of_update(patch: pytest.MonkeyPatch) -> None:
    """A write to a session that is not there, or has ended, creates it: what most session stores do."""
    apply, deliver = replica._apply, replica._deliver

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

    patch.setattr(replica, "_apply", applied)
    patch.setattr(replica, "_deliver", delivered)


def rotate_what_was_read(patch: pytest.MonkeyPatch) -> None:
    """The new session gets what the old one held a moment ago; writes go on meanwhile, and the old one ends regardless."""
    freeze, end = replica._freeze, replica._end

    def frozen(record: Record | None, call: calls.Freeze, at: replica.Situation) -> Decision:
        return freeze(record, call, at)._replace(write=False)

    def ended(record: Record | None, call: calls.End, at: replica.Situation) -> Decision:
        return end(record, calls.End(call.key, call.reason, call.owners, call.epoch, call.grace), at)

    patch.setattr(replica, "_freeze", frozen)
    patch.setattr(replica, "_end", ended)


def expire_alone(patch: pytest.MonkeyPatch) -> None:
    """An owner ends a session that nobody used as far as it knows, without asking the other one."""
    patch.setattr(replica, "ALONE_AFTER_S", 0.0)


class Build(NamedTuple):
    """What is broken, and the schedule that shows it (arguments of `run_seed`): some faults never meet some rules."""

    broken: Break
    schedule: Mapping[str, Any] = {}


BUILDS: dict[str, Build] = {
    "ack before the backup": Build(ack_before_the_backup),
    "no epoch check": Build(no_epoch_check, {"kinds": MORE_THAN_ONE}),
    "upsert instead of update": Build(upsert_instead_of_update),
    "rotate what was read": Build(rotate_what_was_read),
    "expire alone": Build(expire_alone, {"kinds": LONG, "idle_s": SHORT_IDLE_S}),
}
