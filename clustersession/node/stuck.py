"""Which parts of this host's store cannot be written, and which process is to blame."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from ..core.session_id import STORE_KEY_BYTES
from ..errors import ClusterSessionError
from ..ports import Change
from ..store import LmdbStore
from ..store.sizing import SHARDS

TRIED_S: Final = 1.5
_STATES: Final = {"T": "stopped", "t": "being traced", "D": "waiting for a disk", "R": "running", "S": "sleeping"}


def stuck_shards(store: LmdbStore) -> dict[str, str]:
    """By number (16: the board), with the process. Whatever is locked at this moment is waited for; may take seconds."""
    deadline = time.monotonic() + TRIED_S
    for number in range(SHARDS + 1):
        if store.lock_holder(number) is not None and time.monotonic() < deadline:
            _try(store, number)
    return {str(number): described(holder) for number, holder in sorted(store.down_shards().items())}


def _try(store: LmdbStore, number: int) -> None:
    """Changes nothing; the store remembers what it could not lock."""
    try:
        if number == SHARDS:
            store.add_counts({})
        else:
            store.change(bytes([number << 4]) + bytes(STORE_KEY_BYTES - 1), lambda _: Change(None))
    except ClusterSessionError:
        pass  # `down_shards` says it


def described(pid: int | None) -> str:
    """A process for people: its number, name and state, and nothing of its arguments."""
    if not pid:
        return "a process in another PID namespace" if pid == 0 else "a process that has ended meanwhile"
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return f"process {pid}, which has ended meanwhile"
    name, _, rest = text.partition("(")[2].rpartition(")")
    state = rest.strip()[:1]
    return f"process {pid} ({name}, {_STATES.get(state, state)})"
