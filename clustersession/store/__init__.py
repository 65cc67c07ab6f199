"""The host's store. All processes of one host that open it with the same settings and environment share it."""

from __future__ import annotations

from collections.abc import Mapping

from .. import hostclock
from ..config import Config
from ..ports import Store
from .lmdb_store import LmdbStore
from .locks import NodeLock
from .memory import MemoryStore
from .place import place_for

__all__ = ["LmdbStore", "MemoryStore", "NodeLock", "open_store", "place_for"]


def open_store(config: Config, environ: Mapping[str, str] | None = None) -> Store:
    """The store that `config` asks for. `environ` is where `place_for` looks for directories; None: nowhere.

    Raises `StoreRefused` and `ConfigError` with the place, the problem and the remedy.
    """
    if config.store == "memory" or config.mode == "dev":
        return MemoryStore(bytes_max=config.limits.store_bytes_max, now=hostclock.now)
    return LmdbStore(
        place_for(config, environ or {}),
        cluster=config.cluster,
        node=config.node,
        now=hostclock.now,
        bytes_max=config.limits.store_bytes_max,
        lock_s=config.timeouts.shard_lock_s,
    )
