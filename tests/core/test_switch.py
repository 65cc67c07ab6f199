"""The signed statement of a cluster-wide mode."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.keyring import KeyRing
from clustersession.core.switch import MODES, STATEMENT_BYTES_MAX, Switch, signed, verified

RING = KeyRing.parse("2:Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi,1:pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a")
OTHER = KeyRing.parse("2:mX3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a")
STRANGE = KeyRing.parse("9:tY7uI3oP5aS1dF9gH2jK6lZ8xC4vB0nM")
SWITCH = Switch(3, 1_800_000_000.5, "mirror", 10, "n1")

switches = st.builds(
    Switch, st.integers(0, 2**40), st.floats(0, 1e12), st.sampled_from(MODES), st.integers(0, 100), st.text(max_size=40)
)


@given(switches, st.sampled_from([2, 1]))
def test_what_was_signed_is_read(switch: Switch, kid: int) -> None:
    """With any key of the ring, until that key is retired."""
    key = RING.get(kid)
    assert key is not None
    assert verified(signed(switch, key, "shop"), RING, "shop") == switch


@given(st.data())
def test_a_changed_statement_says_nothing(data: st.DataObject) -> None:
    """One byte more, less or other than what was signed."""
    statement = signed(SWITCH, RING.signing, "shop")
    at = data.draw(st.integers(0, len(statement) - 1))
    forged = bytearray(statement)
    forged[at] ^= data.draw(st.integers(1, 255))
    for each in (bytes(forged), statement[:at], statement + b"\0"):
        assert verified(each, RING, "shop") is None


@pytest.mark.parametrize(("ring", "cluster"), [(RING, "other shop"), (OTHER, "shop"), (STRANGE, "shop")])
def test_another_cluster_or_ring_knows_nothing_of_it(ring: KeyRing, cluster: str) -> None:
    """A statement is for one cluster, and a key that is not in the ring signs nothing."""
    assert verified(signed(SWITCH, RING.signing, "shop"), ring, cluster) is None


@pytest.mark.parametrize(("mode", "percent"), [("dev", 100), ("", 100), ("on", 101), ("on", -1)])
def test_an_unknown_mode_is_none(mode: str, percent: int) -> None:
    """A later release may know more of them; this one goes on as it is."""
    assert verified(signed(Switch(1, 0.0, mode, percent), RING.signing, "shop"), RING, "shop") is None


@given(st.binary(max_size=STATEMENT_BYTES_MAX + 10))
def test_rubbish(data: bytes) -> None:
    """Whatever a peer sends, nothing is raised."""
    assert verified(data, RING, "shop") is None
