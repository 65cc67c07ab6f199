"""Broken builds by name, and what shows each of them."""

from __future__ import annotations

from typing import NamedTuple

from . import broken, tallies
from .copies import COPIES


class Build(NamedTuple):
    """What is broken, the schedule that shows it (of `schedules`), the rules of the checker one of which is then broken, and a
    seed that shows it, to be tried first. `covered`: what had to be broken besides, as another rule hides it; by itself that
    shows nothing in this seed."""

    broken: broken.Break
    rules: frozenset[str]
    schedule: str = "one at a time"
    first: int = 0
    covered: broken.Break | None = None


LOST = frozenset(("lost write", "read went back", "session lost"))
UNDONE = frozenset(("logout undone: read", "logout undone: write"))
TWICE = frozenset((tallies.TWICE,))
LOST_COUNTS = frozenset(("lost operation", "read went back"))
OVERWRITTEN = frozenset(("not based on the last",))
BUILDS: dict[str, Build] = {
    "ack before the backup": Build(broken.ack_before_the_backup, LOST),
    "create acked by one": Build(broken.create_acked_by_one, LOST, first=2),
    "no epoch check": Build(broken.no_epoch_check, LOST, "many calls fail at once", 3),
    "upsert instead of update": Build(broken.upsert_instead_of_update, UNDONE),
    "rotate what was read": Build(broken.rotate_what_was_read, LOST, first=7),
    "expire alone": Build(broken.expire_alone, LOST, "long faults, short sessions", 3),
    "no lease": Build(broken.no_lease_hints_kept, UNDONE, "cuts that nobody takes for a death", 27, covered=broken.hints_kept),
    "no hints": Build(broken.no_hints, UNDONE, first=7),
    "an end is acked by one owner": Build(broken.end_at_one_owner, UNDONE, first=9),
    "the newer wins over the tombstone": Build(broken.newer_over_tombstone, UNDONE, "one host alone"),
    "repair copies from a node that has not synced": Build(
        broken.copies_from_unsynced_taken, LOST | UNDONE, "everything", 30, covered=broken.any_record_taken_or_none_offered
    ),
    "no re-delivery": Build(broken.no_redelivery, LOST, "half done, and then only read", 2),
    "pending is accepted": Build(broken.pending_as_accepted_untold, LOST | UNDONE, "swizzle", 15, covered=broken.rivals_not_told),
    "no record is final": Build(broken.no_record_is_final, LOST),
    "patch ids are forgotten": Build(broken.patch_ids_forgotten, TWICE),
    "a merge brings no patch ids": Build(broken.merged_without_ids, TWICE, "short sessions", 47),
    "an operation goes as a plain value": Build(broken.counted_where_it_is_read, LOST_COUNTS, first=1),
    "the fence of a lock is not checked": Build(broken.no_fence, OVERWRITTEN, first=2),
    "what a lock shows was read before": Build(broken.locked_after_reading, OVERWRITTEN),
    "what is expected is not compared": Build(broken.nothing_expected, OVERWRITTEN, first=12),
    "nothing new since before": Build(
        broken.nothing_new_since_before, LOST | {"no recovery"}, "one host alone", covered=broken.no_comparison_after_a_restart
    ),
    "the last writer wins": Build(broken.last_writer_wins, LOST, "one host alone"),
    "no repair": Build(broken.no_repair, frozenset((COPIES,)), "sessions that nobody uses"),
}
