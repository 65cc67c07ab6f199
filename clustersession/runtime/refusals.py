"""Sessions that were refused: counted by reason, and told to the log in one line each, as many as a log can bear.

No line has an ID, a cookie or a user in it: a session is named by its public handle, a cookie that does not verify by a hash
that only this cluster can make. Counters: `refused_<code>` is of requests; `refused_session_<code>` of sessions, each counted
again after ten minutes; `refused_young_<code>` of those of them whose ID was born a few minutes ago.
"""

from __future__ import annotations

import hmac
import logging
from datetime import UTC, datetime
from threading import Lock
from time import time
from typing import Final

from ..core.keyring import Key
from ..core.reasons import REASONS, YOUNG_S, age_of
from ..core.session_id import SessionId
from ..ports import Observer
from .cache import BoundedCache

SAME_SESSION_S: Final = 600.0
WINDOW_S: Final = 10.0
LINES_IN_WINDOW: Final = 10  # of one process
_KEPT_MAX: Final = 4096
_TEXT_HASHED_CHARS_MAX: Final = 4096
log: Final = logging.getLogger("clustersession.refused")


class Refusals:
    """What one app of a process has refused."""

    def __init__(self, observer: Observer) -> None:
        self._count = observer.count
        self._seen: BoundedCache[tuple[str, str], float] = BoundedCache(_KEPT_MAX)
        self._lock = Lock()
        self._window, self._lines, self._left_out = 0.0, 0, 0

    def __repr__(self) -> str:
        return f"<Refusals, {self._left_out} not told>"

    def session(self, code: str, sid: SessionId, detail: str = "") -> None:
        """A session whose ID verified. `detail` names nodes and nothing of the session."""
        now = time()
        self._note(code, sid.handle, now, age_of(sid, now), detail)

    def named(self, code: str, handle: str) -> None:
        """A session of which no more is known here than its public handle."""
        self._note(code, handle, time(), None)

    def text(self, code: str, text: str, key: Key) -> None:
        """A cookie that is no ID of ours; `key` makes its hash."""
        label = b"clustersession refused cookie" + text[:_TEXT_HASHED_CHARS_MAX].encode("utf-8", "surrogateescape")
        self._note(code, hmac.digest(key.hello, label, "sha256").hex()[:32], time(), None)

    def _note(self, code: str, name: str, now: float, age_s: float | None, detail: str = "") -> None:
        self._count(f"refused_{code}")
        before = self._seen.get((code, name))
        if before is not None and 0.0 <= now - before < SAME_SESSION_S:
            return
        self._seen.put((code, name), now)
        self._count(f"refused_session_{code}")
        if age_s is not None and age_s < YOUNG_S:
            self._count(f"refused_young_{code}")
        left_out = self._admitted(now)
        if left_out is not None:
            _tell(code, name, now, age_s, left_out, detail)

    def _admitted(self, now: float) -> int | None:
        """How many lines were left out before this one; None: this one is left out too."""
        with self._lock:
            if not 0.0 <= now - self._window < WINDOW_S:
                self._window, self._lines = now, 0
            if self._lines >= LINES_IN_WINDOW:
                self._left_out += 1
                return None
            self._lines += 1
            left_out, self._left_out = self._left_out, 0
        return left_out


def _tell(code: str, name: str, now: float, age_s: float | None, left_out: int, detail: str) -> None:
    reason = REASONS[code]
    level = logging.WARNING if reason.warns else logging.INFO
    age = "unknown" if age_s is None else f"{max(age_s, 0.0) / 60:.0f}min"
    log.log(
        level,
        'session refused: time=%s level=%s code=%s id=%s age=%s left_out=%d reason="%s"',
        datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        logging.getLevelName(level).lower(), code, name, age, left_out, f"{reason.words}; {detail}" if detail else reason.words,
    )  # fmt: skip
