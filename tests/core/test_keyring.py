"""Key ring: what counts as a secret, which key signs."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.core.keyring import Key, KeyRing
from clustersession.errors import ConfigError

OLD, NEW = "pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a", "Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi"


def test_a_plain_secret_is_key_one() -> None:
    """A plain secret is a ring of one key with the number 1, whatever white space a file adds."""
    ring = KeyRing.parse(f"  {OLD}\n")
    assert ring.kids == (1,)
    assert ring.signing == KeyRing.parse(f"1:{OLD}").signing


def test_the_first_key_signs_and_all_are_found() -> None:
    """In a ring the first key signs, whatever its number, and each number selects its own key."""
    ring = KeyRing.parse(f"7: {NEW} , 0:{OLD}")
    assert ring.signing.kid == 7
    assert ring.kids == (7, 0)
    assert ring.get(0) == Key(0, *_purposes(KeyRing.parse(OLD).signing))
    assert ring.get(1) is None


def test_a_key_may_contain_a_colon() -> None:
    """Only the first colon of a part separates the number from the key."""
    assert KeyRing.parse(f"1:{OLD}:x").signing != KeyRing.parse(f"1:{OLD}").signing


def test_every_purpose_has_its_own_key() -> None:
    """The keys of all purposes and secrets differ, and each is 32 bytes."""
    ring = KeyRing.parse(f"2:{NEW},1:{OLD}")
    derived = [part for kid in ring.kids for part in _purposes(ring.get(kid))]
    assert len(set(derived)) == 8
    assert {len(part) for part in derived} == {32}


def test_derivation_is_stable() -> None:
    """The derived bytes are part of the format: a change would end all sessions at the next release."""
    key = KeyRing.parse(OLD).signing
    assert [part.hex()[:16] for part in _purposes(key)] == [
        "d692c86f55703828",
        "e3a215a28ed02aac",
        "1d172624d10e374e",
        "e4166e5928d30170",
    ]


def test_nothing_of_a_key_is_printed() -> None:
    """Neither a ring's repr nor a key's shows more than numbers."""
    ring = KeyRing.parse(f"2:{NEW},1:{OLD}")
    assert repr(ring) == "<KeyRing of 2, 1>"
    assert repr(ring.signing) == "Key(kid=2)"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no secret"),
        (" \n", "no secret"),
        ("short", "5 characters"),
        (OLD[:31], "31 characters"),
        ("changeme" * 4, "example"),
        ("please-Change_Me-0a1b2c3d4e5f6g7h8i", "example"),
        ("this-is-a-super-secret-key-for-prod", "example"),
        ("django-insecure-" + NEW, "example"),
        ("x" * 40, "repeats"),
        ("abcab" * 8, "repeats"),
        ("qwertzuiopasdfgh" * 2, "repeats"),
        ("qwertzuiopasdfgh" * 2 + "qwert", "repeats"),
        (OLD + "\x00\x01", "not text"),
        (OLD + "\udc80", "not text"),
        (f"1:{OLD},1:{NEW}", "two keys have the number 1"),
        (f"256:{OLD}", "kid:key"),
        (f"0000999:{OLD}", "kid:key"),
        (f"-1:{OLD}", "kid:key"),
        (f"²:{OLD}", "kid:key"),
        (f"new:{OLD},1:{NEW}", "kid:key"),
        (f"2:{NEW},", "kid:key"),
        (f"{OLD},{NEW}", "kid:key"),
        (f"2:{NEW},1:short", "key 1 has 5 characters"),
    ],
)
def test_a_bad_secret_is_refused_with_a_remedy(text: str, word: str) -> None:
    """A missing, short, guessable or misnumbered secret is refused: what is wrong, what to do, never the secret itself."""
    with pytest.raises(ConfigError) as caught:
        KeyRing.parse(text)
    assert caught.value.setting == "CLUSTERSESSION_SECRET"
    assert word in caught.value.problem
    assert caught.value.remedy
    assert OLD not in str(caught.value)


@given(st.integers(min_value=24, max_value=64), st.sampled_from([secrets.token_hex, secrets.token_urlsafe]))
def test_random_secrets_are_accepted(size: int, make: Callable[[int], str]) -> None:
    """What a generator of secrets makes is not mistaken for an example."""
    assert KeyRing.parse(make(size)).kids == (1,)


def test_a_key_signs_once_all_members_have_it() -> None:
    """The first key of the ring that all members announced signs, so that a new one waits for the last member."""
    ring = KeyRing.parse(f"3:{NEW},2:{OLD}")
    assert ring.signing_among({2, 3}).kid == 3
    assert ring.signing_among({1, 2}).kid == 2


@pytest.mark.parametrize("kids", [{1}, set[int]()])
def test_no_common_key_is_an_error(kids: set[int]) -> None:
    """Where no key is common nothing is signed, and the error names both sides' numbers."""
    with pytest.raises(ConfigError, match="this host has the keys 3, 2"):
        KeyRing.parse(f"3:{NEW},2:{OLD}").signing_among(kids)


def _purposes(key: Key | None) -> tuple[bytes, bytes, bytes, bytes]:
    assert key is not None
    return key.mac, key.tag, key.seal, key.hello
