"""The signatures of itsdangerous and Django, against the libraries themselves."""

from __future__ import annotations

import hashlib
import zlib
from typing import Literal

import django.core.signing
import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.errors import ConfigError
from clustersession.sources import signing
from clustersession.sources.signing import LEEWAY_S, Stamped, django_signer, itsdangerous_signer, packed, stamp_for, unpacked
from tests.sources.values import NOW

KEYS = st.binary(min_size=1, max_size=70)
VALUES = st.binary(max_size=40).map(signing.b64)


@given(KEYS, VALUES, st.sampled_from(["hmac", "django-concat"]), st.sampled_from(["sha1", "sha512"]))
def test_itsdangerous_and_we_read_each_other(
    key: bytes, value: bytes, derivation: Literal["hmac", "django-concat"], digest: str
) -> None:
    """Both derivations, any digest, with and without a time."""
    theirs = itsdangerous.TimestampSigner(key, salt="salt", key_derivation=derivation, digest_method=getattr(hashlib, digest))
    ours = itsdangerous_signer([key], "salt", derivation=derivation, digest=digest)
    at = theirs.get_timestamp()
    assert theirs.unsign(ours.stamp(value, at), max_age=10) == value
    assert ours.unstamp(theirs.sign(value).decode(), at + 1, 10) in (Stamped(value, at), Stamped(value, at + 1))
    plain = itsdangerous.Signer(key, salt="salt", key_derivation=derivation, digest_method=getattr(hashlib, digest))
    assert plain.unsign(ours.sign(value)) == value
    assert ours.unsign(plain.sign(value).decode()) == value


@given(KEYS, VALUES)
def test_django_and_we_read_each_other(key: bytes, value: bytes) -> None:
    """Django's signer with a time."""
    theirs = django.core.signing.TimestampSigner(key=key, salt="salt", fallback_keys=[])
    ours = django_signer([key], "salt")
    signed = theirs.sign(value.decode())
    at = django.core.signing.b62_decode(signed.split(":")[1])
    assert ours.unstamp(signed, at) == Stamped(value, at)
    assert theirs.unsign(ours.stamp(value, at)) == value.decode()


@given(st.text(max_size=60) | st.from_regex(r"[\w-]*[.:][\w-]*[.:][\w-]*", fullmatch=True))
def test_any_text_is_read_as_forged(text: str) -> None:
    """Nothing raises, nothing passes."""
    for ours in (itsdangerous_signer(["k"], "s"), django_signer(["k"], "s")):
        assert ours.unsign(text) is None
        assert ours.unstamp(text, NOW) is None


@pytest.mark.parametrize("make", [itsdangerous_signer, django_signer])
def test_each_character_of_a_signed_text_counts(make: object) -> None:
    """Also the last one of the signature, whose last bits base64 does not need."""
    assert callable(make)
    signer = make(["key"], "salt")
    signed = signer.stamp(b"value", int(NOW))
    for place in range(len(signed)):
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if signed[place] != other:
                assert signer.unstamp(signed[:place] + other + signed[place + 1 :], NOW) is None
        assert signer.unstamp(signed[:place], NOW) is None
    assert signer.unstamp(signed, NOW) == Stamped(b"value", int(NOW))


def test_the_first_key_signs_and_all_are_accepted() -> None:
    """A key that is retired no longer counts."""
    both, old, new = (itsdangerous_signer(keys, "salt") for keys in (["new", "old"], ["old"], ["new"]))
    assert both.unsign(old.sign(b"value")) == b"value"
    assert both.sign(b"value") == new.sign(b"value")
    assert new.unsign(old.sign(b"value")) is None


@pytest.mark.parametrize(("age", "accepted"), [(-LEEWAY_S - 1, False), (-LEEWAY_S, True), (0, True), (100, True), (101, False)])
def test_a_signed_time_counts(age: int, accepted: bool) -> None:
    """It may be up to a minute ahead, and as old as it may get."""
    signer = itsdangerous_signer(["key"], "salt")
    assert (signer.unstamp(signer.stamp(b"value", int(NOW) - age), NOW, 100) is not None) == accepted


@pytest.mark.parametrize("secrets", [[], [""], ["key", b""]])
def test_an_empty_key_is_refused(secrets: list[str | bytes]) -> None:
    """Anybody could sign with it."""
    with pytest.raises(ConfigError, match="secret_key"):
        itsdangerous_signer(secrets, "salt")


@given(st.binary(max_size=500) | st.integers(0, 500).map(bytes))
def test_packing_loses_nothing(data: bytes) -> None:
    """Deflated or not."""
    assert unpacked(packed(data)) == data


@pytest.mark.parametrize("deflated", [b"x", zlib.compress(b"text")[:-2], zlib.compress(bytes(signing.INFLATED_BYTES_MAX + 1))])
def test_what_does_not_inflate_is_refused(deflated: bytes) -> None:
    """Garbage, a part, and what is small only until it is inflated."""
    with pytest.raises(ValueError):
        unpacked(b"." + signing.b64(deflated))


def test_a_deadline_moves_the_time_back_and_never_ahead() -> None:
    """What counts an age from the time then ends at the deadline."""
    assert stamp_for(NOW, None, 100) == stamp_for(NOW, NOW + 500, 100) == stamp_for(NOW, NOW, None) == int(NOW)
    assert stamp_for(NOW, NOW + 30, 100) == int(NOW) - 70
