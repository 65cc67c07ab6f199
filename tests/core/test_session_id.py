"""Session ID: round trip, and everything that is not one."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.config import SESSION_ID_BYTES
from clustersession.core.keyring import KeyRing
from clustersession.core.node import NO_TAG
from clustersession.core.session_id import (
    EPOCH_MAX,
    SESSION_ID_LENGTH,
    VERSION_MAX,
    IdContext,
    SessionId,
    encode,
    looks_like_ours,
    node_tag,
    outlived,
    store_key,
    verify,
)
from clustersession.errors import BadSessionId

OLD, NEW = "pZ3vR8tLq1xW5nB7yC2dF6gH9jK4mS0a", "Qe7Tn2Vb9Xc4Lk1Jh6Gf3Ds8Ap5Zo0Wi"
RING = KeyRing.parse(f"2:{NEW},1:{OLD}")
KEY = RING.signing
HERE = IdContext("shop", "__Host-cs")
MASTER, BACKUP = node_tag(KEY, "a", 10060), node_tag(KEY, "b", 10060)
FIELDS: dict[str, Any] = {
    "token": bytes(range(16)),
    "born": 30_000_000,
    "master": MASTER,
    "backup": BACKUP,
    "epoch": 3,
    "version": 9,
}
ID = encode(**FIELDS, key=KEY, context=HERE)
BASE32HEX = "0123456789abcdefghijklmnopqrstuv"

tags = st.builds("{:08x}-{:08x}".format, st.integers(1, 2**32 - 1), st.integers(0, 2**32 - 1))
ids = st.fixed_dictionaries(
    {
        "token": st.binary(min_size=16, max_size=16),
        "born": st.integers(0, 2**32 - 1),
        "master": tags,
        "backup": st.none() | tags,
        "epoch": st.integers(0, 2**40),
        "version": st.integers(0, 2**40),
    }
)


@given(ids, st.sampled_from(RING.kids), st.text(max_size=30), st.text(max_size=30))
def test_round_trip(fields: dict[str, Any], kid: int, cluster: str, name: str) -> None:
    """What was encoded verifies to the same fields, epoch and version clamped, from text and from bytes."""
    key, context = RING.get(kid), IdContext(cluster, name)
    assert key is not None
    text = encode(**fields, key=key, context=context)
    sid = verify(text, RING, context)
    assert sid == verify(text.encode(), RING, context)
    assert sid == SessionId(
        **{**fields, "epoch": min(fields["epoch"], EPOCH_MAX), "version": min(fields["version"], VERSION_MAX)},
        kid=kid,
        key=store_key(fields["token"]),
    )
    assert sid.floor <= (fields["epoch"], fields["version"])
    assert len(text) == SESSION_ID_LENGTH
    assert looks_like_ours(text)


def test_the_form_is_the_documented_one() -> None:
    """Five fields of eight lower-case hex digits, then 60 characters of base32hex: a cookie needs no quoting."""
    assert re.fullmatch(r"([0-9a-f]{8}-){5}[0-9a-v]{60}", ID)
    assert ID.startswith(f"{MASTER}-{BACKUP}-00300009-")
    assert encode(**{**FIELDS, "backup": None}, key=KEY, context=HERE)[18:35] == NO_TAG
    assert SESSION_ID_LENGTH == SESSION_ID_BYTES


def test_the_format_is_stable() -> None:
    """An ID that an earlier release issued verifies: this one must never change."""
    assert ID == ("505d9b35-da6399d0-d1146a85-ee2f6b84-00300009-080sjgs0000g40o40k30e209185go38e1uvcqnkrskmeo4l33gl69rc4j5b0")


def test_no_character_can_be_changed() -> None:
    """Every other character at every place, in or out of the alphabet, makes it no ID of ours."""
    for at in range(len(ID)):
        for other in f"{BASE32HEX}wzAFGV-_ \n\x00\u0661é":
            if other != ID[at]:
                assert _reason(ID[:at] + other + ID[at + 1 :]) in {"alphabet", "mac", "kid"}


def test_no_bit_of_its_bytes_can_be_flipped() -> None:
    """Every single flipped bit of the cookie's bytes is refused."""
    raw = ID.encode()
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        assert _reason(bytes(changed)) in {"alphabet", "mac", "kid"}


def test_there_is_one_spelling_only() -> None:
    """Upper case, padding bits that are set, and digits that Python's int() takes for others are no second spelling."""
    hash_at = 45
    assert _reason(ID.upper()) == "alphabet"
    for low_bits in range(1, 16):
        twin = BASE32HEX[BASE32HEX.index(ID[-1]) | low_bits]
        assert _reason(ID[:-1] + twin) == "alphabet"
    for trick in ("_", "+", "-", " ", "\u0660"):
        assert _reason(ID[:hash_at] + trick + ID[hash_at + 1 :]) == "alphabet"
        assert _reason(ID[: hash_at + 1] + trick + ID[hash_at + 2 :]) == "alphabet"


def test_fields_can_not_be_swapped_or_spliced() -> None:
    """Owners, version and HASH of two valid IDs don't mix."""
    other = encode(**{**FIELDS, "token": b"t" * 16, "master": BACKUP, "backup": MASTER, "version": 10}, key=KEY, context=HERE)
    a, b = ID.split("-"), other.split("-")
    for take in range(1, 63):
        spliced = "-".join(b[field] if take >> field & 1 else a[field] for field in range(6))
        assert _reason(spliced) == "mac"
    assert _reason("-".join([a[2], a[3], a[0], a[1], a[4], a[5]])) == "mac"


@pytest.mark.parametrize(
    "context", [IdContext("shop2", "__Host-cs"), IdContext("shop", "cs"), IdContext("shop_", "_Host-cs"), IdContext("", "")]
)
def test_it_is_valid_in_its_own_cluster_and_cookie_only(context: IdContext) -> None:
    """Another cluster or cookie name with the same keys does not accept it, wherever one name ends and the other starts."""
    with pytest.raises(BadSessionId, match="mac"):
        verify(ID, RING, context)


def test_the_number_selects_exactly_one_key() -> None:
    """A number that is not in the ring is refused without a trial, and one with another secret fails the MAC."""
    with pytest.raises(BadSessionId, match="kid"):
        verify(ID, KeyRing.parse(OLD), HERE)
    with pytest.raises(BadSessionId, match="mac"):
        verify(ID, KeyRing.parse(f"2:{OLD},1:{NEW}"), HERE)


@pytest.mark.parametrize("text", ["", " ", ID[:-1], ID + "0", ID[1:], f'"{ID}"', ID * 2, "x" * 70_000, b"", b"\xff" * 105])
def test_the_wrong_length_is_refused_first(text: str | bytes) -> None:
    """Truncated, oversized and empty texts are refused."""
    assert _reason(text) == ("alphabet" if len(text) == SESSION_ID_LENGTH else "length")


@given(st.text() | st.binary() | st.text(min_size=105, max_size=105) | st.binary(min_size=105, max_size=105))
def test_any_input_is_a_bad_id_at_worst(text: str | bytes) -> None:
    """No input raises anything but `BadSessionId`."""
    assert _reason(text) in {"length", "alphabet", "kid", "mac"}


@given(st.text(alphabet=BASE32HEX, min_size=59, max_size=59), st.sampled_from("0g"))
def test_guessing_is_refused(guess: str, last: str) -> None:
    """Well-formed texts with a made-up HASH fail the kid or the MAC."""
    assert _reason(f"{MASTER}-{BACKUP}-00300009-{guess}{last}") in {"kid", "mac"}


@pytest.mark.parametrize(
    "change",
    [
        {"token": b"short"},
        {"token": b"t" * 17},
        {"master": NO_TAG},
        {"master": "10.0.0.1-8000"},
        {"backup": "ABCDEF01-00000001"},
        {"epoch": -1},
        {"version": -1},
        {"born": -1},
        {"born": 2**32},
    ],
)
def test_only_sound_fields_are_encoded(change: dict[str, Any]) -> None:
    """A token, tag, number or time that is none is a mistake of the caller and raises."""
    with pytest.raises(ValueError, match="an ID needs"):
        encode(**{**FIELDS, **change}, key=KEY, context=HERE)


def test_neither_reprs_nor_the_handle_give_the_token_away() -> None:
    """What logs and tracebacks show is the handle, from which no cookie can be made."""
    sid = verify(ID, RING, HERE)
    assert repr(sid) == f"<SessionId {sid.handle}>"
    assert sid.__rich_repr__() == [("handle", sid.handle)]
    assert len(sid.handle) == 32
    assert sid.token.hex() not in sid.handle
    assert not looks_like_ours(sid.handle)
    assert _reason(sid.handle) == "length"


def test_looks_like_ours_is_about_the_form() -> None:
    """Texts of our form are ours to judge even if they fail; other systems' IDs are not."""
    assert looks_like_ours(ID[:-1] + "x")
    for text in ("", "a" * 105, ID[:-1], ID.replace("-", "_"), "eyJ1Ijp7fX0.aB-c.dEf", "q4v8" * 8):
        assert not looks_like_ours(text)


def test_tags_hide_and_tell_apart() -> None:
    """A tag is the same for the same node and key; identity, port and key each change it, and the name is not in it."""
    assert node_tag(KEY, "a", 10060) == MASTER
    assert MASTER[:8] == node_tag(KEY, "a", 10061)[:8]
    others = {node_tag(KEY, "a", 10061), BACKUP, node_tag(RING.get(1) or KEY, "a", 10060), node_tag(KEY, "0a", 1006)}
    assert len(others | {MASTER}) == 5


def test_an_id_ends_by_its_birth() -> None:
    """An ID outlives its absolute limit by the rounding to minutes and a minute of skew, never the other way round."""
    sid = verify(ID, RING, HERE)
    born_s = FIELDS["born"] * 60
    assert not outlived(sid, born_s + 3600 + 119, 3600)
    assert outlived(sid, born_s + 3600 + 121, 3600)
    assert not outlived(sid, born_s + 10**9, None)


def _reason(text: str | bytes) -> str:
    with pytest.raises(BadSessionId) as caught:
        verify(text, RING, HERE)
    return caught.value.reason
