"""The mode of the cluster on the board of a host: ordered here, or heard of from a peer."""

from __future__ import annotations

from clustersession.core.calls import Beat
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.switch import Switch, signed, verified
from clustersession.core.upkeep import Heard
from clustersession.runtime.keeper import Keeper
from clustersession.runtime.switching import ModeSwitch
from clustersession.store.memory import MemoryStore

from ..core.records import member
from .hosts import RING, TIMEOUTS, Fixture

OLD_KEY = "1:pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a"
NEW_KEY = "2:Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi"


def a_switch() -> ModeSwitch:
    return ModeSwitch(MemoryStore(now=lambda: 0.0), lambda: RING, "shop")


def statement(serial: int, mode: str = "on", by: str = "n2") -> bytes:
    return signed(Switch(serial, 5.0, mode, 100, by), RING.signing, "shop")


def test_nothing_was_ever_switched() -> None:
    """Then there is nothing to pass on."""
    switch = a_switch()
    assert (switch.current(), switch.statement) == (None, b"")
    assert not switch.take(b"")


def test_ordered_here() -> None:
    """Each order has a higher serial than all that this host has heard of."""
    switch = a_switch()
    assert switch.order("shadow", 10, 5.0, "n1") == switch.current() == Switch(1, 5.0, "shadow", 10, "n1")
    assert switch.take(statement(7, "mirror"))
    assert switch.order("off", 100, 6.0, "n1").serial == 8


def test_heard_of_from_a_peer() -> None:
    """The higher serial counts, an older or forged one does not; of two orders given at once all keep the same one."""
    one, two = a_switch(), a_switch()
    assert one.take(statement(2, "mirror"))
    assert not one.take(statement(2, "mirror"))
    assert not one.take(statement(1, "on"))
    assert not one.take(statement(3, "on")[:-1] + b"!")
    one.order("off", 100, 9.0, "n1")
    two.take(statement(2, "mirror"))
    two.order("on", 100, 9.0, "n2")
    there, back = two.statement, one.statement
    one.take(there)
    two.take(back)
    assert one.current() == two.current() == Switch(3, 9.0, "on", 100, "n2")


def test_heartbeats_pass_it_on() -> None:
    """The answer to a heartbeat carries it, and who hears it keeps it for the workers of the host."""
    knows, hears = (
        Keeper(f.host, member("a"), TIMEOUTS, switch=s) for f, s in ((Fixture(), a_switch()), (Fixture(), a_switch()))
    )
    assert knows.switch is not None
    assert hears.switch is not None
    knows.switch.order("mirror", 50, 5.0, "a")
    beat = knows.on_call(hears.heartbeat("a"), "b")
    assert isinstance(beat, Beat)
    assert beat.switch == knows.switch.statement
    hears.after_beat("a", 1000.0, Heard(Member("b", "h", 1, 1), (), told_all=True, switch=beat.switch))
    assert hears.switch.current() == Switch(1, 5.0, "mirror", 50, "a")


def test_an_order_outlives_the_key_that_signed_it() -> None:
    """While both keys are in the ring it is signed anew with the first: a host that reads it when the old one is gone goes on in
    the mode that it was switched to, not in that of its settings."""
    store = MemoryStore(now=lambda: 0.0)
    old, new = KeyRing.parse(OLD_KEY), KeyRing.parse(NEW_KEY)
    ordered = ModeSwitch(store, lambda: old, "shop").order("on", 100, 5.0, "n1")
    both = ModeSwitch(store, lambda: KeyRing.parse(f"{NEW_KEY},{OLD_KEY}"), "shop")
    passed_on = both.statement
    assert verified(passed_on, new, "shop") == ordered
    assert ModeSwitch(store, lambda: new, "shop").current() == ordered
    assert not ModeSwitch(store, lambda: new, "shop").take(passed_on)
