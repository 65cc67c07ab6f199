"""starsessions on Redis; its cookie store is in `cookies`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, Final

from .forms import Opened, StarsessionsForm
from .keyed import Ids, KeyedSource
from .shelf import Kept, Shelf

_ID: Final = re.compile(r"[0-9a-f]{32}")
_ID_BYTES: Final = 16


class Starsessions(KeyedSource):
    """`lifetime_s` and `rolling` are the middleware's; 0 for sessions that end with the browser, which are kept for `gc_s` (the
    store's `gc_ttl`). `prefix` is the store's."""

    def __init__(
        self,
        shelf: Shelf,
        *,
        prefix: str = "starsessions.",
        lifetime_s: int = 0,
        rolling: bool = False,
        gc_s: float = 30 * 86400,
        cookie_name: str = "session",
    ) -> None:
        form = StarsessionsForm(lifetime_s, in_cookie=False)
        ids = Ids(_ID, lambda: secrets.token_hex(_ID_BYTES))
        super().__init__("starsessions", cookie_name, shelf, form, ids, prefix=prefix, lifetime_s=lifetime_s or gc_s)
        self._starsessions, self._fixed = form, lifetime_s > 0 and not rolling

    def _own_limits(self, opened: Opened, kept: Kept, now: float) -> tuple[float | None, float | None]:
        return None, (self._starsessions.end_of(opened) or kept.expires) if self._fixed else None

    def _end_again(self, kept: Kept, opened: Opened, items: Mapping[str, Any], now: float) -> float:
        """A TTL is cut to whole seconds by starsessions: taken over, each write of both sides in turn would shorten the life."""
        end = (self._starsessions.end_of(opened) or kept.expires) if self._fixed else None
        return super()._end_again(kept, opened, items, now) if end is None else end
