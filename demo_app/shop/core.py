"""What the shop does with a session, whatever framework holds it.

The cart is one session key per item (`cart:<item>` -> quantity) and a form sets a quantity instead of adding to it. So two
tabs that add different items at the same moment change different keys and neither overwrites the other, and a form that
a browser sends twice does no harm.
"""

from __future__ import annotations

import os
import re
import socket
from typing import Any, NamedTuple
from urllib.parse import parse_qs

USER = "_user_id"  # the key Flask-Login uses: a change of it is a login, so clustersession issues a new session ID
CART = "cart:"
BODY_BYTES_MAX = 4096
QUANTITY_MAX = 99

_ITEM = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NAME = re.compile(r"[\w .@-]{1,40}")


class Product(NamedTuple):
    """`price` in cents."""

    item: str
    name: str
    price: int


CATALOGUE = (
    Product("coffee", "Coffee, 500 g", 890),
    Product("tea", "Green tea, 100 g", 640),
    Product("mug", "Blue mug", 1200),
    Product("bread", "Rye bread", 420),
    Product("honey", "Forest honey", 750),
    Product("soap", "Olive soap", 380),
)


class BadForm(ValueError):
    """What the browser sent is not a form of this shop; the text is for the visitor."""


class Owners(NamedTuple):
    """Where a session is kept."""

    master: str
    backup: str | None
    epoch: int


class View(NamedTuple):
    """What one page shows. `owners` is None while nothing of the session is stored."""

    host: str
    user: str | None
    cart: dict[str, int]
    owners: Owners | None


Session = Any  # a mapping of str to values in every framework; `placement` and `end()` are clustersession's


def host_name() -> str:
    """The name this host has in the cluster."""
    return os.environ.get("CLUSTERSESSION_NODE") or socket.gethostname()


def view(session: Session) -> View:
    """The page for whoever has this session."""
    placement = session.placement
    owners = None if placement is None else Owners(placement.master, placement.backup, placement.epoch)
    cart = {key[len(CART) :]: session[key] for key in sorted(session.keys()) if key.startswith(CART)}
    return View(host_name(), session.get(USER), cart, owners)


def as_json(shown: View) -> dict[str, Any]:
    """The same page for programs."""
    owners = None if shown.owners is None else shown.owners._asdict()
    return {"host": shown.host, "user": shown.user, "cart": shown.cart, "owners": owners}


def log_in(session: Session, form: dict[str, str]) -> None:
    """Log in whoever `user` names: it is a demo, so there is no password."""
    name = form.get("user", "").strip()
    if not _NAME.fullmatch(name):
        raise BadForm("Please give a name of 1 to 40 letters.")
    session[USER] = name


def log_out(session: Session) -> None:
    """End the session for good, on every host that has a copy."""
    session.end()


def set_quantity(session: Session, form: dict[str, str]) -> None:
    """Put `quantity` of `item` into the cart (0 takes it out). Sent twice it does the same as sent once."""
    item, quantity = form.get("item", ""), form.get("quantity", "1")
    if not _ITEM.fullmatch(item):
        raise BadForm("That is not an item of this shop.")
    if not quantity.isascii() or not quantity.isdigit() or int(quantity) > QUANTITY_MAX:
        raise BadForm(f"The quantity must be a number from 0 to {QUANTITY_MAX}.")
    if int(quantity):
        session[CART + item] = int(quantity)
    else:
        session.pop(CART + item, None)


def parse_form(body: bytes) -> dict[str, str]:
    """The fields of an `application/x-www-form-urlencoded` body; of a field sent twice the last one."""
    if len(body) > BODY_BYTES_MAX:
        raise BadForm("That form is too large.")
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=8)
    except ValueError as error:
        raise BadForm("That is not a form.") from error
    return {name: values[-1] for name, values in fields.items()}


def wants_json(accept: str | None) -> bool:
    """Programs say so; browsers never name this type."""
    return accept is not None and "application/json" in accept
