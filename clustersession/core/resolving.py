"""What a patch with expectations and edits makes of the record that its master holds, before it is numbered."""

from __future__ import annotations

import msgspec

from ..errors import ConflictingWrite, ValueTypeMismatch
from .calls import Differs, Unsuitable
from .edits import check_expected, results_of
from .record import Patch, Record


def resolved(record: Record, patch: Patch) -> Patch | Differs | Unsuitable:
    """`patch` with whole values only, or why nothing of it may be written."""
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
