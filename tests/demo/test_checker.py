"""The checker of the demo finds nothing where nothing is wrong, and finds each defect that is there."""

from __future__ import annotations

import asyncio
import random

import pytest

from demo_app.crowd import Crowd
from demo_app.shop.core import Owners
from demo_app.tally import Tally
from demo_app.visitors import Shop, Visitor

from .plain_shop import Defect, PlainShop, serving

USERS, RATE, LOGOUTS = 12, 600.0, 12
TIMEOUT_S = 20.0


async def _run(*defects: Defect) -> Tally:
    tally = Tally()
    async with serving(PlainShop(frozenset(defects)).answer) as address:
        crowd = Crowd(Shop(*address), tally, users=USERS, rate=RATE, seed=7)
        crowd.start()
        async with asyncio.timeout(TIMEOUT_S):
            while tally.logouts < LOGOUTS:
                crowd.check()
                await asyncio.sleep(0.02)
            await crowd.stop()
    return tally


def _found(tally: Tally) -> set[str]:
    kinds = ("errors", "logged_out_unexpectedly", "lost_cart_items", "resurrected_logouts")
    return {kind for kind in kinds if getattr(tally, kind)}


def test_a_shop_without_a_defect_is_reported_as_flawless() -> None:
    """Nothing is reported of a shop that keeps everything, although its users click in two tabs at once."""
    tally = asyncio.run(_run())
    assert _found(tally) == set()
    assert tally.indeterminate == 0
    assert tally.writes > LOGOUTS
    assert tally.logins >= USERS
    assert tally.replays > LOGOUTS


@pytest.mark.parametrize(
    ("defect", "kind"),
    [
        (Defect.LOSES_ITEMS, "lost_cart_items"),
        (Defect.FORGETS_LOGOUTS, "resurrected_logouts"),
        (Defect.FORGETS_LOGINS, "logged_out_unexpectedly"),
        (Defect.MIXES_USERS, "errors"),
        (Defect.FAILS, "errors"),
    ],
)
def test_each_defect_is_found(defect: Defect, kind: str) -> None:
    """A defective shop is reported with the number that names its defect."""
    assert kind in _found(asyncio.run(_run(defect)))


def test_failovers_are_counted_once_and_only_with_a_higher_epoch() -> None:
    """Sessions of the failed master count as failed over when they are seen with another master and a higher epoch."""

    async def scenario() -> None:
        tally, shop = Tally(), PlainShop(owners=Owners("one", "two", 1))
        async with serving(shop.answer) as address:
            visitors = [Visitor(f"user{n}", Shop(*address), tally, random.Random(n)) for n in range(3)]
            for visitor in visitors:
                await visitor.log_in(visitor.tabs[0])
                await visitor.look(visitor.tabs[0])
            assert [visitor.watch("two") for visitor in visitors] == [False, False, False]
            assert [visitor.watch("one") for visitor in visitors] == [True, True, True]
            await visitors[0].log_out(visitors[0].tabs[0])
            await visitors[0].log_in(visitors[0].tabs[0])
            for owners, counted in (
                (Owners("two", "three", 1), 0),
                (Owners("two", "three", 2), 2),
                (Owners("three", "one", 3), 2),
            ):
                shop.owners = owners
                for visitor in visitors:
                    await visitor.look(visitor.tabs[1])
                assert tally.failovers == counted
            for visitor in visitors:
                visitor.close()

    asyncio.run(scenario())


def test_a_cut_connection_is_repeated_with_the_same_item() -> None:
    """Requests whose answer was cut off count as indeterminate and are repeated, and nothing is lost or done twice."""
    tally = asyncio.run(_run(Defect.CUTS))
    assert tally.indeterminate > 10
    assert _found(tally) == set()
