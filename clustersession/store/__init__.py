"""The host's store. All processes of one host that open it with the same settings and environment share it."""

from .lmdb_store import LmdbStore
from .locks import NodeLock
from .memory import MemoryStore
from .opening import check_place, open_store
from .place import place_for

__all__ = ["LmdbStore", "MemoryStore", "NodeLock", "check_place", "open_store", "place_for"]
