"""Why a session was refused, as one word."""

from __future__ import annotations

import pytest

from clustersession.core.keyring import KeyRing
from clustersession.core.reasons import REASONS, of_bad_id, of_ending
from clustersession.core.session_id import IdContext, encode, node_tag, verify
from clustersession.errors import BadSessionId

RING = KeyRing.parse("1:nP3vX7qL2wZ9kT4mB8cR5dF1gH6jYsAe")
SAME_NUMBER = KeyRing.parse("1:Wq8ZpL3nV6xR1tY5uB9cD0eF4gH7jKmN")
OTHER_NUMBER = KeyRing.parse("2:Wq8ZpL3nV6xR1tY5uB9cD0eF4gH7jKmN")
OURS = IdContext("shop", "cs")
MEMBERS = ("a", "b")


def issued(ring: KeyRing = RING, context: IdContext = OURS, master: str = "a") -> str:
    key = ring.signing
    tag = node_tag(key, master, 10060)
    return encode(token=b"t" * 16, born=1, master=tag, backup=None, epoch=1, version=1, key=key, context=context)


def code_of(text: str) -> str:
    with pytest.raises(BadSessionId) as caught:
        verify(text, RING, OURS)
    return of_bad_id(caught.value.reason, text, RING, MEMBERS)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("3f2a9c", "not_ours"),
        ("x" * 105, "not_ours"),
        ("", "not_ours"),
        ("x" * 5000, "oversized"),
        (issued(OTHER_NUMBER), "unknown_key"),
        (issued(SAME_NUMBER), "foreign"),
        (issued(context=IdContext("other", "cs"), master="theirs"), "foreign"),
        (issued(context=IdContext("shop", "other")), "tampered"),
        (issued()[:36] + "ffffffff" + issued()[44:], "tampered"),
    ],
)
def test_what_does_not_verify_has_one_word(text: str, code: str) -> None:
    """By its form, its key's number, and whether it names one of our hosts."""
    assert code_of(text) == code


def test_every_end_has_a_code() -> None:
    """Those that this release knows, and one for what a later one may write."""
    endings = ("logout", "emptied", "rotated", "expired: idle", "expired: absolute", "of a later release")
    assert [of_ending(each) for each in endings] == ["logout", "emptied", "rotated", "expired_idle", "expired_absolute", "ended"]
    assert all(of_ending(each) in REASONS for each in endings)
