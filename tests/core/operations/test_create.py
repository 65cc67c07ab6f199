"""Create: a new session is on two nodes before anybody gets its ID."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import Absorb, Export, Promote, Put, Settle
from clustersession.core.effects import Operation
from clustersession.core.operations import (
    Cluster,
    CreateOutcome,
    Placement,
    Saved,
    Unavailable,
    create,
    new_record,
)
from clustersession.core.record import Lifetime, Record, live_items

from ..play import REFUSED, SILENT, Played, Script, play
from ..records import KEY, NOW, patch, record, tombstone
from .cluster import cluster, gone, next_backup, promoted

NEW = record(1, 1, ("a", "e"))
HELD, DONE = calls.Held(1), calls.Done()
REPLACED: Script = {
    ("a", Put): [HELD],
    ("a", Promote): [promoted(NEW, ("a", "b"))],
    ("b", Put): [HELD],
    ("a", Settle): [DONE],
    ("b", Settle): [DONE],
}


def run(script: Script, seen: Cluster | None = None, new: Record = NEW) -> Played[CreateOutcome]:
    operation: Operation[CreateOutcome] = create(seen or cluster(), KEY, new)
    return play(operation, script)


def made(seen: Cluster) -> Record:
    lifetime = Lifetime(1800.0, NOW + 43200)
    return new_record(seen, KEY, now=NOW, patch=patch(3, x=b"1"), principal="u", auth_time=NOW, lifetime=lifetime)


def test_a_new_record_is_of_this_host_and_the_first_of_the_key_s_order() -> None:
    """Epoch and version 1, accepted, with the first patch in it and all that is known of its user."""
    new = made(cluster())
    assert (new.owners, new.epoch, new.version, new.accepted, new.base) == (("a", next_backup("a")), 1, 1, True, 1)
    assert (live_items(new), new.patches, new.principal, new.auth_time) == ({"x": b"1"}, (patch(3).id,), "u", NOW)
    assert (new.created, new.last_seen, new.lifetime) == (NOW, NOW, Lifetime(1800.0, NOW + 43200))


def test_a_new_record_has_no_backup_where_there_is_none() -> None:
    """Neither this host nor a dead one is a second copy."""
    assert made(cluster(nodes="ab", dead="b")).owners == ("a", None)


def test_a_new_session_is_stored_here_and_on_its_backup() -> None:
    """One call each, and it is acked by two."""
    played = run({("a", Put): [HELD], ("e", Put): [HELD]})
    assert (played.outcome, played.log) == (Saved(Placement(1, ("a", "e")), 1, copies=2), ["a Put", "e Put"])


@pytest.mark.parametrize("answer", [calls.Full(), calls.Unreachable("down")])
def test_a_host_that_cannot_store_it_says_so(answer: calls.Reply) -> None:
    """Nobody else has heard of it."""
    played = run({("a", Put): [answer]})
    assert isinstance(played.outcome, Unavailable)
    assert played.outcome.why in ("a: full", "a: down")


@pytest.mark.parametrize("answer", [SILENT, REFUSED, calls.Full()])
def test_another_backup_takes_the_place_of_a_silent_one(answer: calls.Reply) -> None:
    """Before the answer; the ID then names that one."""
    played = run({**REPLACED, ("e", Put): [answer]})
    assert played.outcome == Saved(Placement(2, ("a", "b")), 1, copies=2)
    assert played.calls(Promote) == [("a", Promote(KEY, 1, ("a", "b"), "e"))]


def test_one_copy_counts_as_one() -> None:
    """Where there is nobody else, or the only other one is silent; `min_copies=2` refuses both."""
    alone = Saved(Placement(1, ("a", None)), 1, copies=1)
    assert run({("a", Put): [HELD]}, cluster(nodes="a"), record(1, 1, ("a", None))).outcome == alone
    silent: Script = {("a", Put): [HELD], ("e", Put): [SILENT], ("a", Promote): [promoted(NEW, ("a", None))]}
    assert run(silent, cluster(nodes="ae")).outcome == Saved(Placement(2, ("a", None)), 1, copies=1)
    refused = run({("a", Put): [HELD]}, cluster(nodes="a", min_copies=2), record(1, 1, ("a", None)))
    assert refused.outcome == Unavailable("no second node can take a copy")
    silent = {("a", Put): [HELD], ("e", Put): [SILENT]}
    assert isinstance(run(silent, cluster(nodes="ae", min_copies=2)).outcome, Unavailable)


def test_a_session_that_nobody_else_takes_is_not_acked() -> None:
    """Two candidates were silent: which of them holds it is not known."""
    script: Script = {**REPLACED, ("e", Put): [SILENT], ("b", Put): [SILENT, SILENT]}
    script = {key: value for key, value in script.items() if key[1] is not Settle}
    outcome = run({**script, ("a", Promote): promoted(NEW, ("a", "b"))}).outcome
    assert outcome == Unavailable("e gave no answer, nor could another node take a copy")


def test_a_new_session_that_has_ended_already_is_not_acked() -> None:
    """A tombstone can only be there if the ID was known before: nothing is stored over it."""
    ended_record = promoted(tombstone(1, ("a", "e")), ("a", "b"))
    for answer in (gone(), ended_record):
        script: Script = {("a", Put): [HELD], ("e", Put): [SILENT], ("a", Promote): [answer]}
        if answer is ended_record:
            script = {**REPLACED, **script}
        assert isinstance(run(script).outcome, Unavailable)


def test_who_meets_another_s_record_at_the_master_leaves_none() -> None:
    """The backup is not asked: both would hold another one."""
    played = run({("a", Put): [calls.Conflict(1, ("a", "e"))]})
    assert played.outcome == Unavailable("a: conflict")


def test_a_record_gives_way_to_another_s_on_its_backup() -> None:
    """The master had lost that one. Of one history nothing tells which counts, so the backup goes on with a new one."""
    theirs = promoted(NEW, ("e", "b"))
    script: Script = {
        ("a", Put): [HELD],
        ("e", Put): [calls.Conflict(1, ("a", "e"))],
        ("e", Promote): [theirs],
        ("b", Put): [HELD],
        ("e", Settle): [DONE],
        ("b", Settle): [DONE],
        ("e", Export): [calls.Exported(theirs.record)],
        ("a", Absorb): [calls.Absorbed()],
    }
    played = run(script)
    assert played.outcome == Unavailable("e: holds what another has stored")
    assert played.calls(Promote) == [("e", Promote(KEY, 1, ("e", "b"), "a"))]
    assert played.calls(Absorb) == [("a", Absorb(KEY, theirs.record, "e"))]


def test_a_record_gives_way_to_a_later_history_on_its_backup() -> None:
    """That one wins by its epoch wherever the two meet."""
    later = record(4, 9, ("e", "c"))
    script: Script = {
        ("a", Put): [HELD],
        ("e", Put): [calls.Conflict(4, ("e", "c"))],
        ("e", Export): [calls.Exported(later)],
        ("a", Absorb): [calls.Absorbed()],
    }
    assert isinstance(run(script).outcome, Unavailable)
