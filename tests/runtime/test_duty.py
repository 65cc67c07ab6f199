"""What a node says it owes: a number only while it stands for the members as they are."""

from __future__ import annotations

import msgspec

from clustersession.core.calls import Bars
from clustersession.core.effects import Ask, Operation, Wait
from clustersession.core.upkeep import Heard
from clustersession.runtime.duty import Duty
from clustersession.runtime.keeper import Keeper

from ..core.records import member
from .hosts import TIMEOUTS, Fixture


def a_pass(duty: Duty) -> bool:
    """One over a store that is empty, which asks others for nothing but what was ended for whole users."""
    operation: Operation[bool] = duty.done_once()
    host, reply = duty.keeper.host, None
    try:
        while True:
            effect = operation.send(reply)
            reply = None
            if isinstance(effect, Ask):
                assert effect.node == host.me or isinstance(effect.call, Bars), "it asked somebody"
                reply = host.handle(effect.call)
            else:
                assert isinstance(effect, Wait)
    except StopIteration as stop:
        complete: bool = stop.value
        return complete


def a_node() -> tuple[Fixture, Keeper, Duty]:
    fixture = Fixture()
    keeper = Keeper(fixture.host, member("a"), TIMEOUTS)
    keeper.sync_done()
    return fixture, keeper, Duty(keeper)


def meet(keeper: Keeper, identity: str) -> None:
    keeper.after_beat(identity, keeper.host.clock(), Heard(member(identity), (), told_all=True))


def test_nothing_is_said_before_the_first_look() -> None:
    """Not known is not nothing: whoever waits for 0 goes on waiting."""
    _, _, duty = a_node()
    assert duty.debt is None
    assert a_pass(duty)
    assert duty.debt == 0


def test_a_partner_that_goes_makes_the_count_unknown() -> None:
    """The 0 of before would say that all is well at the moment in which second copies are gone."""
    fixture, keeper, duty = a_node()
    meet(keeper, "b")
    keeper.tick()
    a_pass(duty)
    assert duty.debt == 0
    fixture.clock.now += TIMEOUTS.lease_s
    keeper.tick()
    fixture.clock.now += TIMEOUTS.lease_s
    keeper.tick()
    assert keeper.view().departed("b")
    assert duty.debt is None
    a_pass(duty)
    assert duty.debt == 0


def test_who_leaves_counts_anew() -> None:
    """What it owes as one that stays says nothing about what it has to hand over."""
    _, keeper, duty = a_node()
    meet(keeper, "b")
    a_pass(duty)
    duty.leave()
    assert duty.debt is None
    a_pass(duty)
    assert duty.debt == 0


def test_a_partner_that_starts_again_makes_the_count_unknown() -> None:
    """It may have come back without its files before anybody missed it: what it holds is compared at once, and only once."""
    fixture, keeper, duty = a_node()
    fixture.clock.now += 1.1 * TIMEOUTS.suspect_s
    meet(keeper, "b")
    keeper.tick()
    a_pass(duty)
    assert (duty.debt, duty.due) == (0, False)
    again = msgspec.structs.replace(member("b"), incarnation=member("b").incarnation + 1)
    keeper.after_beat("b", keeper.host.clock(), Heard(again, (), told_all=True))
    assert (duty.debt, duty.due) == (None, True)
    assert a_pass(duty)
    assert (duty.debt, duty.due) == (0, False)
