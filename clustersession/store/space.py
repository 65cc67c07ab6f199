"""Room to move: how many pages an environment may use, and that the file system has really given some that are free.

LMDB writes every page it changes anew, so evicting or ending a session needs free pages first. In a full file system there
would be none, and the store would be stuck for good. So its file is kept some pages ahead of what is used; where no more
can be had, what there is counts as the whole, and eviction begins.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final, NamedTuple

import lmdb

PAGE: Final = 4096
DIRTY_PAGES: Final = 16  # of one small change at most; those of the last three are not free again yet
AHEAD_PAGES: Final = 3 * DIRTY_PAGES
_STEP_PAGES: Final = 32


class Room(NamedTuple):
    """Pages in use from which what may be evicted is evicted for anything new, and from which nothing new is taken."""

    soft: int
    hard: int


def room_in(pages: int) -> Room:
    """Nine tenths and nineteen twentieths of `pages`; of few pages a larger part is kept free."""
    return Room(min(pages * 9 // 10, pages - AHEAD_PAGES), min(pages * 19 // 20, pages - 5 * DIRTY_PAGES // 2))


class Space:
    """The pages of one environment, as this process knows them. Used under the environment's write lock."""

    __slots__ = ("_data", "_env", "_given", "_pages", "room")

    def __init__(self, env: lmdb.Environment, data: Path) -> None:
        self._env, self._data = env, data
        self._pages = env.info()["map_size"] // PAGE
        self._given = 0  # pages that the file system has given at least
        self.room = room_in(self._pages)

    def keep_ahead(self, step: int = _STEP_PAGES) -> None:
        """To be called after a change that may have taken pages: that is done already, so this never fails."""
        wanted = min(self._env.info()["last_pgno"] + 1 + AHEAD_PAGES, self._pages)
        if wanted > self._given:
            self._extend(wanted, step)

    def lasts(self, pages: int) -> bool:
        """Whether so many pages may be taken at once, and as many as are always kept ahead are there still."""
        wanted = min(self._env.info()["last_pgno"] + 1 + AHEAD_PAGES + pages, self._pages)
        if wanted <= self._given:
            return True
        before = self.room
        self._extend(wanted, _STEP_PAGES)
        if wanted <= self._given:
            return True
        self.room = before  # for what is usual there may be enough
        return False

    def grown(self) -> bool:
        """Whether the file system has room again that it did not have before."""
        before = self.room
        self.keep_ahead()
        return self.room.soft > before.soft

    def _extend(self, wanted: int, step: int) -> None:
        file = os.open(self._data, os.O_RDWR | os.O_CLOEXEC)
        try:
            for pages in (min(wanted + step, self._pages), wanted):  # perhaps there is no room for a whole step
                self._given = os.fstat(file).st_size // PAGE
                if self._given < wanted:
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(file, 0, pages * PAGE)
                        self._given = pages
        finally:
            os.close(file)
        self.room = room_in(self._pages if self._given >= wanted else self._given)
