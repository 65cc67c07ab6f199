"""Sessions of the old system in files: those of cachelib, as Flask-Session keeps them, and Django's."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import SourceUnavailable
from .shelf import PAGE, Kept, after, answers

_END: Final = struct.Struct("=I")  # Unix s, 0: never
_END_MAX: Final = 2**32 - 1


class _Directory:
    """Whole files, replaced at once."""

    kind = "files"

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)

    def _read(self, name: str) -> tuple[bytes, float] | None:
        """The content and when it was written, or None."""
        with self._present(), (self._directory / name).open("rb") as file:
            return file.read(), os.fstat(file.fileno()).st_mtime
        return None

    def _write(self, name: str, content: bytes, suffix: str, modified: float | None = None) -> None:
        with answers(self.kind, ()):
            handle, temporary = tempfile.mkstemp(suffix, f"{name}_out_", self._directory)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                if modified is not None:
                    os.utime(temporary, (modified, modified))
                os.replace(temporary, self._directory / name)  # noqa: PTH105  - both names are text
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise

    def _remove(self, name: str) -> None:
        with self._present():
            (self._directory / name).unlink()

    def _exists(self, name: str) -> bool:
        with answers(self.kind, ()):
            return (self._directory / name).exists()

    def _listed(self, name: str, prefix: str, cursor: str) -> Iterator[tuple[list[str], str]]:
        """The keys of all files whose name is `name` and a key."""
        with self._present(), os.scandir(self._directory) as found:
            every = [each.name.removeprefix(name) for each in found if each.name.startswith(name + prefix)]
        keys = sorted(key for key in every if key > cursor)
        for start in range(0, max(len(keys), 1), PAGE):
            page = keys[start : start + PAGE]
            yield page, after(page[-1], prefix) if start + PAGE < len(keys) else ""

    @contextmanager
    def _present(self) -> Iterator[None]:
        """A file that is missing is missing; a directory that is, is no answer."""
        with answers(self.kind, ()):
            try:
                yield
            except FileNotFoundError:
                if not self._directory.is_dir():
                    raise SourceUnavailable(
                        f"the directory of the old sessions, {self._directory}, is not there: mount it, or correct the setting"
                    ) from None


class CachelibFiles(_Directory):
    """cachelib's `FileSystemCache`. Files are looked for under each of `hash_names`, cachelib's own since 0.16 and before it;
    new ones are written under the first."""

    unlisted = "the names of cachelib's files are hashes, from which no session's ID can be told"

    def __init__(self, directory: str | Path, *, hash_names: Sequence[str] = ("sha256", "md5")) -> None:
        super().__init__(directory)
        self._hash_names = tuple(hash_names)

    def get(self, key: str, now: float) -> Kept | None:
        """The pickle, without the time before it."""
        for name in self._names(key):
            found = self._read(name)
            if found is not None and len(found[0]) > _END.size:
                content, modified = found
                (end,) = _END.unpack_from(content)
                return Kept(content[_END.size :], float(end) if end else None, modified)
        return None

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """Under the name that it has already."""
        there = [name for name in self._names(key) if self._exists(name)]
        if new == bool(there):
            return False
        end = _END.pack(min(round(expires), _END_MAX))
        self._write((there or self._names(key))[0], end + data, ".__wz_cache")
        return True

    def drop(self, key: str) -> None:
        """Under every name."""
        for name in self._names(key):
            self._remove(name)

    def _names(self, key: str) -> list[str]:
        return [hashlib.new(each, key.encode(), usedforsecurity=False).hexdigest() for each in self._hash_names]


class DjangoFiles(_Directory):
    """Django's session files: `directory` is SESSION_FILE_PATH, `cookie_name` SESSION_COOKIE_NAME, `age_s` SESSION_COOKIE_AGE.

    Django counts the age from when a file was modified, so one that has to end earlier is dated earlier.
    """

    def __init__(self, directory: str | Path, *, cookie_name: str = "sessionid", age_s: float = 14 * 86400) -> None:
        super().__init__(directory)
        self._prefix, self._age_s = cookie_name, age_s

    def get(self, key: str, now: float) -> Kept | None:
        """The text. An empty file is a place that Django has taken for a session to come."""
        found = self._read(self._prefix + key)
        return Kept(found[0], found[1] + self._age_s, found[1]) if found and found[0] else None

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """The file, dated so that it ends at `expires`."""
        if new == self._exists(self._prefix + key):
            return False
        self._write(self._prefix + key, data, "", min(now, expires - self._age_s))
        return True

    def drop(self, key: str) -> None:
        """No file."""
        self._remove(self._prefix + key)

    def keys(self, prefix: str, cursor: str) -> Iterator[tuple[list[str], str]]:
        """The names in the directory, in their order."""
        yield from self._listed(self._prefix, prefix, cursor)
