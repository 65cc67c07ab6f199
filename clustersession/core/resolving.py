"""What a patch with expectations, locks and edits makes of the record that its master holds, before it is numbered."""

from __future__ import annotations

from typing import Final

import msgspec

from ..errors import ConflictingWrite, ValueTypeMismatch
from .calls import Differs, Unsuitable
from .counted import counts, done_by
from .edits import check_expected, results_of
from .record import Patch, Record
from .values import HIDDEN

LOCK: Final = f"{HIDDEN}lock "  # before the name of a lock, where a key is named that a patch does not suit


def resolved(record: Record, patch: Patch, now: float) -> Patch | Differs | Unsuitable:
    """`patch` with whole values only, or why nothing of it may be written."""
    if patch.locks or patch.under:
        taken = _taken(record, patch, now)
        if taken is not None:
            return Differs(f"{LOCK}{taken}")
    if not patch.edits and not patch.expected:
        return patch
    items, changes = record.items, patch.changes

    def stored(key: str) -> bytes | None:
        item = items.get(key)
        return None if item is None else item[1]

    def held(key: str) -> bytes | None:
        return changes[key] if key in changes else stored(key)

    try:
        check_expected(patch.expected, stored)
        results = results_of(patch.edits, held)
    except ConflictingWrite as error:
        return Differs(error.key)
    except ValueTypeMismatch as error:
        return Unsuitable(error.operation, error.key, error.found)
    return with_results(patch, results)


def rest_of(record: Record, patch: Patch) -> Patch | None:
    """What of `patch` the record does not have in it yet; None: it has all of it. Some of it only after a merge, of which some
    values came from a master that had numbered it."""
    if not counts(patch.id):
        return None if patch.id in record.patches else patch
    done = done_by(record.counted, patch.id)
    if not done:
        return patch
    edits = tuple(edit for edit in patch.edits if edit.key not in done)
    changes = {key: data for key, data in patch.changes.items() if key not in done}
    return msgspec.structs.replace(patch, changes=changes, edits=edits) if changes or edits else None


def overtaken(record: Record, patch: Patch) -> str | None:
    """The lock that another one has by now, of those that a counting patch was made under. If it came in a merge, that one has
    read what was there without it."""
    held = ((name, record.locks.get(name), token) for name, token in patch.under.items() if counts(patch.id))
    return next((name for name, lock, token in held if lock is not None and lock.token != token), None)


def _taken(record: Record, patch: Patch, now: float) -> str | None:
    """The lock that another one has that this patch is about to take, or was made under."""
    for name, lock in patch.locks.items():
        held = record.locks.get(name)
        if held is not None and held.token != lock.token and held.until > now:
            return name
    for name, token in patch.under.items():
        held = record.locks.get(name)
        if held is None or held.token != token:
            return name
    return None


def with_results(patch: Patch, results: dict[str, bytes] | None) -> Patch:
    """`patch` as it goes on: `results` in the place of the edits that made them, and what was expected is settled."""
    if not patch.edits and not patch.expected:
        return patch
    return msgspec.structs.replace(patch, changes={**patch.changes, **(results or {})}, edits=(), expected={})


def results_in(change: Patch, patch: Patch) -> dict[str, bytes] | None:
    """What the edits of `patch` have made in `change`, for who passes it on to the backup."""
    if not patch.edits:
        return None
    made = ((edit.key, change.changes[edit.key]) for edit in patch.edits)
    return {key: data for key, data in made if data is not None}
