"""Sealed bytes: what was sealed for one thing opens for nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.keyring import KeyRing
from clustersession.core.sealing import SEAL_BYTES, Sealer
from clustersession.errors import Corrupt

OLD, NEW = "pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a", "Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi"
NONCE = bytes(range(12))
KEY = b"k" * 16
SEALER = Sealer(KeyRing.parse(OLD), "shop")


@given(st.binary(max_size=300), st.binary(max_size=32), st.binary(max_size=20), st.binary(min_size=12, max_size=12))
def test_round_trip(data: bytes, key: bytes, purpose: bytes, nonce: bytes) -> None:
    """What was sealed opens to the same bytes and grows by a fixed size."""
    sealed = SEALER.seal(purpose, key, data, nonce)
    assert SEALER.open(purpose, key, sealed) == data
    assert len(sealed) == len(data) + SEAL_BYTES


def test_every_bit_counts() -> None:
    """One bit flipped anywhere, the number of the key and the nonce included, and it does not open."""
    sealed = SEALER.seal(b"rest", KEY, b"value", NONCE)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            SEALER.open(b"rest", KEY, bytes(changed))


@pytest.mark.parametrize(
    ("cluster", "purpose", "key"),
    [
        ("shop2", b"rest", KEY),
        ("shop", b"wire", KEY),
        ("shop", b"rest", b"j" * 16),
        ("shop", b"res", b"t" + KEY),
        ("sho", b"p", b"rest" + KEY),
    ],
)
def test_it_is_bound_to_cluster_purpose_and_key(cluster: str, purpose: bytes, key: bytes) -> None:
    """Bytes sealed for one cluster, purpose and session do not open for another, wherever one field ends and the next starts."""
    sealed = SEALER.seal(b"rest", KEY, b"value", NONCE)
    with pytest.raises(Corrupt, match="fails its check"):
        Sealer(KeyRing.parse(OLD), cluster).open(purpose, key, sealed)


def test_no_two_contexts_are_authenticated_as_the_same_bytes() -> None:
    """A cluster whose name ends like the fields that follow it is still another cluster."""
    sealed = SEALER.seal(b"\x01", b"\x04rest" + KEY, b"value", NONCE)
    with pytest.raises(Corrupt):
        Sealer(KeyRing.parse(OLD), "shop\x01\x01").open(b"rest", KEY, sealed)


def test_the_number_selects_one_key() -> None:
    """After a rotation both keys open what they sealed, and a number that is not in the ring is said to be so."""
    ring = Sealer(KeyRing.parse(f"2:{NEW},1:{OLD}"), "shop")
    old = SEALER.seal(b"rest", KEY, b"value", NONCE)
    new = ring.seal(b"rest", KEY, b"value", NONCE)
    assert ring.open(b"rest", KEY, old) == ring.open(b"rest", KEY, new) == b"value"
    assert ring.seal(b"rest", KEY, b"value", NONCE, kid=1) == old
    with pytest.raises(Corrupt, match="names key 2"):
        SEALER.open(b"rest", KEY, new)
    with pytest.raises(KeyError):
        SEALER.seal(b"rest", KEY, b"value", NONCE, kid=2)


def test_the_same_number_with_another_secret_does_not_open() -> None:
    """Two clusters that both call their key 1 can't read each other's bytes."""
    with pytest.raises(Corrupt, match="fails its check"):
        Sealer(KeyRing.parse(NEW), "shop").open(b"rest", KEY, SEALER.seal(b"rest", KEY, b"value", NONCE))


@given(st.binary(max_size=64))
def test_any_bytes_are_corrupt_at_worst(data: bytes) -> None:
    """Whatever is read from a file or a socket, the outcome is `Corrupt`."""
    with pytest.raises(Corrupt):
        SEALER.open(b"rest", KEY, data)
