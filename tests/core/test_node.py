"""Members and the view of them: who may be asked, who may take a copy, and who is gone for certain."""

from __future__ import annotations

import pytest

from clustersession.core.node import State

from .records import member, view


@pytest.mark.parametrize(
    ("state", "reachable", "recruitable", "departing"),
    [
        (State.ALIVE, True, True, False),
        (State.SUSPECT, True, False, False),
        (State.DEAD, False, False, False),
        (State.LEAVING, True, False, True),
        (State.LEFT, False, False, True),
    ],
)
def test_what_a_state_allows(state: State, reachable: bool, recruitable: bool, departing: bool) -> None:
    """Suspects and leavers are asked, only the alive are recruited, and who is not reachable is gone."""
    each = member("b", state)
    assert (each.reachable, each.recruitable, each.state.departing) == (reachable, recruitable, departing)
    assert (view(each).reachable("b"), view(each).departed("b")) == (reachable, not reachable)


def test_who_is_in_no_table_is_gone_only_if_the_table_is_complete() -> None:
    """An incomplete one may not have heard of it yet."""
    assert view("a").departed("z")
    assert not view("a", converged=False).departed("z")
    assert not view("a").reachable("z")
    assert (view("a").get("z"), view("a").get("a")) == (None, member("a"))


def test_who_was_cut_off_asks_also_those_it_takes_for_dead() -> None:
    """Its table is not converged: not they may have been silent, but it. Who said that it leaves is gone in any case."""
    dead, left = member("b", State.DEAD), member("c", State.LEFT)
    assert not view("a", dead).worth_asking("b")
    seen = view("a", dead, left, converged=False)
    assert [seen.worth_asking(each) for each in ("a", "b", "c")] == [True, True, False]


def test_a_view_shows_itself() -> None:
    """For logs: every member with its state, and whether that is the last word."""
    seen = view(member("a"), member("b", State.DEAD), converged=False)
    assert repr(seen) == "<View of a: a=alive, b=dead (not converged)>"
    assert repr(view("a")) == "<View of a: a=alive>"
