"""Which of a request's cookies is its session, and what keys of the ring have to do with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.config import Config, CookieConfig, Lifetimes
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.session_id import IdContext, encode
from clustersession.runtime.board import Board, write_board
from clustersession.runtime.cookies import Cookies
from clustersession.runtime.counters import Counters
from clustersession.testing.in_process import SECRET, InProcessCluster

OTHER = "2:Wq8ZpL3nV6xR1tY5uB9cD0eF4gH7jKmN"
BOTH = KeyRing.parse(f"{SECRET},{OTHER}")
NEW_FIRST = KeyRing.parse(f"{OTHER},{SECRET}")
OWNERS = ("a", "b")


class Reader:
    """Cookies of one app on host a, over a ring that tests change."""

    def __init__(self, *names: str, lifetimes: Lifetimes | None = None, secure: bool = False) -> None:
        self.cluster = InProcessCluster()
        self.ring = self.cluster.ring
        self.counters = Counters()
        self.config = Config(
            secret=SECRET,
            node="a",
            cookie=CookieConfig(names=names or ("cs",), secure=secure),
            lifetimes=lifetimes or Lifetimes(),
            lifetimes_set=lifetimes is not None,
        )
        self.host = self.cluster["a"].host
        self.cookies = Cookies(self.config, self.host, lambda: self.ring, self.counters)

    def issued(self, token: bytes = b"t" * 16, version: int = 1) -> str:
        return self.cookies.issued(token, OWNERS, (1, version), None).partition(";")[0]

    def token(self, *fields: str | bytes) -> bytes | None:
        ticket = self.cookies.ticket(fields)
        return None if ticket is None else ticket.sid.token


def test_the_same_header_again_costs_a_look_up() -> None:
    """The second request of a browser gets the very ticket of the first."""
    reader = Reader()
    field = f"theme=dark; {reader.issued()}"
    assert reader.cookies.ticket((field,)) is reader.cookies.ticket((field,))


def test_what_a_dropped_key_has_signed_is_worth_nothing_at_once() -> None:
    """Also what was verified, and remembered, a moment ago."""
    reader = Reader()
    cookie = reader.issued()
    assert reader.token(cookie) is not None
    reader.ring = KeyRing.parse(OTHER)
    assert reader.token(cookie) is None
    assert reader.counters.of("refused_unknown_key") == 1


def test_a_new_key_signs_only_when_every_member_has_it() -> None:
    """Until then an ID it signs would be foreign to some host."""
    reader = Reader()
    reader.ring = NEW_FIRST
    members = tuple(Member(name, name, 10060, 1, kids=(1, 2)) for name in "abc")

    def kid_of_issued() -> int:
        ticket = reader.cookies.ticket((reader.issued(),))
        assert ticket is not None
        return ticket.sid.kid

    write_board(reader.host.store, Board(members, {}, True, float("inf"), True, 1, 1))
    assert kid_of_issued() == 1
    write_board(reader.host.store, Board(members, {}, True, float("inf"), True, 1, 2))
    assert kid_of_issued() == 2


def test_owners_are_found_by_whatever_key_made_the_tags() -> None:
    """An ID of the old key names the same hosts as one of the new."""
    reader = Reader()
    old = reader.issued()
    reader.ring = NEW_FIRST
    new = reader.issued()
    assert old[:20] != new[:20]
    for cookie in (old, new):
        ticket = reader.cookies.ticket((cookie,))
        assert ticket is not None
        assert ticket.owners(reader.host.view, reader.host, reader.ring) == OWNERS


def test_an_owner_that_is_no_member_is_nobody() -> None:
    """A tag says nothing by itself: there is no address in it."""
    reader = Reader()
    cookie = reader.cookies.issued(b"t" * 16, ("gone", "b"), (1, 1), None).partition(";")[0]
    ticket = reader.cookies.ticket((cookie,))
    assert ticket is not None
    assert ticket.owners(reader.host.view, reader.host, reader.ring) == (None, "b")


def test_several_names_are_read_and_the_first_is_issued() -> None:
    """An ID is valid only under the name it was issued for."""
    old, both = Reader("old"), Reader("new", "old")
    cookie = old.issued()
    ticket = both.cookies.ticket((cookie,))
    assert ticket is not None
    assert ticket.name == "old"
    assert both.issued().startswith("new=")
    assert both.token(cookie.replace("old=", "new=")) is None


def test_two_ids_of_one_session_are_no_contradiction() -> None:
    """While a name is being changed a browser has both for a moment: the later one counts."""
    reader = Reader("new", "old")
    older = Reader("old").issued(version=1)
    newer = reader.issued(version=2)
    for field in (f"{older}; {newer}", f"{newer}; {older}"):
        ticket = reader.cookies.ticket((field,))
        assert ticket is not None
        assert (ticket.name, ticket.sid.version) == ("new", 2)


def test_an_id_that_has_outlived_the_operators_limit_is_refused_without_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a minute for clocks that differ; where the app may set longer lives, only the record decides."""
    limited, free = Reader(lifetimes=Lifetimes(idle_s=None, absolute_s=3600.0)), Reader()
    cookie = limited.issued()
    born = int(__import__("time").time()) // 60 * 60
    monkeypatch.setattr("clustersession.runtime.cookies.time", lambda: born + 60 + 3600 + 59)
    assert limited.token(cookie) is not None
    monkeypatch.setattr("clustersession.runtime.cookies.time", lambda: born + 60 + 3600 + 61)
    assert limited.token(cookie) is None
    assert free.token(free.issued()) is not None
    assert limited.counters.of("refused_outlived") == 1


def test_a_handle_names_a_session_but_no_owner() -> None:
    """For the shell: whoever has the handle can look, but nothing in it says where."""
    reader = Reader()
    ticket = reader.cookies.ticket_of_handle("0f" * 16)
    assert ticket is not None
    assert ticket.owners(reader.host.view, reader.host, reader.ring) == (None, None)
    assert [reader.cookies.ticket_of_handle(text) for text in ("", "0F" * 16, "0f" * 15, "0f" * 17)] == [None] * 4


@given(st.lists(st.one_of(st.text(max_size=200), st.binary(max_size=200)), max_size=4))
def test_nothing_a_client_sends_raises(fields: list[str | bytes]) -> None:
    """Any bytes and any text, in any number of fields."""
    assert READER.cookies.ticket(fields) is None


@given(st.text("0123456789abcdefghijklmnopqrstuv-; =cs", max_size=240))
def test_nothing_that_looks_like_an_id_passes(text: str) -> None:
    """Only what a key of the ring has signed."""
    assert READER.cookies.ticket((f"cs={text}",)) is None


def test_every_single_character_counts() -> None:
    """Each of the 105 changed by one: none is accepted."""
    reader = Reader()
    cookie = reader.issued()
    for place in range(3, len(cookie)):
        changed = "1" if cookie[place] != "1" else "2"
        assert reader.token(cookie[:place] + changed + cookie[place + 1 :]) is None


def test_tokens_of_another_cluster_and_name_do_not_verify() -> None:
    """The same key, another context."""
    reader = Reader()
    key = reader.ring.signing
    tag = reader.cookies.tags(OWNERS, key.kid)
    for context in (IdContext("other", "cs"), IdContext("default", "sc")):
        text = encode(token=b"t" * 16, born=1, master=tag[0], backup=tag[1], epoch=1, version=1, key=key, context=context)
        assert reader.token(f"cs={text}") is None


READER = Reader()
