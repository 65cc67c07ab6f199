"""Who is alive, as one host sees it: every event on every state, and what a host may conclude from its table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.config import Timeouts
from clustersession.core.membership import (
    FORGOTTEN_AFTER_S,
    SETTLED_AFTER_S,
    Entry,
    Table,
    after_pause,
    converged,
    heard_from,
    new_table,
    refused_by,
    tick,
    told_of,
    watching,
)
from clustersession.core.node import Member, State

from .records import member

T = Timeouts(suspect_s=1.25, dead_s=3.0)
THEN, NOW = 100.0, 101.0
ALIVE, SUSPECT, DEAD, LEAVING, LEFT = State
UNKNOWN = None


def table(*others: Member, heard: float | None = THEN, since: float = THEN, me: Member | None = None) -> Table:
    """A table in which everybody is watched, as in a small cluster."""
    entries = {each.identity: Entry(each, heard, since) for each in others}
    return Table(me or member("a", incarnation=5), entries, started=0.0, watched=dict.fromkeys(entries, since))


def unwatched(*others: Member) -> Table:
    return table(*others)._replace(watched={})


def of_b(state: State | None, incarnation: int = 5) -> Table:
    return table() if state is None else table(member("b", state, incarnation=incarnation))


def state_of(known: Table, identity: str = "b") -> State | None:
    entry = known.others.get(identity)
    return None if entry is None else entry.member.state


# --- the table: one event on one state ---------------------------------------------------------------------------------------

BEFORE = (UNKNOWN, ALIVE, SUSPECT, DEAD, LEAVING, LEFT)
# for each event what becomes of b, in the order of BEFORE; b is known with incarnation 5
HEARD = {
    (ALIVE, 5): (ALIVE, ALIVE, ALIVE, ALIVE, ALIVE, ALIVE),
    (SUSPECT, 5): (ALIVE, ALIVE, ALIVE, ALIVE, ALIVE, ALIVE),
    (DEAD, 5): (ALIVE, ALIVE, ALIVE, ALIVE, ALIVE, ALIVE),
    (LEAVING, 5): (LEAVING, LEAVING, LEAVING, LEAVING, LEAVING, LEAVING),
    (LEFT, 5): (LEFT, LEFT, LEFT, LEFT, LEFT, LEFT),
    (ALIVE, 6): (ALIVE, ALIVE, ALIVE, ALIVE, ALIVE, ALIVE),
    (LEAVING, 6): (LEAVING, LEAVING, LEAVING, LEAVING, LEAVING, LEAVING),
    (ALIVE, 4): (ALIVE, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (LEAVING, 4): (LEAVING, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
}
TOLD = {
    (ALIVE, 5): (ALIVE, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (SUSPECT, 5): (SUSPECT, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (DEAD, 5): (UNKNOWN, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (LEAVING, 5): (LEAVING, LEAVING, LEAVING, LEAVING, LEAVING, LEFT),
    (LEFT, 5): (UNKNOWN, LEFT, LEFT, LEFT, LEFT, LEFT),
    (ALIVE, 6): (ALIVE, ALIVE, SUSPECT, SUSPECT, SUSPECT, SUSPECT),
    (SUSPECT, 6): (SUSPECT, ALIVE, SUSPECT, SUSPECT, SUSPECT, SUSPECT),
    (DEAD, 6): (UNKNOWN, ALIVE, SUSPECT, SUSPECT, SUSPECT, SUSPECT),
    (LEAVING, 6): (LEAVING, LEAVING, LEAVING, LEAVING, LEAVING, LEAVING),
    (LEFT, 6): (UNKNOWN, LEFT, LEFT, LEFT, LEFT, LEFT),
    (ALIVE, 4): (ALIVE, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (DEAD, 4): (UNKNOWN, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    (LEFT, 4): (UNKNOWN, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
}
SILENCE = {
    1.25: (UNKNOWN, ALIVE, SUSPECT, DEAD, LEAVING, LEFT),
    1.375: (UNKNOWN, SUSPECT, SUSPECT, DEAD, LEAVING, LEFT),
    3.0: (UNKNOWN, SUSPECT, SUSPECT, DEAD, LEAVING, LEFT),
    3.125: (UNKNOWN, DEAD, DEAD, DEAD, LEFT, LEFT),
}
REFUSED = (UNKNOWN, SUSPECT, SUSPECT, DEAD, LEAVING, LEFT)


@pytest.mark.parametrize("said", HEARD, ids=str)
@pytest.mark.parametrize("place", range(len(BEFORE)), ids=[str(state) for state in BEFORE])
def test_a_member_that_answers(said: tuple[State, int], place: int) -> None:
    """It is alive, or leaving if it says so; what a former start of it said is out of date."""
    state, incarnation = said
    known = of_b(BEFORE[place])
    after = heard_from(known, member("b", state, incarnation=incarnation, port=7), NOW)
    assert state_of(after) is HEARD[said][place]
    taken = incarnation >= 5 or BEFORE[place] is UNKNOWN
    assert after == known if not taken else after.others["b"].heard == NOW
    assert not taken or (after.others["b"].member.port, after.others["b"].member.incarnation) == (7, incarnation)


@pytest.mark.parametrize("said", TOLD, ids=str)
@pytest.mark.parametrize("place", range(len(BEFORE)), ids=[str(state) for state in BEFORE])
def test_what_others_say_about_a_member_that_is_watched(said: tuple[State, int], place: int) -> None:
    """It brings new members, newer starts and leavers; whether it is alive this host judges by itself."""
    state, incarnation = said
    after = told_of(of_b(BEFORE[place]), [member("b", state, incarnation=incarnation)], NOW)
    assert state_of(after) is TOLD[said][place]
    if "b" in after.others:
        entry = after.others["b"]
        assert entry.heard == (None if BEFORE[place] is UNKNOWN else THEN)
        assert entry.member.incarnation == (incarnation if BEFORE[place] is UNKNOWN else max(incarnation, 5))
        assert entry.since == (THEN if entry.member.state is BEFORE[place] else NOW)


@pytest.mark.parametrize("silent_s", SILENCE)
@pytest.mark.parametrize("place", range(len(BEFORE)), ids=[str(state) for state in BEFORE])
def test_silence_becomes_suspicion_and_then_death(silent_s: float, place: int) -> None:
    """Counted from the last answer; who said that it would leave has left."""
    after = tick(of_b(BEFORE[place]), THEN + silent_s, T)
    assert state_of(after) is SILENCE[silent_s][place]
    if "b" in after.others and after.others["b"].member.state is not BEFORE[place]:
        assert after.others["b"].since == THEN + silent_s


@pytest.mark.parametrize("place", range(len(BEFORE)), ids=[str(state) for state in BEFORE])
def test_a_refused_connection_makes_an_alive_one_suspect_at_once(place: int) -> None:
    """Its process is gone or restarting; of the others nothing new is learnt."""
    after = refused_by(of_b(BEFORE[place]), "b", NOW)
    assert state_of(after) is REFUSED[place]
    assert after == of_b(BEFORE[place]) or after.others["b"].since == NOW


def test_a_member_that_never_answered_is_dead_after_a_while() -> None:
    """Counted from when it was first heard of: a seed that does not exist must not keep the table undecided."""
    known = watching(told_of(table(), [member("b")], NOW), ["b"], NOW)
    assert state_of(tick(known, NOW + 2.9, T)) is SUSPECT
    assert state_of(tick(known, NOW + 3.1, T)) is DEAD


def test_the_dead_and_those_that_left_are_forgotten_when_their_tombstones_are() -> None:
    """Until then a session that names them can be explained; the living are never forgotten."""
    for state, kept in ((DEAD, None), (LEFT, None), (ALIVE, DEAD)):
        assert state_of(tick(of_b(state), THEN + FORGOTTEN_AFTER_S, T)) is (DEAD if state is ALIVE else state)
        assert state_of(tick(of_b(state), THEN + FORGOTTEN_AFTER_S + 1, T)) is kept


def test_who_left_is_forgotten_although_everybody_still_tells_of_it() -> None:
    """That others repeat it does not renew it: rollouts with new names must not make the table grow for ever."""
    known = of_b(LEFT)
    for hour in range(1, 26):
        known = told_of(tick(known, THEN + 3600.0 * hour, T), [member("b", LEFT, incarnation=5)], THEN + 3600.0 * hour)
    assert state_of(known) is LEFT
    gone = tick(known, THEN + FORGOTTEN_AFTER_S + 1, T)
    assert state_of(gone) is UNKNOWN
    assert told_of(gone, [member("b", LEFT, incarnation=5)], NOW) == gone


# --- gossip: who is not watched -----------------------------------------------------------------------------------------------

# what becomes of b, in the order of BEFORE without UNKNOWN, when one says so, and when a second one does
HEARSAY = {
    (ALIVE, 5): ((ALIVE, SUSPECT, DEAD, LEAVING, LEFT), (ALIVE, SUSPECT, DEAD, LEAVING, LEFT)),
    (SUSPECT, 5): ((ALIVE, SUSPECT, DEAD, LEAVING, LEFT), (SUSPECT, SUSPECT, DEAD, LEAVING, LEFT)),
    (DEAD, 5): ((ALIVE, SUSPECT, DEAD, LEAVING, LEFT), (DEAD, DEAD, DEAD, LEAVING, LEFT)),
    (LEAVING, 5): ((LEAVING, LEAVING, LEAVING, LEAVING, LEFT), (LEAVING, LEAVING, LEAVING, LEAVING, LEFT)),
    (LEFT, 5): ((LEFT, LEFT, LEFT, LEFT, LEFT), (LEFT, LEFT, LEFT, LEFT, LEFT)),
    (ALIVE, 6): ((ALIVE, ALIVE, ALIVE, ALIVE, ALIVE), (ALIVE, ALIVE, ALIVE, ALIVE, ALIVE)),
    (SUSPECT, 6): ((ALIVE, SUSPECT, DEAD, SUSPECT, SUSPECT), (SUSPECT, SUSPECT, DEAD, SUSPECT, SUSPECT)),
    (DEAD, 6): ((ALIVE, SUSPECT, DEAD, SUSPECT, SUSPECT), (DEAD, DEAD, DEAD, DEAD, DEAD)),
    (DEAD, 4): ((ALIVE, SUSPECT, DEAD, LEAVING, LEFT), (ALIVE, SUSPECT, DEAD, LEAVING, LEFT)),
}


@pytest.mark.parametrize("said", HEARSAY, ids=str)
@pytest.mark.parametrize("place", range(5), ids=[str(state) for state in BEFORE[1:]])
def test_what_others_say_about_a_member_that_is_not_watched(said: tuple[State, int], place: int) -> None:
    """A higher incarnation wins, within one incarnation dead over suspect over alive, if two say so; who leaves says it
    itself."""
    rumour = [member("b", said[0], incarnation=said[1])]
    once = told_of(unwatched(member("b", BEFORE[place + 1] or ALIVE, incarnation=5)), rumour, NOW, "c")
    assert state_of(once) is HEARSAY[said][0][place]
    assert state_of(told_of(once, rumour, NOW, "c")) is HEARSAY[said][0][place]
    assert state_of(told_of(once, rumour, NOW, "d")) is HEARSAY[said][1][place]


def test_one_that_suspects_and_one_that_takes_it_for_dead_make_a_suspect() -> None:
    """Two say at least that; what one says later does not take back what it said."""
    known = told_of(unwatched(member("b", incarnation=5)), [member("b", DEAD, incarnation=5)], NOW, "c")
    known = told_of(known, [member("b", SUSPECT, incarnation=5)], NOW, "c")
    known = told_of(known, [member("b", SUSPECT, incarnation=5)], NOW, "d")
    assert state_of(known) is SUSPECT
    assert state_of(told_of(known, [member("b", DEAD, incarnation=5)], NOW, "d")) is DEAD


def test_an_answer_or_a_refutation_ends_all_doubts() -> None:
    """After that two must say it anew."""
    rumour, later = member("b", DEAD, incarnation=5), member("b", DEAD, incarnation=6)
    doubted = told_of(unwatched(member("b", incarnation=5)), [rumour], NOW, "c")
    assert state_of(told_of(heard_from(doubted, member("b", incarnation=5), NOW), [rumour], NOW, "d")) is ALIVE
    refuted = told_of(told_of(doubted, [rumour], NOW, "d"), [member("b", incarnation=6)], NOW, "d")
    assert state_of(refuted) is ALIVE
    assert state_of(told_of(refuted, [rumour, later], NOW, "c")) is ALIVE


@pytest.mark.parametrize("place", range(len(BEFORE)), ids=[str(state) for state in BEFORE])
def test_the_silence_of_who_is_not_asked_means_nothing(place: int) -> None:
    """Only who is watched grows old."""
    known = of_b(BEFORE[place])._replace(watched={})
    assert state_of(tick(known, THEN + 60, T)) is BEFORE[place]


def test_hearsay_is_not_enough_for_who_is_watched() -> None:
    """From then on it is suspect until it answers; who had answered in its state stays what it is, and its silence counts
    from then on."""
    hearsay = watching(told_of(table(), [member("b")], NOW), ["b"], NOW + 9)
    assert state_of(hearsay) is SUSPECT
    assert state_of(heard_from(hearsay, member("b"), NOW + 9)) is ALIVE
    back = told_of(unwatched(member("b", DEAD, incarnation=5)), [member("b", incarnation=6)], NOW)
    assert (state_of(back), state_of(watching(back, ["b"], NOW))) == (ALIVE, SUSPECT)
    answered = watching(unwatched(member("b")), ["b"], NOW + 9)
    assert state_of(tick(answered, NOW + 10, T)) is ALIVE
    assert state_of(tick(answered, NOW + 10.5, T)) is SUSPECT
    rumour = [member("b", DEAD)]
    assert (
        state_of(told_of(told_of(hearsay, rumour, NOW + 9, "c"), rumour, NOW + 9, "d")) is DEAD
    )  # not heard yet: hearsay counts
    heard = heard_from(hearsay, member("b"), NOW + 9)
    assert told_of(told_of(heard, rumour, NOW + 9, "c"), rumour, NOW + 9, "d") == heard
    again = watching(answered, ["b"], NOW + 60)
    assert again.watched == {"b": NOW + 9}
    assert watching(again, [], NOW + 60).watched == {}


def test_who_has_not_answered_since_it_is_watched_is_undecided() -> None:
    """A host that was cut off takes one after the other for its partners, and must conclude nothing from those it has not
    asked yet."""
    known = watching(unwatched(member("b")), ["b"], NOW + 9)
    assert not converged(known, NOW + 9, T)
    assert converged(heard_from(known, member("b"), NOW + 9), NOW + 9, T)
    assert converged(unwatched(member("b", SUSPECT), member("c")), NOW, T)


# --- about this host itself --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SUSPECT, DEAD, LEFT])
def test_a_host_refutes_its_own_death(state: State) -> None:
    """It answers with a higher incarnation, once: what is said of a former one is refuted already."""
    known = told_of(table(), [member("a", state, incarnation=5)], NOW)
    assert known.me.incarnation == 6
    assert told_of(known, [member("a", state, incarnation=5)], NOW) == known
    assert state_of(heard_from(table(member("b", DEAD, incarnation=5)), member("b", incarnation=6), NOW)) is ALIVE


def test_a_host_is_newer_than_everything_that_is_known_of_it() -> None:
    """Also if its clock went back: a later start that others know is one of its own."""
    assert told_of(table(), [member("a", incarnation=9)], NOW).me.incarnation == 10
    assert told_of(table(), [member("a", incarnation=5)], NOW).me.incarnation == 5
    assert told_of(table(), [member("a", LEAVING, incarnation=5)], NOW).me.incarnation == 5


def test_a_host_that_leaves_does_not_refute_it() -> None:
    """What it said itself is no rumour."""
    leaving = table(me=member("a", LEAVING, incarnation=5))
    assert told_of(leaving, [member("a", LEFT, incarnation=5)], NOW) == leaving


def test_a_host_is_not_its_own_peer() -> None:
    """One of the seeds is mostly this host itself."""
    assert heard_from(table(), member("a", incarnation=9), NOW) == table()


# --- what may be concluded ---------------------------------------------------------------------------------------------------


def test_a_table_is_converged_when_nobody_is_undecided() -> None:
    """And when this host has listened long enough to have heard of everybody."""
    assert converged(table(member("b"), member("c", DEAD), member("d", LEFT)), NOW, T)
    assert not converged(table(member("b"), member("c", SUSPECT)), NOW, T)
    young = table(member("b"))._replace(started=NOW - T.suspect_s)
    assert not converged(young, NOW, T)
    assert converged(young, NOW + 0.1, T)


def test_who_seeks_others_and_has_met_none_is_not_converged_for_a_minute() -> None:
    """It can't tell whether it is the first of them or cannot reach them; with the first that it meets the table decides."""
    alone = new_table(member("a"), NOW, seeking=True)
    assert not converged(alone, NOW + SETTLED_AFTER_S, T)
    assert converged(alone, NOW + SETTLED_AFTER_S + 0.1, T)
    assert converged(new_table(member("a"), NOW), NOW + T.suspect_s + 0.1, T)
    met = heard_from(alone, member("b"), NOW + T.suspect_s)
    assert not met.seeking
    assert converged(met, NOW + T.suspect_s + 0.1, T)
    still = told_of(alone, [member("a", SUSPECT), member("b", DEAD)], NOW)
    assert still.seeking  # nothing of it is a member that was met


@pytest.mark.parametrize(
    ("alive", "dead", "verdict"), [(0, 0, True), (0, 1, True), (1, 1, True), (0, 2, False), (1, 2, True), (1, 3, False)]
)
def test_who_hears_of_less_than_half_is_the_one_that_is_cut_off(alive: int, dead: int, verdict: bool) -> None:
    """Its table is not converged: it cannot tell whether the others are gone or it is. Of two, each is enough."""
    others = [*(member(f"b{n}") for n in range(alive)), *(member(f"d{n}", DEAD) for n in range(dead))]
    assert converged(table(*others), NOW, T) is verdict


def test_who_left_or_died_long_ago_is_no_sign_of_being_cut_off() -> None:
    """A rollout that renamed every node leaves many names behind."""
    assert converged(table(*(member(f"d{n}", LEFT) for n in range(9))), NOW, T)
    dead = table(*(member(f"d{n}", DEAD) for n in range(9)))
    assert not converged(dead, THEN + FORGOTTEN_AFTER_S - 1, T)
    assert converged(dead, THEN + FORGOTTEN_AFTER_S, T)
    assert converged(table(member("b", LEAVING), member("c", DEAD), member("d", DEAD)), NOW, T)


def aged(known: Table, seconds: float) -> Table:
    """After so long; who is alive goes on answering, twice a second."""
    for step in range(int(2 * seconds)):
        now = NOW + step / 2
        for entry in list(known.others.values()):
            if entry.member.state is ALIVE:
                known = heard_from(known, entry.member, now)
        known = tick(known, now, T)
    return known


def test_rollouts_that_kill_node_after_node_leave_a_table_converged() -> None:
    """Three nodes that were each replaced twice in a day, without a drain: six dead names, and this host is not cut off."""
    known = table(member("b"), member("c"))
    for round_ in range(3):
        dying = [i for i, e in known.others.items() if e.member.state is ALIVE]
        known = known._replace(
            others={
                **{i: e._replace(member=member(i, DEAD), since=NOW) if i in dying[:1] else e for i, e in known.others.items()},
                f"new{round_}": Entry(member(f"new{round_}"), NOW, NOW),
            }
        )
        known = aged(known, SETTLED_AFTER_S + 5)
    dead = sum(entry.member.state is DEAD for entry in known.others.values())
    assert dead == 3
    assert converged(known, NOW + SETTLED_AFTER_S, T)
    one_more = {i: e._replace(member=member(i, DEAD)) if i == "new2" else e for i, e in known.others.items()}
    assert converged(known._replace(others=one_more), NOW + SETTLED_AFTER_S, T)


def test_a_host_that_is_cut_off_does_not_get_used_to_it() -> None:
    """Most of the others died at once: that is settled by nobody, however long it lasts."""
    known = aged(table(member("b"), *(member(f"d{n}", DEAD) for n in range(4)), since=NOW), 10 * SETTLED_AFTER_S)
    assert not any(entry.settled for entry in known.others.values())
    assert not converged(known, NOW + 10 * SETTLED_AFTER_S, T)


def test_a_settled_death_counts_anew_when_the_node_was_back() -> None:
    """Each death is judged by who was there then."""
    known = aged(table(member("b"), member("c", DEAD), since=NOW), SETTLED_AFTER_S + 5)
    assert known.others["c"].settled
    back = heard_from(known, member("c", incarnation=9), NOW + 200)
    assert not back.others["c"].settled


def test_a_death_is_not_settled_before_all_behind_one_cut_are_declared_dead() -> None:
    """The first of many is seen with the others still there."""
    known = aged(table(*(member(f"b{n}") for n in range(3)), member("c", DEAD), since=NOW), SETTLED_AFTER_S - 5)
    assert not known.others["c"].settled


def test_the_view_has_this_host_and_all_others() -> None:
    """As the workers get it."""
    seen = table(member("b"), member("c", SUSPECT)).view(NOW, T)
    assert (seen.me, set(seen.members), seen.converged) == ("a", {"a", "b", "c"}, False)


def test_a_pause_says_nothing_about_the_others() -> None:
    """After it their silence counts anew; who was dead before is not heard of by that."""
    heard = table(member("b"), member("c", SUSPECT), member("d", DEAD), member("e", LEFT))
    after = after_pause(heard, NOW + 60)
    assert [entry.heard for entry in after.others.values()] == [NOW + 60, NOW + 60, THEN, THEN]
    assert [state_of(tick(after, NOW + 60.5, T), each) for each in "bcde"] == [ALIVE, SUSPECT, DEAD, LEFT]
    never = watching(told_of(new_table(member("a"), THEN), [member("b")], THEN), ["b"], THEN)
    assert after_pause(never, NOW).others["b"].heard is None


# --- properties --------------------------------------------------------------------------------------------------------------

members = st.builds(member, st.sampled_from("abc"), st.sampled_from(State), incarnation=st.integers(1, 4))


@given(st.lists(st.tuples(st.sampled_from("htrp"), members, st.integers(0, 3)), max_size=12))
def test_a_step_never_forgets_a_start_nor_itself(events: list[tuple[str, Member, int]]) -> None:
    """In any order of events incarnations only rise, and this host stays itself and alive."""
    now, known = 0.0, new_table(member("a"), 0.0)
    for kind, said, passed in events:
        now += passed
        known = watching(known, [name for name in known.others if name != said.identity], now)
        before = known
        match kind:
            case "h":
                known = heard_from(known, said, now)
            case "t":
                known = told_of(known, [said], now)
            case "r":
                known = refused_by(known, said.identity, now)
            case _:
                known = tick(after_pause(known, now), now, T)
        assert (known.me.identity, known.me.state) == ("a", ALIVE)
        assert known.me.incarnation >= before.me.incarnation
        assert "a" not in known.others
        for identity, entry in before.others.items():
            assert known.others[identity].member.incarnation >= entry.member.incarnation
            assert known.others[identity].heard is None or known.others[identity].heard >= (entry.heard or 0.0)  # type: ignore[operator]
