"""From settings to a store, and the question whether they will give one, which opens nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

from .. import hostclock
from ..config import Config
from ..ports import Store
from .lmdb_store import LmdbStore
from .memory import MemoryStore
from .meta import META_NAME
from .place import place_for
from .sizing import store_bytes


def open_store(config: Config, environ: Mapping[str, str] | None = None) -> Store:
    """The store that `config` asks for. `environ` is where `place_for` looks for directories; None: nowhere.

    Raises `StoreRefused` and `ConfigError` with the place, the problem and the remedy.
    """
    if _in_memory(config):
        return MemoryStore(bytes_max=config.limits.store_bytes_max, now=hostclock.now)
    return LmdbStore(
        place_for(config, environ or {}),
        cluster=config.cluster,
        node=config.node,
        now=hostclock.now,
        bytes_max=config.limits.store_bytes_max,
        lock_s=config.timeouts.shard_lock_s,
    )


def check_place(config: Config, environ: Mapping[str, str] | None = None) -> None:
    """Raises the `ConfigError` that `open_store` would raise for a place that cannot be found or has no room. Makes and opens
    nothing; where this user may not look, as with commands that another one runs than the app, nothing is said."""
    if _in_memory(config):
        return
    place = place_for(config, environ or {})
    if os.path.exists(place / META_NAME):  # noqa: PTH110  (Path.exists raises where this user may not look)
        return  # files that are there have their room
    existing = next(each for each in (place, *place.parents) if os.path.lexists(each))
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        store_bytes(existing, config.limits.store_bytes_max)


def _in_memory(config: Config) -> bool:
    return config.store == "memory" or config.mode == "dev"
