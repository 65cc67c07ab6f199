"""Kept: a record under a key to which several hosts may come at the same time, or what another of them has stored."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import Apply, Deliver, Export, Fetch, Put, Settle
from clustersession.core.operations import Ended, Loaded, LoadOutcome, Unavailable, kept
from clustersession.core.operations import put as put_change
from clustersession.core.record import Record

from ..play import SILENT, Played, Script, play
from ..records import KEY, patch, record
from .cluster import cluster, found, gone

MINE, THEIRS = record(1, 1, patches=(b"mine",)), record(1, 1, patches=(b"theirs",))
TAKEN, NONE, HELD, DONE = calls.Conflict(1, ("a", "b")), calls.NotMine(), calls.Held(1), calls.Done()
AT_MASTER: Script = {("a", Put): [TAKEN], ("a", Fetch): [found(THEIRS, serving=True)], ("b", Fetch): [NONE]}


def run(script: Script, record: Record = MINE) -> Played[LoadOutcome]:
    return play(kept(cluster(nodes="ab"), KEY, record), script)


def test_what_another_has_stored_is_brought_to_its_backup() -> None:
    """It may have died before it came there."""
    played = run({**AT_MASTER, ("b", Put): [HELD], ("a", Settle): [DONE], ("b", Settle): [DONE]})
    assert played.outcome == Loaded(THEIRS)
    assert played.calls(Put) == [("a", Put(KEY, MINE)), ("b", Put(KEY, THEIRS))]


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({("b", Put): [gone()], ("b", Export): [calls.Exported(None)]}, Ended("logout")),
        ({("b", Put): [HELD], ("a", Settle): [NONE]}, Loaded(THEIRS)),
    ],
    ids=["ended meanwhile", "cannot be settled now"],
)
def test_what_becomes_of_it_meanwhile_counts(answers: Script, outcome: LoadOutcome) -> None:
    """An end; if it cannot be brought there, what may be read as it is."""
    assert run({**AT_MASTER, **answers}).outcome == outcome


def test_it_is_looked_for_again_where_it_has_moved() -> None:
    """The backup knows of later owners."""
    later = record(3, 4, ("b", "a"))
    script: Script = {
        **AT_MASTER,
        ("a", Fetch): [found(THEIRS, serving=True), found(THEIRS)],
        ("b", Fetch): [NONE, found(later, serving=True)],
        ("b", Put): [calls.Conflict(3, ("b", "a"))],
        ("b", Export): [calls.Exported(None)],
    }
    assert run(script).outcome == Loaded(later)


def test_a_master_that_gives_no_answer_leaves_it_open() -> None:
    """Nobody else has anything, but that one may."""
    assert isinstance(run({("a", Put): [SILENT], ("a", Fetch): SILENT, ("b", Fetch): NONE}).outcome, Unavailable)


def test_a_change_goes_into_the_record_that_another_has_stored_first() -> None:
    """Not into one of its own beside that."""
    change = patch(5)
    script: Script = {
        ("a", Fetch): [NONE, found(THEIRS, serving=True)],
        ("b", Fetch): [NONE, NONE],
        ("a", Put): [TAKEN],
        ("a", Apply): [calls.Applied(1, 2, ("a", "b"))],
        ("b", Deliver): [calls.Held(2)],
    }
    played = play(put_change(cluster(nodes="ab"), KEY, MINE, lambda held: change), script)
    assert played.outcome is True
    assert played.calls(Apply) == [("a", Apply(KEY, 1, change))]


def test_a_change_does_not_bring_back_what_has_ended() -> None:
    """Another has stored it and ended it at once."""
    script: Script = {("a", Fetch): [NONE, gone()], ("b", Fetch): [NONE, gone()], ("a", Put): [gone()]}
    assert play(put_change(cluster(nodes="ab"), KEY, MINE, lambda held: patch(5)), script).outcome is False
