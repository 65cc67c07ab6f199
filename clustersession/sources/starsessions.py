"""starsessions on Redis; its cookie store is in `cookies`."""

from __future__ import annotations

import re
import secrets
from typing import Final

from .forms import StarsessionsForm
from .keyed import Ids, KeyedSource
from .shelf import Shelf

_ID: Final = re.compile(r"[0-9a-f]{32}")
_ID_BYTES: Final = 16


class Starsessions(KeyedSource):
    """`lifetime_s` is the middleware's, 0 for sessions that end with the browser; those are kept for `gc_s` (the store's
    `gc_ttl`). `prefix` is the store's."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        prefix: str = "starsessions.",
        lifetime_s: int = 0,
        gc_s: float = 30 * 86400,
        cookie_name: str = "session",
    ) -> None:
        form = StarsessionsForm(lifetime_s, in_cookie=False)
        ids = Ids(_ID, lambda: secrets.token_hex(_ID_BYTES))
        super().__init__("starsessions", cookie_name, shelf, form, ids, prefix=prefix, lifetime_s=lifetime_s or gc_s)
