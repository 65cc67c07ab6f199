"""The one page of the shop, as plain HTML that works without scripts."""

from __future__ import annotations

from html import escape

from .core import CATALOGUE, QUANTITY_MAX, View

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fafaf8}
header,.row{display:flex;justify-content:space-between;align-items:center;gap:1rem}
h1{font-size:1.4rem;margin:0}.card{background:#fff;border:1px solid #ddd;border-radius:8px;padding:.8rem 1.2rem;margin:1rem 0}
.row{border-top:1px solid #eee;padding:.35rem 0}.row:first-of-type{border:0}form{display:inline}
button{font:inherit;padding:.2rem .8rem;border:1px solid #bbb;border-radius:6px;background:#f4f4f2;cursor:pointer}
input{font:inherit;padding:.2rem .5rem;border:1px solid #bbb;border-radius:6px}
.where{font-size:.9rem;color:#555}.where b{color:#000}.host{background:#2a6;color:#fff;border-radius:6px;padding:.1rem .6rem}
"""


def render(view: View) -> str:
    """The page that `view` describes."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Shop</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body>"
        f"<header><h1>The little shop</h1>{_visitor(view.user)}</header>"
        f'<section class="card where">{_where(view)}</section>'
        f'<section class="card">{"".join(_product(*product, view.cart) for product in CATALOGUE)}</section>'
        f'<section class="card">{_cart(view.cart)}</section>'
        "</body></html>"
    )


def _visitor(user: str | None) -> str:
    if user is None:
        field = '<input name="user" placeholder="your name" required>'
        return f'<form method="post" action="/login">{field} <button>Log in</button></form>'
    return f'<form method="post" action="/logout">Hello <b>{escape(user)}</b> <button>Log out</button></form>'


def _where(view: View) -> str:
    served = f'Served by <span class="host">{escape(view.host)}</span>'
    if view.owners is None:
        return f"{served} &middot; no session is stored yet: it starts with the first thing you do."
    backup = f"<b>{escape(view.owners.backup)}</b>" if view.owners.backup else "<b>none</b>"
    master = f"<b>{escape(view.owners.master)}</b>"
    return f"{served} &middot; your session: master {master}, backup {backup} (epoch {view.owners.epoch})"


def _product(item: str, name: str, price: int, cart: dict[str, int]) -> str:
    quantity = cart.get(item, 0)
    more = _set(item, min(quantity + 1, QUANTITY_MAX), "+1")
    less = _set(item, quantity - 1, "&minus;1") if quantity else ""
    label = f"<span>{escape(name)} <small>{price / 100:.2f}</small></span>"
    return f'<div class="row">{label}<span>{less} {quantity} {more}</span></div>'


def _set(item: str, quantity: int, label: str) -> str:
    fields = f'<input type="hidden" name="item" value="{escape(item)}"><input type="hidden" name="quantity" value="{quantity}">'
    return f'<form method="post" action="/cart">{fields}<button>{label}</button></form>'


def _cart(cart: dict[str, int]) -> str:
    if not cart:
        return "Your cart is empty."
    known = {product.item: product for product in CATALOGUE}
    total = sum(known[item].price * quantity for item, quantity in cart.items() if item in known)
    names = {item: known[item].name if item in known else item for item in cart}
    lines = ", ".join(f"{quantity} &times; {escape(names[item])}" for item, quantity in cart.items())
    return f"<b>Your cart:</b> {lines} &middot; total {total / 100:.2f}"
