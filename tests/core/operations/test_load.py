"""Load: who is asked, in which order, and what the answers amount to. Nobody's silence is ever taken for an empty session."""

from __future__ import annotations

import pytest

from clustersession.core import calls
from clustersession.core.calls import Export, Fetch, Promote, Put, Settle
from clustersession.core.effects import Operation
from clustersession.core.operations import Cluster, Ended, Loaded, LoadOutcome, Lost, Target, Unavailable, load
from clustersession.core.operations.loading import SEARCHES_MAX
from clustersession.core.operations.search import HEARD_OF_S
from clustersession.core.record import Ending

from ..play import LATE, REFUSED, SILENT, Played, Script, Scripted, play
from ..records import KEY, item, pending, record, tombstone
from .cluster import LIVE, cluster, found, gone, order, promoted, target

NOT_MINE, LATER, DONE = calls.NotMine(), calls.Later(), calls.Done()
NOBODY: Script = {(node, Fetch): NOT_MINE for node in "abcdefghi"}


def run(script: Script, seen: Cluster | None = None, what: Target | None = None) -> Played[LoadOutcome]:
    operation: Operation[LoadOutcome] = load(seen or cluster(), what or target())
    return play(operation, script)


def fetches(**replies: Scripted) -> Script:
    """One reply to a Fetch for each node named; everybody else holds nothing."""
    asked: Script = {(node, Fetch): [reply] for node, reply in replies.items()}
    return {**NOBODY, **asked}


def test_the_tests_know_the_key_s_order() -> None:
    """The scripts below name nodes, so this must hold: `e` is the first that a survivor recruits."""
    assert order() == ["a", "e", "b", "d", "c"]


# --- the owners answer -------------------------------------------------------------------------------------------------------


def test_an_owner_that_vouches_for_its_copy_needs_no_network() -> None:
    """One look into the own store, for the master and for the backup."""
    for me in ("a", "b"):
        played = run({(me, Fetch): [found(serving=True)]}, cluster(me=me))
        assert (played.outcome, played.log) == (Loaded(LIVE), [f"{me} Fetch"])
        assert played.sent == [(me, Fetch(KEY, 5.0))]


def test_a_tombstone_in_the_own_store_is_final() -> None:
    """Nobody else is asked; the reason and the time since then are handed on."""
    assert run({("a", Fetch): [gone()]}).outcome == Ended("logout", 2.0)


def test_a_host_that_owns_nothing_of_it_asks_the_master_first() -> None:
    """A good answer ends the hedge."""
    played = run({("a", Fetch): [found(serving=True)]}, cluster(me="c"))
    assert (played.outcome, played.log) == (Loaded(LIVE), ["hedge a Fetch"])


@pytest.mark.parametrize("first", [LATE, SILENT, REFUSED, LATER, NOT_MINE, calls.Broken(), found(serving=False)])
def test_the_backup_answers_when_the_master_does_not(first: Scripted) -> None:
    """It is late, refused, gone, not synced, or does not vouch for its copy: the first good answer wins."""
    played = run({("a", Fetch): [first], ("b", Fetch): [found(serving=True)]}, cluster(me="c"))
    assert (played.outcome, played.log) == (Loaded(LIVE), ["hedge a Fetch, b Fetch"])


def test_a_tombstone_from_anyone_wins_over_copies() -> None:
    """Also over one that its owner vouches for."""
    script: Script = {("a", Fetch): [found()], ("b", Fetch): [gone()]}
    assert run(script, cluster(me="c")).outcome == Ended("logout", 2.0)
    assert run(fetches(a=found(), b=SILENT, d=gone()), cluster(me="c")).outcome == Ended("logout", 2.0)


def test_a_rotated_session_is_read_in_its_grace() -> None:
    """As what it was, marked as superseded."""
    graced = tombstone(ended=Ending("rotated", 990.0, 1010.0), items=LIVE.items)
    answer = calls.Gone("rotated", 2.0, 1, ("a", "b"), graced)
    assert run({("a", Fetch): [answer]}).outcome == Loaded(graced, superseded=True)


def test_two_owners_that_hold_the_same_need_no_lease() -> None:
    """What they hold together is as good as one: read without another call."""
    played = run({("a", Fetch): [found()], ("b", Fetch): [found()]}, cluster(me="c"))
    assert (played.outcome, played.log) == (Loaded(LIVE), ["hedge a Fetch, b Fetch"])


def test_the_own_copy_is_not_asked_for_twice() -> None:
    """Without a lease the other owner is asked, alone."""
    played = run({("a", Fetch): [found()], ("b", Fetch): [found()]})
    assert (played.outcome, played.log) == (Loaded(LIVE), ["a Fetch", "b Fetch"])


def test_only_members_that_may_answer_are_asked() -> None:
    """A dead owner and one that is no member cost no time while the other answers."""
    for seen in (cluster(me="c", dead="a"), cluster(me="c", absent="a")):
        assert run({("b", Fetch): [found(serving=True)]}, seen).log == ["b Fetch"]


# --- what both may not hold yet is delivered first (finding F8) --------------------------------------------------------------


def test_a_write_that_one_owner_lacks_is_delivered_before_it_is_read() -> None:
    """The whole record goes to the backup, both are told that it is settled, then it is read."""
    newer = record(1, 4)
    script: Script = {
        ("a", Fetch): [found(newer, unheld=True)],
        ("b", Fetch): [found(LIVE)],
        ("b", Put): [calls.Held(4)],
        ("a", Settle): [DONE],
        ("b", Settle): [DONE],
    }
    played = run(script, cluster(me="c"))
    assert played.outcome == Loaded(newer)
    assert played.log == ["hedge a Fetch, b Fetch", "b Put", "a Settle", "b Settle", "tell a Settle"]
    assert played.calls(Put) == [("b", Put(KEY, newer))]


def test_a_change_of_owners_that_both_hold_is_settled_before_it_is_read() -> None:
    """Nothing has to be sent again, only the master and then the backup told."""
    change = pending(2, 3)
    script: Script = {
        ("a", Fetch): [found(change)],
        ("b", Fetch): [found(change)],
        ("a", Settle): [DONE],
        ("b", Settle): [DONE],
    }
    played = run(script, cluster(me="c"))
    assert played.outcome == Loaded(change.but(accepted=True, base=2))
    assert played.log[1:] == ["a Settle", "b Settle", "tell a Settle"]


def test_a_write_that_both_hold_but_nobody_has_settled_is_settled_first() -> None:
    """Its coordinator may have died between the two."""
    script: Script = {
        ("a", Fetch): [found(unheld=True)],
        ("b", Fetch): [found()],
        ("a", Settle): [DONE],
        ("b", Settle): [DONE],
    }
    assert run(script, cluster(me="c")).log[1:] == ["a Settle", "b Settle", "tell a Settle"]


def test_an_end_that_shows_in_the_delivery_is_the_answer() -> None:
    """The backup knew it, the master did not: it is taught, and the session is over."""
    script: Script = {
        ("a", Fetch): [found(record(1, 4))],
        ("b", Fetch): [found()],
        ("b", Put): [gone()],
        ("b", Export): [calls.Exported(tombstone())],
        ("a", calls.Absorb): [calls.Absorbed()],
    }
    assert run(script, cluster(me="c")).outcome == Ended("logout")


def test_a_backup_that_is_ahead_of_what_was_read_of_the_master_is_read() -> None:
    """Both hold that write by now, or its master is gone: nothing has to be delivered."""
    ahead = record(1, 4)
    played = run(fetches(a=found(), b=found(ahead)), cluster(me="c"))
    assert played.outcome == Loaded(ahead)


def test_a_delivery_that_moves_the_session_is_read_from_its_survivor() -> None:
    """The backup fell silent between its answer and the delivery; another one holds the record now."""
    script: Script = {
        **NOBODY,
        ("a", Fetch): [found(record(1, 4))],
        ("b", Fetch): [found()],
        ("b", Put): SILENT,
        ("a", Promote): [promoted(record(1, 4), ("a", "e"))],
        ("e", Put): [calls.Held(4)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    outcome = run(script, cluster(me="c")).outcome
    assert isinstance(outcome, Loaded)
    assert outcome.record.version == 4


# --- one owner has it, the other gives no answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("silence", [SILENT, REFUSED, LATER, calls.Broken(), calls.Full()])
def test_an_owner_serves_its_synced_copy_when_the_other_gives_no_answer(silence: calls.Reply) -> None:
    """After the first of the key's order were asked whether they know of a change of owners."""
    for me in ("a", "c"):
        played = run(fetches(a=found(), b=silence), cluster(me=me))
        assert played.outcome == Loaded(LIVE)
        assert played.log[-1] == ("all e Fetch, d Fetch, c Fetch")


def test_what_only_one_owner_holds_for_certain_is_moved_before_it_is_read() -> None:
    """A write that the silent one may lack gets a second holder first: a failover cannot take back what was read."""
    script: Script = {
        **fetches(a=found(unheld=True), b=SILENT),
        ("a", Promote): [promoted(LIVE, ("a", "e"))],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    played = run(script)
    assert played.outcome == Loaded(record(2, 3, ("a", "e"), items=LIVE.items))
    assert played.calls(Promote) == [("a", Promote(KEY, 1, ("a", "e"), "b"))]


def test_a_copy_whose_other_owner_is_dead_gets_a_new_backup_when_it_is_read() -> None:
    """And comes back with its new placement, so that the cookie can say so."""
    script: Script = {
        **fetches(a=found()),
        ("a", Promote): [promoted(LIVE, ("a", "e"))],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    outcome = run(script, cluster(dead="b")).outcome
    assert isinstance(outcome, Loaded)
    assert outcome.placement == (2, ("a", "e"))


def test_without_a_new_backup_a_settled_copy_is_read_all_the_same() -> None:
    """Nothing in it could be taken back by a failover."""
    script: Script = {
        **fetches(a=found()),
        ("a", Promote): [promoted(LIVE, ("a", "e")), promoted(LIVE.but(epoch=2), ("a", "e"))],
        ("e", Put): SILENT,
    }
    assert run(script, cluster(dead="b")).outcome == Loaded(LIVE)


def test_what_may_be_taken_back_is_not_read_while_the_other_owner_may_be_alive() -> None:
    """It is unavailable for the moment; the word names who is waited for."""
    script: Script = {**fetches(a=found(unheld=True), b=SILENT), ("a", Promote): promoted(LIVE, ("a", "e")), ("e", Put): SILENT}
    assert run(script).outcome == Unavailable("b: timeout")


def test_an_end_that_shows_in_the_move_is_the_answer() -> None:
    """From the survivor, as a refusal or as the record it would hand on."""
    ended_record = promoted(tombstone(1), ("a", "e"))
    script: Script = {
        **fetches(a=found(unheld=True), b=SILENT),
        ("a", Promote): [ended_record],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    assert run(script).outcome == Ended("logout")
    script = {**fetches(a=found(unheld=True), b=SILENT), ("a", Promote): [gone("logout")]}
    assert run(script).outcome == Ended("logout")


def test_a_copy_that_others_may_have_outdated_is_not_read() -> None:
    """A former owner that should be alive is silent, and the second owner too: that is more than one fault."""
    script = fetches(c=SILENT, a=SILENT, b=found(record(2, 3, ("b", "a"))))
    outcome = run(script, cluster(me="d"), target("c", "b")).outcome
    assert isinstance(outcome, Unavailable)


def test_a_host_that_was_cut_off_asks_those_it_takes_for_dead_before_it_serves_alone() -> None:
    """Its table is not converged: they may have gone on without it."""
    newer = record(2, 9, ("b", "c"))
    seen = cluster(dead="bcde", converged=False)
    assert run(fetches(a=found(), b=found(newer, serving=True)), seen).outcome == Loaded(newer)
    alone = run({**fetches(a=found(), b=SILENT), ("a", Promote): [promoted(LIVE, ("a", None))]}, seen)
    assert isinstance(alone.outcome, Loaded)
    assert alone.outcome.placement == (2, ("a", None))


def test_the_only_copy_there_is_needs_no_move() -> None:
    """Its single owner was told of a later epoch that nobody has; what it holds is the best there is."""
    single = record(1, 3, ("a", None), accepted=False, base=0)
    assert run(fetches(a=found(single)), what=target("a", None, single=True)).outcome == Loaded(single)


# --- it seems to have expired --------------------------------------------------------------------------------------------------


OVERDUE = calls.Found(LIVE, serving=False, expired="expired: idle")


def test_a_session_has_expired_only_if_both_owners_say_so() -> None:
    """One of them may have missed that it was used: a touch was lost, or its host is cut off."""
    assert run(fetches(a=OVERDUE, b=OVERDUE)).outcome == Ended("expired: idle")
    used = record(1, 3, last_seen=2000.0)
    for reply in (found(used, serving=True), found(used)):
        outcome = run(fetches(a=OVERDUE, b=reply)).outcome
        assert isinstance(outcome, Loaded)
    assert isinstance(run(fetches(a=found(used), b=OVERDUE), cluster(me="c")).outcome, Loaded)


def test_one_owner_is_enough_where_there_is_no_other() -> None:
    """It came back without its files, it is dead and gives no answer when it is asked all the same, or it is no member."""
    assert run(fetches(a=OVERDUE, b=NOT_MINE)).outcome == Ended("expired: idle")
    assert run(fetches(a=OVERDUE, b=SILENT), cluster(dead="b")).outcome == Ended("expired: idle")
    assert run(fetches(a=OVERDUE), cluster(absent="b")).outcome == Ended("expired: idle")
    assert isinstance(run(fetches(a=OVERDUE, b=found(LIVE, serving=True)), cluster(dead="b")).outcome, Loaded)


@pytest.mark.parametrize("silence", [SILENT, LATER])
def test_a_session_is_neither_served_nor_ended_while_the_other_owner_is_silent(silence: calls.Reply) -> None:
    """It may have been used there; in the end the limit counts."""
    assert isinstance(run(fetches(a=OVERDUE, b=silence)).outcome, Unavailable)
    assert run(fetches(a=OVERDUE, b=silence), what=target(patience_over=True)).outcome == Ended("expired: idle")


# --- others are at work on it -----------------------------------------------------------------------------------------------


def test_a_session_that_others_have_moved_meanwhile_is_looked_for_where_it_is_now() -> None:
    """The survivor refuses a second change; the new owners are asked, and nobody who was silent a moment ago."""
    moved_on = found(record(2, 3, ("a", "e")), serving=True)
    script: Script = {
        **NOBODY,
        ("a", Fetch): [found(unheld=True), moved_on],
        ("b", Fetch): [SILENT],
        ("a", Promote): [calls.Conflict(2, ("a", "e"))],
    }
    played = run(script)
    assert played.outcome == Loaded(moved_on.record)
    assert played.log[-2:] == ["wait", "hedge a Fetch"]


def test_an_owner_that_answered_before_the_change_is_asked_again() -> None:
    """Its old answer and the new backup's don't fit together; both hold the change by now."""
    change = record(2, 3, ("a", "e"))
    script: Script = {
        **NOBODY,
        ("a", Fetch): [found(unheld=True), found(change)],
        ("b", Fetch): [SILENT],
        ("e", Fetch): [found(change.but(accepted=False, base=1)), found(change, serving=True)],
    }
    assert run(script).outcome == Loaded(change)


def test_a_session_that_moves_all_the_time_is_unavailable_in_the_end() -> None:
    """The walks are counted."""
    script: Script = {
        **fetches(b=SILENT),
        ("a", Fetch): [found(record(1 + n, 3), unheld=True) for n in range(SEARCHES_MAX)],
        ("a", Promote): [calls.Conflict(2 + n, ("a", "b")) for n in range(SEARCHES_MAX)],
    }
    assert run(script).outcome == Unavailable("b: timeout")


def test_a_new_backup_that_does_not_hold_the_record_yet_gets_it() -> None:
    """It answers, so it is not passed over: the reader finishes what another coordinator has begun."""
    change = pending(2, 3, ("a", "e"))
    script: Script = {
        **fetches(a=found(change, unheld=True)),
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    played = run(script, cluster(me="c"))
    assert played.outcome == Loaded(change.but(accepted=True, base=2))
    assert played.calls(Promote) == []


# --- the floor ---------------------------------------------------------------------------------------------------------------


def test_a_copy_below_the_floor_is_not_served_while_another_may_be_better() -> None:
    """Not even one that its owner vouches for: this user has seen more already."""
    script = fetches(a=found(serving=True), b=SILENT)
    assert run(script, what=target(floor=(1, 4))).outcome == Unavailable("b: timeout")
    better = record(1, 4)
    assert run(fetches(a=found(serving=True), b=found(better, serving=True)), what=target(floor=(1, 4))).outcome == Loaded(better)


def test_the_floor_is_epoch_and_version() -> None:
    """After a fork two records carry the same version (finding F9)."""
    script = fetches(a=found(record(1, 9), serving=True), b=SILENT)
    assert isinstance(run(script, what=target(floor=(2, 1))).outcome, Unavailable)


def test_a_copy_below_the_floor_is_served_when_nobody_has_a_better_one() -> None:
    """Everybody has answered, or is dead for certain: that is all there is left of it."""
    old = found(record(1, 3), serving=True)
    assert run(fetches(a=old, b=NOT_MINE), what=target(floor=(1, 4))).outcome == Loaded(record(1, 3))
    assert run(fetches(a=old), cluster(dead="b"), target(floor=(1, 4))).outcome == Loaded(record(1, 3))
    both = fetches(a=found(record(1, 2)), b=found(record(1, 3)))
    assert run(both, what=target(floor=(1, 4))).outcome == Loaded(record(1, 3))


# --- pointers ----------------------------------------------------------------------------------------------------------------


def test_a_pointer_leads_to_the_owners() -> None:
    """They are asked next, and what they vouch for is read."""
    newer = record(3, 9, ("d", "e"))
    script: Script = {("a", Fetch): [calls.Moved(3, ("d", "e"))], ("d", Fetch): [found(newer, serving=True)]}
    played = run(script)
    assert (played.outcome, played.log) == (Loaded(newer), ["a Fetch", "hedge d Fetch"])


def test_the_highest_pointer_is_followed() -> None:
    """An older one leads nowhere that matters."""
    newest = record(4, 1, ("e", "d"))
    script: Script = {
        ("a", Fetch): [calls.Moved(2, ("b", "c"))],
        ("b", Fetch): [calls.Moved(4, ("e", "d"))],
        ("c", Fetch): [calls.Moved(3, ("d", "c"))],
        ("e", Fetch): [found(newest, serving=True)],
    }
    assert run(script).outcome == Loaded(newest)


def test_a_copy_that_a_pointer_knows_to_be_outdated_is_not_read() -> None:
    """An ex-owner said that there is a later epoch, so a copy of a former one is not good, vouched for or not."""
    script = fetches(a=calls.Moved(3, ("d", "e")), b=found(record(2, 9, ("b", "a")), serving=True), d=SILENT, e=SILENT)
    assert isinstance(run(script).outcome, Unavailable)


def test_pointers_that_lead_round_and_round_end_somewhere() -> None:
    """After a few hops everybody else is asked; the answer is not that it is lost while an owner is silent."""
    script: Script = {
        **NOBODY,
        **{
            (node, Fetch): [calls.Moved(epoch, (after, None))]
            for node, epoch, after in zip("abcde", range(2, 7), "bcdef", strict=True)
        },
        ("f", Fetch): [SILENT],
    }
    assert run(script, cluster(nodes="abcdef"), target("a", None, single=True)).outcome == Unavailable("f: timeout")


def test_the_owners_that_a_copy_names_are_asked_too() -> None:
    """A cookie may be older than a change of owners that its old backup took part in."""
    newer = record(2, 3, ("b", "c"))
    script: Script = {("a", Fetch): [NOT_MINE], ("b", Fetch): [found(newer)], ("c", Fetch): [found(newer)]}
    assert run(script).outcome == Loaded(newer)


# --- an ex-owner retains its last copy (finding F15) ---------------------------------------------------------------------------


RETAINED = calls.Moved(2, ("b", None), retained=True)


def test_a_retained_copy_is_revived_when_the_owners_after_it_are_gone() -> None:
    """The single owner died before anybody took a second copy: what the one before it kept is all there is."""
    revived = promoted(record(2, 3, ("b", None), items=LIVE.items), ("a", "e"))
    script: Script = {
        **fetches(a=RETAINED, b=SILENT),
        ("a", Promote): [revived],
        ("e", Put): [calls.Held(3)],
        ("a", Settle): [DONE],
        ("e", Settle): [DONE],
    }
    played = run(script, cluster(dead="b"))
    assert played.outcome == Loaded(revived.record.but(accepted=True, base=3))
    assert played.calls(Promote) == [("a", Promote(KEY, 2, ("a", "e"), None, revive=True))]


def test_a_retained_copy_is_left_alone_while_a_later_owner_may_be_alive() -> None:
    """It has what was written since."""
    assert run(fetches(a=RETAINED, b=SILENT)).outcome == Unavailable("b: timeout")
    incomplete = run(fetches(a=RETAINED, b=SILENT), cluster(dead="b", converged=False)).outcome
    assert incomplete == Unavailable("the member table is not complete yet")


def test_an_owner_that_came_back_without_its_files_lets_the_retained_copy_live() -> None:
    """It has said that it holds nothing; it may even become the backup."""
    refused = run({**fetches(a=RETAINED, b=NOT_MINE), ("a", Promote): [calls.Later()]})
    assert refused.outcome == Unavailable("a: its last copy could not be revived")


# --- nobody has it -----------------------------------------------------------------------------------------------------------


def test_the_first_of_the_key_s_order_may_know_where_it_is() -> None:
    """They keep pointers to accepted epochs; the owners they name are asked."""
    moved = record(2, 1, ("c", "d"))
    for answer in (calls.Moved(2, ("c", "d")), found(moved, serving=True)):
        script: Script = {**fetches(e=answer), ("c", Fetch): found(moved, serving=True)}
        assert run(script).outcome == Loaded(moved)


def test_a_session_is_lost_only_if_everybody_who_could_have_it_said_so() -> None:
    """Both owners and the first three of the order; who was asked is kept for the log."""
    played = run(NOBODY, cluster(nodes="abcdefghi"))
    asked = ["a", "b", *order("a", "b", nodes="abcdefghi")[:3]]
    assert played.outcome == Lost(tuple(sorted(asked)))
    assert [node for node, _ in played.sent] == asked


@pytest.mark.parametrize("silence", [SILENT, REFUSED, LATER, calls.Broken(), calls.Full()])
@pytest.mark.parametrize("silent", ["a", "b", "ab", "e"])
def test_silence_is_never_taken_for_a_loss(silence: calls.Reply, silent: str) -> None:
    """An owner, or one of those that may know, gave no answer or cannot tell yet: unavailable, and why (finding F6)."""
    outcome = run(fetches(**dict.fromkeys(silent, silence)), cluster(me="c")).outcome
    word = silence.why if isinstance(silence, calls.Unreachable) else type(silence).__name__.lower()
    assert outcome == Unavailable(f"{silent[0]}: {word}")


def test_a_suspect_owner_may_be_alive() -> None:
    """It is asked like any other, and its silence decides nothing."""
    assert run(fetches(b=SILENT), cluster(suspect="b")).outcome == Unavailable("b: timeout")


@pytest.mark.parametrize("where", ["dead", "absent"])
def test_when_an_owner_is_gone_for_good_everybody_is_asked(where: str) -> None:
    """A whole rollout may have renamed the nodes that hold it: first three, then all others at once."""
    nodes = "abcdefghi"
    others = order("a", "b", nodes=nodes)
    seen = cluster(nodes=nodes, **{where: "b"})  # type: ignore[arg-type]
    copy = record(7, 1, (others[-1], "a"))
    played = run(fetches(**{others[-1]: found(copy, serving=True)}), seen)
    assert played.outcome == Loaded(copy)
    assert [line.count("Fetch") for line in played.log] == [1, 3, len(others) - 3]


NAMELESS = [(None, "b"), ("a", None), (None, None)]


@pytest.mark.parametrize(("master", "backup"), NAMELESS)
def test_a_tag_that_no_member_has_is_an_owner_that_is_gone(master: str | None, backup: str | None) -> None:
    """So everybody is asked before the session is called lost."""
    played = run(NOBODY, cluster(nodes="abcdefghi"), target(master, backup, age=HEARD_OF_S))
    assert played.outcome == Lost(tuple("abcdefghi"))


@pytest.mark.parametrize(("master", "backup"), NAMELESS)
def test_a_tag_in_a_new_id_may_be_that_of_a_host_that_has_just_joined(master: str | None, backup: str | None) -> None:
    """Which this host has not heard of yet: nobody is logged out by that. The same where the table is whole."""
    played = run(NOBODY, cluster(nodes="abcdefghi"), target(master, backup, age=HEARD_OF_S - 1))
    assert isinstance(played.outcome, Unavailable)
    assert isinstance(run(NOBODY, what=target(master, backup, age=0.0, patience_over=True)).outcome, Lost)


def test_a_single_owner_that_has_nothing_is_enough() -> None:
    """An ID without a backup names nobody else, so not the whole cluster is asked."""
    played = run(NOBODY, cluster(nodes="abcdefghi"), target("a", None, single=True))
    assert isinstance(played.outcome, Lost)
    assert len(played.sent) == 4


def test_an_owner_that_the_table_calls_dead_is_asked_before_the_session_is_called_lost() -> None:
    """It may have come back a moment ago; if it still gives no answer, it is dead."""
    back = run(fetches(b=found(LIVE, serving=True)), cluster(dead="b"))
    assert (back.outcome, back.log[-1]) == (Loaded(LIVE), "all b Fetch")
    assert run(fetches(b=SILENT), cluster(dead="b")).outcome == Lost(("a", "b", "c", "d", "e"))
    assert run(fetches(b=LATER), cluster(dead="b")).outcome == Unavailable("b: later")


def test_a_dead_owner_is_asked_before_giving_up_while_another_one_is_silent() -> None:
    """The member table may be behind: a host that has just come back still calls others dead."""
    played = run(fetches(a=SILENT, b=SILENT), cluster(me="c", dead="b"))
    assert played.outcome == Unavailable("a: timeout")
    assert [node for node, _ in played.sent][-1] == "b"


def test_an_owner_that_an_incomplete_table_does_not_know_leaves_it_open() -> None:
    """A worker that has just started knows nobody yet."""
    unknown = run(NOBODY, cluster(absent="b", converged=False)).outcome
    assert unknown == Unavailable("b: not asked")
    incomplete = run(NOBODY, cluster(dead="b", converged=False)).outcome
    assert incomplete == Unavailable("the member table is not complete yet")


def test_unavailability_ends_when_the_patience_does() -> None:
    """After the longest time allowed the best copy there is is served, or the session is called lost."""
    over = target(patience_over=True)
    assert isinstance(run(fetches(a=SILENT, b=SILENT), cluster(me="c"), over).outcome, Lost)
    below = target(patience_over=True, floor=(1, 4))
    assert run(fetches(a=found(), b=SILENT), what=below).outcome == Loaded(LIVE)


def test_what_was_read_is_what_the_best_history_holds() -> None:
    """Of several copies the one of the highest rank, and of those the highest version."""
    older, pending_one = record(1, 9), pending(2, 1, items={"x": item(b"2", 2)})
    script = fetches(a=found(older), b=found(pending_one), e=SILENT)
    outcome = run(script, cluster(me="c"), target(floor=(9, 9), patience_over=True)).outcome
    assert outcome == Loaded(pending_one)
