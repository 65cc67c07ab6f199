"""The verdict about a session: a table of what members hold, and what that amounts to."""

from typing import Any

import pytest

from clustersession.core.holdings import Answer, EndFacts, Facts, Holding, Report
from clustersession.core.verdict import _ENDED, Code, Fate, Named, age, names, verdict

HANDLE = "0a" * 16
STARTED_AGO_S = 10_000.0


def facts(**other: Any) -> Facts:
    given: dict[str, Any] = {
        "epoch": 1,
        "version": 3,
        "owners": ("a", "b"),
        "accepted": True,
        "base": 1,
        "keys": 2,
        "bytes": 30,
        "created_ago_s": 60.0,
        "auth_ago_s": None,
        "last_seen_ago_s": 5.0,
        "idle_left_s": 1800.0,
        "absolute_left_s": None,
        "principal": True,
    }
    return Facts(**{**given, **other})


def member(node: str, answer: Answer, held: Facts | None = None, **other: Any) -> Holding:
    return Holding(**{"node": node, "state": "alive", "started_ago_s": STARTED_AGO_S, "answer": answer, "facts": held, **other})


def copy(node: str, **other: Any) -> Holding:
    return member(node, Answer.COPY, facts(**other))


def tombstone(node: str, reason: str, ago_s: float = 5.0, grace_left_s: float | None = None) -> Holding:
    ending = EndFacts(reason=reason, ago_s=ago_s, grace_left_s=grace_left_s)
    return member(node, Answer.ENDED, facts(ended=ending))


def pointer(node: str, epoch: int, owners: tuple[str, str | None], *, retained: bool = False) -> Holding:
    return member(node, Answer.MOVED, facts(epoch=epoch, owners=owners, retained=retained))


def nothing(node: str, started_ago_s: float = STARTED_AGO_S) -> Holding:
    return member(node, Answer.NOTHING, started_ago_s=started_ago_s)


def silent(node: str, state: str = "alive") -> Holding:
    return member(node, Answer.NONE, state=state, why="timeout")


def syncing(node: str) -> Holding:
    return member(node, Answer.SYNCING)


def dead(node: str) -> Holding:
    return silent(node, "dead")


def report(*holdings: Holding, converged: bool = True, hints: tuple[str, ...] = ()) -> Report:
    return Report(handle=HANDLE, asked="c", converged=converged, hints=hints, holdings=holdings)


def cookie(*owners: str | None, floor: tuple[int, int] = (1, 3), age_s: float = 600.0, outlived: bool = False) -> Named:
    return Named(owners=owners, floor=floor, age_s=age_s, outlived=outlived)


BOTH = cookie("a", "b")
IDLE, ABSOLUTE = "expired: idle", "expired: absolute"

TABLE: list[tuple[str, Code, Report, Named | None]] = [
    # somebody has a copy
    ("both owners agree", Code.HELD, report(copy("a"), copy("b"), nothing("c")), BOTH),
    ("a stranger's silence is no matter", Code.HELD, report(copy("a"), copy("b"), silent("c")), None),
    ("an old pointer is no matter", Code.HELD, report(copy("a", epoch=2), copy("b", epoch=2), pointer("c", 1, ("a", "b"))), None),
    ("a write at the master only", Code.BEHIND, report(copy("a", version=4), copy("b")), BOTH),
    ("a mark at the master", Code.BEHIND, report(copy("a", unheld=True), copy("b")), BOTH),
    ("one owner by policy", Code.SINGLE, report(copy("a", owners=("a", None)), nothing("b")), cookie("a")),
    ("the backup is dead", Code.ALONE, report(copy("a"), dead("b"), nothing("c")), BOTH),
    ("the master is silent", Code.ALONE, report(silent("a"), copy("b"), nothing("c")), BOTH),
    ("the master has lost it", Code.ALONE, report(nothing("a"), copy("b"), nothing("c")), BOTH),
    ("the master is being filled", Code.ALONE, report(syncing("a"), copy("b"), nothing("c")), BOTH),
    ("the other owner is forgotten", Code.ALONE, report(copy("a"), nothing("c")), BOTH),
    (
        "a takeover is pending",
        Code.MOVING,
        report(copy("b", epoch=2, accepted=False, owners=("b", "c")), copy("c", epoch=1)),
        BOTH,
    ),
    ("both have an unconfirmed one", Code.MOVING, report(copy("a", accepted=False), copy("b", accepted=False)), BOTH),
    (
        "the other owner still points elsewhere",
        Code.MOVING,
        report(copy("b", epoch=3, owners=("b", "c")), pointer("c", 2, ("a", "b"))),
        BOTH,
    ),
    ("older than the browser has seen", Code.OLDER, report(copy("a", version=2), dead("b")), BOTH),
    ("a newer one may be silent", Code.UNANSWERED, report(copy("a", version=2), silent("b")), BOTH),
    ("a pointer beyond it, owners dead", Code.OLDER, report(copy("a"), dead("b"), pointer("d", 2, ("b", None))), None),
    ("a pointer beyond it, owner silent", Code.UNANSWERED, report(copy("a"), silent("b"), pointer("d", 2, ("b", None))), None),
    # it is past a limit
    ("both say that it idled", Code.EXPIRED_IDLE, report(copy("a", expired=IDLE), copy("b", expired=IDLE)), BOTH),
    ("one has heard of a use", Code.HELD, report(copy("a", expired=IDLE), copy("b")), BOTH),
    ("the other owner is dead", Code.EXPIRED_IDLE, report(copy("a", expired=IDLE), dead("b")), BOTH),
    ("the other owner is silent", Code.UNANSWERED, report(copy("a", expired=IDLE), silent("b")), BOTH),
    ("the only owner says so", Code.EXPIRED_ABSOLUTE, report(copy("a", expired=ABSOLUTE, owners=("a", None))), cookie("a")),
    # it ended
    ("logged out", Code.LOGOUT, report(tombstone("a", "logout"), tombstone("b", "logout")), BOTH),
    ("a tombstone is final", Code.LOGOUT, report(copy("a", version=9), tombstone("b", "logout"), silent("c")), BOTH),
    ("emptied", Code.EMPTIED, report(tombstone("a", "emptied")), None),
    ("rotated", Code.ROTATED, report(tombstone("a", "rotated", grace_left_s=4.0)), None),
    ("withdrawn", Code.WITHDRAWN, report(tombstone("a", "withdrawn")), None),
    ("idled", Code.EXPIRED_IDLE, report(tombstone("a", IDLE)), None),
    ("reached its deadline", Code.EXPIRED_ABSOLUTE, report(tombstone("a", ABSOLUTE)), None),
    ("ended by a word of a later release", Code.ENDED, report(tombstone("a", "by decree")), None),
    # a pointer is all there is
    ("its new owners are dead", Code.LOST, report(dead("a"), dead("b"), pointer("c", 2, ("a", "b"))), BOTH),
    ("its new owner is silent", Code.UNANSWERED, report(silent("a"), dead("b"), pointer("c", 2, ("a", "b"))), BOTH),
    ("a last copy was kept", Code.RETAINED, report(dead("a"), nothing("b"), pointer("c", 2, ("a", "b"), retained=True)), BOTH),
    # nobody has anything
    ("both owners are dead", Code.LOST, report(dead("a"), dead("b"), nothing("c")), BOTH),
    ("both have started since", Code.LOST, report(nothing("a", 60.0), nothing("b", 60.0), nothing("c")), BOTH),
    ("one dead, one started since", Code.LOST, report(dead("a"), nothing("b", 60.0), nothing("c")), BOTH),
    ("its hosts are members no more", Code.LOST, report(nothing("c")), cookie(None, None)),
    ("the only owner is dead", Code.LOST, report(dead("a"), nothing("b")), cookie("a")),
    ("one owner never went away", Code.NOTHING, report(nothing("a"), dead("b"), nothing("c")), BOTH),
    ("an owner is silent", Code.UNANSWERED, report(silent("a"), dead("b"), nothing("c")), BOTH),
    ("a suspect is silent", Code.UNANSWERED, report(silent("a", "suspect"), nothing("b")), None),
    ("an owner is in its sync", Code.UNANSWERED, report(syncing("a"), dead("b")), BOTH),
    ("the table is not settled", Code.UNANSWERED, report(dead("a"), dead("b"), nothing("c"), converged=False), BOTH),
    ("a handle, and one member is dead", Code.UNANSWERED, report(dead("a"), nothing("b")), None),
    ("a handle, and one member has left", Code.NOTHING, report(silent("a", "left"), nothing("b")), None),
    ("a handle that nobody knows", Code.NOTHING, report(nothing("a"), nothing("b")), None),
    (
        "a cookie past the absolute limit",
        Code.EXPIRED_ABSOLUTE,
        report(nothing("a"), nothing("b")),
        cookie("a", "b", outlived=True),
    ),
]


@pytest.mark.parametrize(("code", "found", "named"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_the_verdict(code: Code, found: Report, named: Named | None) -> None:
    """What the members hold decides the code, and the code what became of the session."""
    said = verdict(found, named)
    assert (said.code, said.fate) == (code, code.fate)
    assert said.words
    assert "None" not in said.words
    assert "{" not in said.words
    assert not said.words.endswith(".")


def test_the_table_has_every_code() -> None:
    """No verdict is without a row."""
    assert {row[1] for row in TABLE} == set(Code)


def test_every_code_has_a_fate() -> None:
    """Alive, gone and not known are told apart by the code alone."""
    fates = {fate: {code for code in Code if code.fate is fate} for fate in Fate}
    assert fates[Fate.UNKNOWN] == {Code.UNANSWERED}
    assert {code for code, _ in _ENDED.values()} | {Code.ENDED, Code.LOST, Code.NOTHING} == fates[Fate.GONE]


@pytest.mark.parametrize(
    ("found", "named", "words"),
    [
        (report(copy("a"), copy("b")), BOTH, "both owners, a and b, have version 3 of epoch 1"),
        (report(copy("a"), dead("b")), BOTH, "b, its other owner, is dead"),
        (report(copy("a"), silent("b"), silent("c")), BOTH, "c gave no answer either, so requests get a 503"),
        (report(dead("a"), nothing("b", 60.0)), BOTH, "a (dead) and b (started 60 s ago, has nothing of it)"),
        (report(nothing("c")), cookie(None, None), "a host that is no member and a host that is no member"),
        (report(silent("a"), nothing("b"), silent("c")), None, "a and c gave no answer and may have it"),
        (report(dead("a"), dead("b"), nothing("c")), None, "a and b cannot be asked"),
        (
            report(dead("a"), dead("b"), nothing("c"), converged=False),
            BOTH,
            "a and b are dead for c, which may itself be the one",
        ),
        (report(dead("a"), nothing("b"), nothing("c"), converged=False), BOTH, "ask again in a moment"),
        (report(tombstone("a", "logout", 9.0), tombstone("b", "logout", 300.0)), None, "logged out 5 min ago"),
        (report(tombstone("a", "rotated", 2.0, 8.0)), None, "for 8 s parallel requests may still read it"),
        (report(tombstone("a", "by decree")), None, "by decree"),
        (report(member("c", Answer.MOVED, facts(principal=False)), nothing("a")), None, "made room in a full store"),
    ],
)
def test_the_words_name_who_and_when(found: Report, named: Named | None, words: str) -> None:
    """The sentence says which nodes it is about."""
    assert words in verdict(found, named).words


def test_what_else_is_known_comes_as_notes() -> None:
    """A rotation, a session of another system, a record of the adoption and waiting hints are said beside the verdict."""
    plain = verdict(report(copy("a"), copy("b")))
    notes = verdict(report(copy("a", frozen=True, mirrored=True, adoption=True), copy("b"), hints=("a", "b"))).notes
    assert plain.notes == ()
    assert len(notes) == 4
    assert "c still has to tell a and b of a change to it." in notes


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3.0, "0 s"), (1.4, "1 s"), (119.0, "119 s"), (120.0, "2 min"), (7200.0, "2 h"), (400_000.0, "5 d")]
)
def test_spans_of_time_are_short(seconds: float, text: str) -> None:
    """One number and one unit."""
    assert age(seconds) == text


def test_names_are_joined_as_in_a_sentence() -> None:
    """The last one with 'and'."""
    assert (names(["a"]), names(["a", "b"]), names(["a", "b", "c"])) == ("a", "a and b", "a, b and c")
