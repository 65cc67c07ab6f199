"""How far an import has come: in a file, so that it goes on from there after it was stopped, or killed."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Final

import msgspec

from ..errors import ConfigError

REASONS_MAX: Final = 50
OTHER: Final = "other reasons"


class _Kept(msgspec.Struct):
    source: str
    cursor: str
    counts: dict[str, int]
    reasons: dict[str, int]


class ImportState:
    """Counts, and the cursor after the last page that was done. Without a `path` nothing is kept."""

    def __init__(self, path: Path | None, source: str) -> None:
        self._path, self._source = path, source
        self.cursor = ""
        self.resumed = False
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    @classmethod
    def read(cls, path: Path | None, source: str) -> ImportState:
        """What the file says; a new one if there is none, or if it says that all was done. Raises `ConfigError`."""
        state = cls(path, source)
        if path is None:
            return state
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            state.page_done("")  # that it can be written is known before anything is done
            return state
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError("--resume", f"{path} cannot be read ({error})", "Name another file, or remove it.") from error
        if kept.source != source:
            problem = f"{path} is of an import from {kept.source}, and this one is from {source}"
            raise ConfigError("--resume", problem, "Name another file.")
        if kept.cursor:
            state.cursor, state.resumed = kept.cursor, True
            state.counts, state.reasons = Counter(kept.counts), Counter(kept.reasons)
        return state

    def count(self, fate: str, reason: str) -> None:
        """One session."""
        self.counts[fate] += 1
        if reason:
            self.reasons[reason if reason in self.reasons or len(self.reasons) < REASONS_MAX else OTHER] += 1

    def page_done(self, cursor: str) -> None:
        """All before `cursor` need not be looked at again. Raises `ConfigError` if that cannot be written down."""
        self.cursor = cursor
        if self._path is None:
            return
        kept = _Kept(self._source, cursor, dict(self.counts), dict(self.reasons))
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(kept))
            temporary.replace(self._path)
        except OSError as error:
            raise ConfigError("--resume", f"{self._path} cannot be written ({error})", "Name another file.") from error
