"""What every test app does: the same three paths over whatever its framework calls a session.

/look, /set?name=value, /end. `spin` in the query keeps the worker busy for so many seconds, so that others take the next request.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

Act = Callable[[str, Mapping[str, str]], dict[str, Any]]


def act(session: MutableMapping[str, Any], placement: Any, end: Callable[[], None], path: str, query: Mapping[str, str]) -> Any:
    """Does what `path` says and gives what the session holds then, and who served it."""
    asked = dict(query)
    busy_until = time.monotonic() + float(asked.pop("spin", "0"))
    while time.monotonic() < busy_until:
        pass
    if path == "/set":
        for name, value in asked.items():
            session[name] = value
    elif path == "/end":
        end()
    return {
        "items": {} if path == "/end" else {name: value for name, value in session.items() if not name.startswith("_perm")},
        "owners": None if placement is None else [placement.master, placement.backup],
        "epoch": None if placement is None else placement.epoch,
        "pid": os.getpid(),
        "node": os.environ.get("CLUSTERSESSION_NODE"),
    }
