"""A small shop, as it was before clustersession: the same in each framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CART_MAX = 40  # a cookie has to hold it
PATHS = ("look", "login", "add", "logout")


def visit(session: Any, path: str, query: Mapping[str, str]) -> dict[str, Any]:
    """What the page at `path` does, and what it shows."""
    match path.removeprefix("/"):
        case "login":
            session["_user_id"] = query["user"]
        case "add":
            session["cart"] = [*session.get("cart", []), query["item"]][-CART_MAX:]
        case "logout":
            session.flush() if hasattr(session, "flush") else session.clear()
            return {"user": None, "cart": []}
    return {"user": session.get("_user_id"), "cart": session.get("cart", [])}
