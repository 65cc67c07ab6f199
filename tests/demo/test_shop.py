"""What the shop does with forms and what it shows, whatever the framework."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from demo_app.shop.core import BODY_BYTES_MAX, BadForm, as_json, log_in, parse_form, set_quantity, view, wants_json
from demo_app.shop.page import render


class Placement(NamedTuple):
    master: str
    backup: str | None
    epoch: int


class Kept(dict[str, Any]):
    """A session in memory that says where it is kept."""

    placement: Placement | None = None


def kept(items: dict[str, Any], placement: Placement | None = None) -> Kept:
    session = Kept(items)
    session.placement = placement
    return session


def test_items_lie_under_keys_of_their_own() -> None:
    """Two items change two keys, so that parallel tabs never write the same one."""
    session = kept({})
    set_quantity(session, {"item": "tea", "quantity": "2"})
    set_quantity(session, {"item": "mug"})
    assert session == {"cart:tea": 2, "cart:mug": 1}
    assert view(session).cart == {"mug": 1, "tea": 2}


def test_a_form_sent_twice_does_no_harm() -> None:
    """Quantities are set, not added; zero takes an item out, also one that is not there."""
    session = kept({})
    for quantity, cart in (("3", {"tea": 3}), ("3", {"tea": 3}), ("0", {}), ("0", {})):
        set_quantity(session, {"item": "tea", "quantity": quantity})
        assert view(session).cart == cart


@pytest.mark.parametrize(
    "form",
    [{}, {"item": "../tea"}, {"item": "T"}, {"item": "x" * 41}, {"item": "tea", "quantity": "-1"}]
    + [{"item": "tea", "quantity": quantity} for quantity in ("100", "", "two", "²")],
)
def test_what_is_no_item_or_no_quantity_is_refused(form: dict[str, str]) -> None:
    """A wrong form changes nothing and is answered with a sentence."""
    session = kept({})
    with pytest.raises(BadForm, match=r"\."):
        set_quantity(session, form)
    assert session == {}


@pytest.mark.parametrize("body", [b"item", b"item=\xff", b"&" * 20, b"a=1&" * 9 + b"b=2", b"x=" + b"y" * BODY_BYTES_MAX])
def test_what_is_no_form_is_refused(body: bytes) -> None:
    """Bytes that are not a small form are answered with a sentence, not with a stack trace."""
    with pytest.raises(BadForm):
        parse_form(body)


def test_the_page_shows_host_owners_and_cart_and_escapes_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host, master and backup are on the page; a user's name cannot become markup."""
    monkeypatch.setenv("CLUSTERSESSION_NODE", "app7")
    session = kept({})
    log_in(session, {"user": "eve@example.org"})
    session["_user_id"] = "<script>"
    set_quantity(session, {"item": "tea", "quantity": "2"})
    html = render(view(kept(session, Placement("app1", "app2", 3))))
    assert all(text in html for text in ("app7", "<b>app1</b>", "<b>app2</b>", "2 &times; Green tea", "&lt;script&gt;", "12.80"))
    assert "<script>" not in html
    assert "no session is stored" in render(view(kept({})))
    assert "<b>none</b>" in render(view(kept(session, Placement("app1", None, 3))))


def test_programs_get_the_same_as_json() -> None:
    """The view for programs names host, user, cart and owners; browsers don't get it."""
    shown = as_json(view(kept({"_user_id": "ann", "cart:tea": 1, "other": 2}, Placement("a", None, 2))))
    assert {**shown, "host": ""} == {
        "host": "",
        "user": "ann",
        "cart": {"tea": 1},
        "owners": {"master": "a", "backup": None, "epoch": 2},
    }
    assert wants_json("application/json")
    assert not wants_json("text/html,application/xhtml+xml,*/*;q=0.8")
    assert not wants_json(None)
